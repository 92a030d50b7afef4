"""``lmcli compare --plan``: the trainings of a comparison as plain commands, one a line.

Every setting that a recipe has chosen is written out, so that a command makes the same run
wherever it is run: by a shell, by xargs, as a task of a Slurm array, as a Kubernetes job.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.cli.console import emit_json, emit_lines, note
from lmcli.errors import UsageError
from lmcli.report.result import SCHEMA

if TYPE_CHECKING:
    from lmcli.data.dataset import Dataset
    from lmcli.training.sweep import Trial


def show_plan(
    members: Sequence[Trial], folder: Path, device: str, force: bool, as_json: bool, quiet: bool
) -> None:
    """The commands on stdout; how their runs become a table, on stderr."""
    if not members:
        raise UsageError("nothing to plan: all members are runs", "name some with --arch")
    dataset = members[0].job.dataset
    if "-" in dataset.spec.texts:
        raise UsageError("the commands of a plan cannot share standard input", "name a file")
    more = ["--device", device] if device != "auto" else []
    more += ["--force"] if force else []
    lines = [shlex.join([*train_words(member), *more]) for member in members]
    if as_json:
        emit_json({"schema": SCHEMA, "command": "compare", "plan": lines})
        return
    emit_lines(lines)
    if not quiet:
        again = ["lmcli", "compare", *text_words(dataset), "--run", str(folder)]
        note(f"next, when all have run: {shlex.join(again)}")


def train_words(member: Trial) -> list[str]:
    """``lmcli train`` for one member."""
    job = member.job
    dataset, budget = job.dataset, vars(job.budget)
    words = ["lmcli", "train", *text_words(dataset), "-o", str(member.path), "--arch", job.arch]
    words += [w for name, v in budget.items() if v is not None for w in (f"--{name}", str(v))]
    words += ["--seed", str(job.seed)]
    pairs = _changed(job.settings) | ({} if job.counts else _changed(job.training))
    return words + [w for name, v in pairs.items() for w in ("--set", f"{name}={v}")]


def text_words(dataset: Dataset) -> list[str]:
    """The texts, how they are read and split, and the tokenizer with its settings."""
    choice = dataset.spec
    options = vars(choice.options)
    plain = {f.name: f.default for f in dataclasses.fields(choice.options)}
    words = [*choice.texts, "--tokenizer", dataset.tokenizer, "--documents", options["documents"]]
    others = [n for n, v in options.items() if n != "documents" and v != plain[n]]
    words += [w for name in others for w in (f"--{name}", str(options[name]))]
    words += ["--split", choice.split] if choice.split != "interleaved" else []
    words += [w for text in choice.valid for w in ("--valid", text)]
    words += [w for text in choice.test for w in ("--test", text)]
    pairs = _tokenizer_pairs(dataset)
    return words + [w for name, v in pairs.items() for w in ("--set", f"{name}={v}")]


def _tokenizer_pairs(dataset: Dataset) -> Mapping[str, Any]:
    from lmcli.registry import TOKENIZERS

    settings = TOKENIZERS.load(dataset.tokenizer).Settings(**dataset.tokenizer_settings)
    return _changed(settings)


def _changed(settings: Any) -> dict[str, Any]:
    """What differs from the defaults: what the user has set, and what a recipe has chosen."""
    usual = {f.name: f.default for f in dataclasses.fields(settings)}
    return {name: value for name, value in vars(settings).items() if value != usual[name]}
