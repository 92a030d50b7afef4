"""The trainings of a comparison as plain commands, one a line.

**In:** the options of `api.compare`.
**Out:** ``lmcli train`` lines for a shell, xargs, a Slurm array, Kubernetes jobs. Every chosen
setting is written out, the number of threads as well: a line makes the same run anywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcli.data.dataset import Dataset
from lmcli.errors import UsageError
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import OnProgress
from lmcli.report.result import SCHEMA
from lmcli.training.defaults import changed
from lmcli.training.sweep import prepare
from lmcli.training.trials import Trial


@dataclass(frozen=True)
class Plan:
    """Commands, and the one that makes a table of their runs."""

    lines: Sequence[str]
    table: str

    def to_json(self) -> dict[str, Any]:
        """The object of ``lmcli compare --plan --json``."""
        return {"schema": SCHEMA, "command": "compare", "plan": list(self.lines)}


def plan(options: Mapping[str, Any], on_progress: OnProgress) -> Plan:
    """A command for each trial of the comparison that the options describe."""
    sweep = prepare(options, on_progress)
    if not sweep.trials:
        raise UsageError("nothing to plan: all members are runs", "name some with --arch")
    if "-" in sweep.dataset.spec.texts:
        raise UsageError("the commands of a plan cannot share standard input", "name a file")
    device = options["device"]
    more = ["--device", device] if device != "auto" else []
    more += ["--force"] if options["force"] else []
    lines = [shlex.join([*_train_words(trial), *more]) for trial in sweep.trials]
    if any("\n" in line for line in lines):
        raise UsageError("a plan has a line a command: a name has two lines", "rename it")
    again = ["lmcli", "compare", *_text_words(sweep.dataset), "--run", str(sweep.folder)]
    return Plan(lines, shlex.join(again))


def _train_words(trial: Trial) -> list[str]:
    """``lmcli train`` for one trial."""
    job = trial.job
    texts, budget = _text_words(job.dataset), vars(job.budget)
    words = ["lmcli", "train", *texts, "-o", str(trial.path), "--arch", job.arch]
    words += [w for name, v in budget.items() if v is not None for w in (f"--{name}", str(v))]
    rotation = job.dataset.spec.rotation
    words += ["--rotation", str(rotation)] if rotation else []
    words += ["--seed", str(job.seed), *_set_words(job.settings)]
    return words if job.is_count_based else words + _set_words(job.training)


def _text_words(dataset: Dataset) -> list[str]:
    """The texts, how they are read and split, and the tokenizer with its settings."""
    spec = dataset.spec
    options = {**changed(spec.options), "documents": spec.options.documents}
    words = [*map(_as_argument, spec.texts), "--tokenizer", dataset.tokenizer]
    words += [w for name, value in options.items() for w in (f"--{name}", str(value))]
    words += ["--split", spec.split] if spec.split != "interleaved" else []
    words += [w for text in spec.valid for w in ("--valid", text)]
    words += [w for text in spec.test for w in ("--test", text)]
    tokenizer = TOKENIZERS.load(dataset.tokenizer).Settings(**dataset.tokenizer_settings)
    return words + _set_words(tokenizer)


def _as_argument(text: str) -> str:
    """The name of a text that the command line does not take for an option."""
    return f"./{text}" if text.startswith("-") else text


def _set_words(settings: Any) -> list[str]:
    """``--set`` for what differs from the defaults."""
    return [w for n, value in changed(settings).items() for w in ("--set", f"{n}={value}")]
