"""What came of one training, or of a run that exists: what it cost, how it scores.

**In:** a run with its model, the `Dataset` whose held-out parts it is scored on.
**Out:** a `TrialResult`, the unit that comparisons are made of; for a text of a grammar the best
scores that any model can have on these very documents.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.data.dataset import Dataset, EvalSplit
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score
from lmcli.grammars.base import find_companions, grammar_of
from lmcli.models.base import LanguageModel
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.run import RECORD, Run
from lmcli.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class TrialResult:
    """One training, scored.

    `tokens_seen` and `seconds` count the same trainings: the one whose run remains, and every trial
    of its learning-rate search, the losing ones too.
    """

    name: str
    """of its row in the comparison, which all its seeds share"""
    arch: str
    seed: int
    run: str
    parameters: int
    body_parameters: int
    flops_per_token: int
    tokens_seen: int
    seconds: float
    learning_rate: float | None
    valid: Score
    test: Score | None
    is_count_based: bool = False
    """another seed would give the same model"""
    rotation: int = 0
    """the split that it was trained and tested on"""
    stopped: str | None = None
    """why the training ended"""
    steps: int | None = None
    """updates of the weights"""
    race: Sequence[Mapping[str, Any]] = ()
    """the trials of the search for a learning rate"""
    state: int = 0
    """floats that are carried from token to token"""
    context_length: int | None = None
    """tokens that can change a prediction, the present one included; None: no limit"""
    weights: str | None = None
    """a checksum of what was scored"""

    @classmethod
    def of(
        cls,
        name: str,
        run: Run,
        model: LanguageModel,
        dataset: Dataset,
        trained: Mapping[str, Any],
    ) -> TrialResult:
        """Score the model, which has the run's best weights, on what the dataset holds out.

        `trained` are the keys of ``lmcli train --json`` that say what the training took.
        """
        valid, test = score_parts(model, run.tokenizer, dataset)
        return cls(
            name=name,
            arch=run.record.arch,
            seed=run.record.seed,
            run=str(run.path),
            parameters=model.parameter_count(),
            body_parameters=model.body_parameters(),
            flops_per_token=model.flops_per_token(),
            tokens_seen=trained.get("tokens_seen") or 0,
            seconds=trained.get("seconds") or 0.0,
            learning_rate=None
            if model.is_count_based
            else run.record.training.get("learning_rate"),
            valid=valid,
            test=test,
            is_count_based=model.is_count_based,
            rotation=dataset.spec.rotation,
            stopped=trained.get("stopped"),
            steps=trained.get("steps"),
            race=tuple(trained.get("race") or ()),
            state=model.state_size,
            context_length=model.context_length,
            weights=run.weights_checksum(),
        )

    @property
    def held_out(self) -> Score:
        """The test part, or the validation part where there is no other."""
        return self.test or self.valid


def score_parts(
    model: LanguageModel, tokenizer: Tokenizer, dataset: Dataset
) -> tuple[Score, Score | None]:
    """What is validated and tested on, scored exactly."""
    valid = Score.of(score_documents(model, tokenizer, dataset.valid.part.documents))
    if dataset.test is None:
        return valid, None
    return valid, Score.of(score_documents(model, tokenizer, dataset.test.part.documents))


# ------------------------------------------------------------------ runs that exist

OpenedRun = tuple[Run, LanguageModel]


def open_runs(paths: Sequence[Path]) -> list[OpenedRun]:
    """The runs at these places; a folder that holds runs stands for all of them."""
    runs: list[Path] = []
    for path in paths:
        inside = sorted(p.parent for p in path.glob(f"[!.]*/{RECORD}"))  # without the half-written
        runs += [path] if (path / RECORD).is_file() or not inside else inside
    return [(run, run.model()) for run in map(Run.open, runs)]


def score_runs(
    opened: Sequence[OpenedRun],
    datasets: Mapping[int, Dataset],
    taken: Sequence[str],
    on_progress: OnProgress = warnings_only,
) -> list[TrialResult]:
    """Each run scored on what its split holds out; `taken` are names of rows trained beside them.

    `datasets` are those of each rotation; a run of another text is scored on the first.
    """
    names = _row_names([run for run, _ in opened], taken)
    results = []
    for (run, model), name in zip(opened, names, strict=True):
        dataset = next(iter(datasets.values()))
        if run.record.corpus["sha256"] == dataset.spec.sha256:
            dataset = datasets.get(rotation_of(run), dataset)
        else:
            other = f"'{run.path}' was trained on another text and may have seen what is held out"
            on_progress(Message(f"{other} here", "warning"))
        results.append(TrialResult.of(name, run, model, dataset, run.result("train") or {}))
    return results


def rotation_of(run: Run) -> int:
    """Which blocks of its text were held out."""
    return int(run.record.corpus.get("rotation", 0))


def _row_names(runs: Sequence[Run], taken: Sequence[str]) -> list[str]:
    """Runs go by their paths; those that differ by nothing but their seeds are one row."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(_fingerprint(run), []).append(run)
    groups = list[list[Run]]()
    for group in alike.values():
        is_row = len(group) == len({run.record.seed for run in group})
        groups += [group] if is_row else [[run] for run in group]
    names = [_group_name(group) for group in groups]
    named: dict[int, str] = {}
    for group, name in zip(groups, names, strict=True):
        if names.count(name) > 1 and len(group) > 1:
            name = f"{group[0].path} and {len(group) - 1} more"
        named |= {id(run): f"./{name}" if name in taken else name for run in group}
    return [named[id(run)] for run in runs]


