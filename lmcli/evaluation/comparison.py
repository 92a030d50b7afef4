"""Trainings on one text under one protocol -> a ranking with paired differences.

**In:** a `TrialResult` for each training, or for runs that exist.
**Out:** a `Comparison`: a row for each architecture over its seeds, and for the optimum of a
grammar, which no model can beat; the `Difference` of each to the best; how far back each remembers:
its `reach` and, where the text has items with known answers, its `recall`, whether it has learnt
their task at all (`learning`), and what planting them costs the text (`cost`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.data.dataset import Dataset
from lmcli.evaluation.differences import Difference, Member
from lmcli.evaluation.filler_cost import cost_tables
from lmcli.evaluation.mixed_row import mixed_row
from lmcli.evaluation.probes.base import ProbeResult
from lmcli.evaluation.probes.ceiling.one_line import describe_ceiling
from lmcli.evaluation.probes.data import ProbeData
from lmcli.evaluation.probes.report import ProbeReport
from lmcli.evaluation.ranking_table import ranking_table
from lmcli.evaluation.row_memory import measure_memory, recall_tables
from lmcli.evaluation.score import Score, warn_of_unknown
from lmcli.evaluation.split_differences import Splits, differences_over_splits, splits_error
from lmcli.evaluation.statistics import stretch_sums
from lmcli.evaluation.trial_result import TrialResult, optimum_row
from lmcli.grammars.base import find_companions
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.report.result import Block, Reportable, Result

# ------------------------------------------------------------------ ranking


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the ranking: an architecture over its seeds."""

    name: str
    arch: str
    results: Sequence[TrialResult]

    def mean(self, value: Callable[[TrialResult], float]) -> float:
        """A value averaged over seeds."""
        return sum(map(value, self.results)) / len(self.results)

    @property
    def bits_per_char(self) -> float:
        """On the held-out part; what rows are sorted by."""
        return self.mean(lambda r: r.held_out.bits_per_char)

    @property
    def is_count_based(self) -> bool:
        """Whether another seed would give the same model."""
        return self.results[0].is_count_based

    def splits(self, part: Callable[[TrialResult], Score]) -> Splits:
        """Its seeds on the test part, or another, of each split."""
        rotations: dict[int, list[Score]] = {}
        for result in self.results:
            rotations.setdefault(result.rotation, []).append(part(result))
        return {
            rotation: Member.of(self.name, scores, self.is_count_based)
            for rotation, scores in rotations.items()
        }

    def summary(self, part: Callable[[TrialResult], Score]) -> dict[str, float]:
        """Means over seeds; the standard error holds both the text's and the seeds' share."""
        nats = self.mean(lambda r: part(r).nats_per_token)
        return {
            "nats_per_token": nats,
            "perplexity": math.exp(nats) if nats < 700 else math.inf,
            "bits_per_char": self.mean(lambda r: part(r).bits_per_char),
            "standard_error": splits_error(self.splits(part)),
        }

    def to_json(self) -> dict[str, Any]:
        """A row of ``compare --json``."""
        first = self.results[0]
        tested = all(r.test for r in self.results)
        return {
            "name": self.name,
            "arch": self.arch,
            "parameters": first.parameters,
            "body_parameters": first.body_parameters,
            "tokens_seen": self.mean(lambda r: r.tokens_seen),
            "seconds": self.mean(lambda r: r.seconds),
            "tokens_per_second": self.mean(lambda r: r.tokens_seen / max(r.seconds, 1e-9)),
            "flops_per_token": first.flops_per_token,
            "state": first.state,
            "context": first.context_length,
            "learning_rate": first.learning_rate,
            "steps": self.mean(lambda r: r.steps or 0) or None,
            "stopped": first.stopped if len({r.stopped for r in self.results}) == 1 else "various",
            "race": list(first.race),
            "valid": self.summary(lambda r: r.valid),
            "test": self.summary(lambda r: r.held_out) if tested else None,
            "seeds": [_seed_json(r) for r in self.results],
            "run": first.run if len(self.results) == 1 else None,
        }


def _seed_json(result: TrialResult) -> dict[str, Any]:
    """An entry of a row's ``seeds``: with `stretches`, all that intervals are computed from."""
    score = result.held_out
    bits, chars = stretch_sums(score.block_nats / math.log(2), score.block_chars)
    return {
        "seed": result.seed,
        "run": result.run,
        "weights": result.weights,
        "rotation": result.rotation,
        "bits_per_char": score.bits_per_char,
        "stretches": {"bits": bits.tolist(), "chars": chars.tolist()},
        "learning_rate": result.learning_rate,
        "stopped": result.stopped,
        "steps": result.steps,
        "race": list(result.race),
    }


