"""The trainings of a comparison as plain commands, one a line.

**In:** the options of `api.compare`.
**Out:** ``lmcli train`` lines for a shell, xargs, a Slurm array, Kubernetes jobs. Every chosen
setting is written out, the number of threads as well: a line makes the same run anywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lmcli.data.dataset import Dataset
from lmcli.errors import UsageError
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import OnProgress
from lmcli.report.result import SCHEMA
from lmcli.training.sweep import Trial, prepare


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
    again = ["lmcli", "compare", *_text_words(sweep.dataset), "--run", str(sweep.folder)]
    return Plan(lines, shlex.join(again))


def _train_words(trial: Trial) -> list[str]:
    """``lmcli train`` for one trial."""
    job = trial.job
    texts, budget = _text_words(job.dataset), vars(job.budget)
    words = ["lmcli", "train", *texts, "-o", str(trial.path), "--arch", job.arch]
    words += [w for name, v in budget.items() if v is not None for w in (f"--{name}", str(v))]
    words += ["--seed", str(job.seed)]
    return (
        words + _set_words(job.settings) + ([] if job.is_count_based else _set_words(job.training))
    )


def _text_words(dataset: Dataset) -> list[str]:
    """The texts, how they are read and split, and the tokenizer with its settings."""
    spec = dataset.spec
    options = vars(spec.options)
    defaults = {f.name: f.default for f in fields(spec.options)}
    words = [*spec.texts, "--tokenizer", dataset.tokenizer, "--documents", options["documents"]]
    others = [n for n, v in options.items() if n != "documents" and v != defaults[n]]
    words += [w for name in others for w in (f"--{name}", str(options[name]))]
    words += ["--split", spec.split] if spec.split != "interleaved" else []
    words += [w for text in spec.valid for w in ("--valid", text)]
    words += [w for text in spec.test for w in ("--test", text)]
    tokenizer = TOKENIZERS.load(dataset.tokenizer).Settings(**dataset.tokenizer_settings)
    return words + _set_words(tokenizer)


def _set_words(settings: Any) -> list[str]:
    """``--set`` for what differs from the defaults."""
    defaults = {f.name: f.default for f in fields(settings)}
    changed = {name: value for name, value in vars(settings).items() if value != defaults[name]}
    return [w for name, value in changed.items() for w in ("--set", f"{name}={value}")]