def _group_name(group: Sequence[Run]) -> str:
    """The path of a run, or of several without their seeds: of all/rnn-seed0 and -seed1 all/rnn."""
    first = str(group[0].path)
    stems = {re.sub(r"-seed\d+$", "", str(run.path)) for run in group}
    if len(group) == 1:
        return first
    return stems.pop() if len(stems) == 1 else f"{first} and {len(group) - 1} more"


def _fingerprint(run: Run) -> str:
    """All that makes a run, except its seed and which blocks of the text it held out."""
    left_out = ("seed", "command", "versions", "id")
    record = {k: v for k, v in vars(run.record).items() if k not in left_out}
    record["corpus"] = {**record["corpus"], "rotation": 0, "folders": None}
    if (run.result("train") or {}).get("race"):  # each seed has searched for its own
        record["training"] = {**record["training"], "learning_rate": None}
        record["settings"] = {**record["settings"], "order": None}
    return json.dumps(record, sort_keys=True)


# ------------------------------------------------------------------ the optimum of a grammar

NO_TRAINING = (
    "parameters", "body_parameters", "tokens_seen", "seconds", "tokens_per_second",
    "flops_per_token", "learning_rate", "steps", "stopped", "run", "state", "context",
)  # fmt: skip


def optimum_row(datasets: Sequence[Dataset]) -> dict[str, Any] | None:
    """A row named optimum, the mean over splits; None for a text that no grammar has made as it is.

    A warning about what lies beside the text has been given with its items.
    """
    grammar = made_by(datasets[0], lambda event: None)
    if grammar is None:
        return None
    row: dict[str, Any] = dict.fromkeys(NO_TRAINING) | {"name": "optimum", "arch": "optimum"}
    try:
        row["valid"] = _optimal_score(grammar, [d.valid for d in datasets])
        row["test"] = _optimal_score(grammar, [d.test for d in datasets if d.test]) or None
    except ValueError:
        return None  # edited by hand: the optimum is unknown
    return row | {"seeds": []}


def _optimal_score(grammar: Any, parts: Sequence[EvalSplit]) -> dict[str, Any]:
    """The best possible score of some parts; empty where there are none."""
    if not parts:
        return {}
    nats_per_token, bits_per_char = list[float](), list[float]()
    for held_out in parts:
        lines = (line for document in held_out.part.documents for line in document.splitlines())
        nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        nats_per_token.append(nats / held_out.targets)
        bits_per_char.append(nats / math.log(2) / held_out.part.chars)
    mean = sum(nats_per_token) / len(parts)
    return {
        "nats_per_token": mean,
        "perplexity": math.exp(mean),
        "bits_per_char": sum(bits_per_char) / len(parts),
        "standard_error": None,
    }


def made_by(dataset: Dataset, on_progress: OnProgress = warnings_only) -> Any:
    """The grammar that made the text and knows its optimum, by the about file beside it."""
    texts = dataset.spec.texts
    return grammar_of(find_companions(texts, on_progress).about if len(texts) == 1 else None)