@dataclass(frozen=True)
class Ranking:
    """Rows, best first, and each one's difference to the best."""

    rows: Sequence[ComparisonRow]
    differences: Sequence[Difference]

    @classmethod
    def of(cls, results: Sequence[TrialResult]) -> Ranking:
        """Rank results; those of one name are seeds of one row, whichever was done first."""
        groups: dict[str, list[TrialResult]] = {}
        for result in sorted(results, key=lambda r: (r.seed, r.run)):
            groups.setdefault(result.name, []).append(result)
        rows = [ComparisonRow(name, g[0].arch, g) for name, g in groups.items()]
        rows.sort(key=lambda row: row.bits_per_char)
        splits = [row.splits(lambda r: r.held_out) for row in rows]
        return cls(rows, differences_over_splits(splits))


# ------------------------------------------------------------------ what `lmcli compare` says


@dataclass(frozen=True)
class Comparison(Reportable):
    """A ranking with all that was measured beside it."""

    ranking: Ranking
    rows: Sequence[Mapping[str, Any]]
    """of the ranking and of the optimum, as JSON, best first"""
    corpus: Mapping[str, Any]
    protocol: Mapping[str, Any]
    """the conditions that were the same for all trainings"""
    folder: Path
    """where the runs are"""
    probes: Sequence[ProbeResult] | None = None
    """results of all probes, where they were run"""
    too_little: str = ""
    """of what the text has too little to show memory, in one line"""
    ceiling: Mapping[str, Any] | None = None
    """what memory the text rewards"""
    mix: Mapping[str, Any] | None = None
    """the mixture of the rows, which is no row of the ranking"""
    page: Path | None = None
    """that shows all of it"""

    def result(self) -> Result:
        """The ranking, right answers by gap, the pictures of all probes; the next command."""
        values = self.values()
        blocks: list[Block] = [ranking_table(values)]
        blocks += [*recall_tables(self.rows), *cost_tables(self.rows)]
        if self.probes:
            blocks += ProbeReport(self.probes).result().blocks
        again = f"lmcli sample {shlex.quote(self.ranking.rows[0].results[0].run)}"
        if any(row["arch"] == "optimum" for row in self.rows):
            again = f"lmcli cloze {shlex.quote(str(self.folder))}/*"
        return Result("compare", values, blocks, [again])

    def values(self) -> dict[str, Any]:
        """What comparison.json holds."""
        values = {
            "corpus": self.corpus,
            "protocol": self.protocol,
            "rows": self.rows,
            "differences": [d.to_json() for d in self.ranking.differences],
            "too_little": self.too_little or None,
            "ceiling": self.ceiling,
            "mix": self.mix,
        }
        if self.probes is not None:
            values["probes"] = [r.to_json() for r in self.probes]
        return values


def compare_results(
    results: Sequence[TrialResult],
    datasets: Mapping[int, Dataset],
    protocol: Mapping[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    probe: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Comparison:
    """Rank what was trained; measure each row's memory, with `probe` by all probes.

    `datasets` are the splits of one text, by rotation.
    """
    used = {r.rotation: datasets[r.rotation] for r in results if r.rotation in datasets}
    dataset = next(iter(used.values()))
    scores = {r.name: r.held_out for r in results if r.rotation == dataset.spec.rotation}
    if len({score.unknown_tokens for score in scores.values()}) > 1:
        for name, score in scores.items():
            if not score.spelling_nats:  # bits per character mean little beside the others'
                warn_of_unknown(score, name, on_progress)
    ranking = Ranking.of(results)
    rows = [row.to_json() for row in ranking.rows]
    if optimum := optimum_row(list(used.values())):
        rows.append(optimum)
        rows.sort(key=lambda row: (row["test"] or row["valid"])["bits_per_char"])
    texts = {}
    for rotation, one in used.items():  # what lies beside the text is warned of once
        told = on_progress if one is dataset else (lambda event: None)
        texts[rotation] = ProbeData.of_corpus(one.corpus, told)
    probes, too_little = measure_memory(rows, texts, seed, probe, on_progress)
    parts = [p for p in (dataset.corpus.train, dataset.corpus.valid, dataset.corpus.test) if p]
    tokenized = dataset.tokenized
    streams = [s for s in (tokenized.train, tokenized.valid, tokenized.test) if s is not None]
    corpus = {
        "sha256": dataset.spec.sha256,
        "chars": sum(p.chars for p in parts),
        "tokens": sum(map(len, streams)) - sum(len(p.documents) for p in parts),
        "tokenizer": dataset.tokenizer,
        "times_used": _times_used(dataset),
    }
    shown = probes if probe else None
    ceiling = describe_ceiling(texts[dataset.spec.rotation], sum(r.seconds for r in results), seed)
    mix = None
    if optimum is None and not texts[dataset.spec.rotation].items:  # made to measure memory
        own = (
            next((r for r in row.results if r.rotation == dataset.spec.rotation), None)
            for row in ranking.rows
        )
        mix = mixed_row([result for result in own if result], dataset, on_progress)
    about = corpus, protocol, folder, shown, too_little, ceiling, mix
    return Comparison(ranking, rows, *about)


def _times_used(dataset: Dataset) -> float | None:
    """How often the sentences of a user's own stand in a text made of them; None for others."""
    about = find_companions(dataset.spec.texts, lambda event: None).about or {}
    used: float | None = about.get("filler", {}).get("times_used")
    return used
