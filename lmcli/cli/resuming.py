"""``--resume``: the run that is gone on with, and whether it is asked for what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from lmcli.run import Run
    from lmcli.training.job import Job

BUDGETS = ("minutes", "steps", "epochs")
READING = ("split", "valid", "test", "documents", "newlines", "encoding", "errors")
FIXED = (*BUDGETS, *READING, "arch", "tokenizer", "seed")
"""options that a run has made its own: --resume may repeat them, not change them"""


def asked(ctx: typer.Context) -> dict[str, Any]:
    """Those of the fixed options, and the device, that were given by flag, environment, config."""
    sources = {name: ctx.get_parameter_source(name) for name in (*FIXED, "device")}
    given = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    return {name: ctx.params[name] for name in given if ctx.params[name] is not None}


def resumed(
    path: Path, texts: list[str], asked: Mapping[str, Any], settings: list[str], shown: bool
) -> tuple[Run, Job]:
    """An existing run and its job; an option that differs from the recorded one is an error.

    But for the device: what was trained on one goes on on another, if not bit for bit.
    """
    from lmcli.cli.console import warn
    from lmcli.cli.progress import preparation_bar
    from lmcli.run import Run
    from lmcli.settings import split_pairs
    from lmcli.system import pick_device
    from lmcli.training.job import check_pairs, reopen

    run = Run.open(path)
    pairs = split_pairs(settings)
    check_pairs(pairs, [run.record.arch], run.record.tokenizer)
    _check_unchanged(run, asked, pairs)
    with preparation_bar(shown) as on_progress:
        job = reopen(run, tuple(texts), on_progress)
    job = replace(job, device=pick_device(asked.get("device", run.record.device)))
    if job.device != run.record.device:
        warn(f"'{path}' was trained on {run.record.device}: on {job.device} it ends a little apart")
    if not job.counts:
        run.load_training()  # a checkpoint that is missing or damaged shows before anything else
    return run, job


def _check_unchanged(run: Run, asked: Mapping[str, Any], pairs: Mapping[str, str]) -> None:
    """A RunError that names the first difference between what is asked for and what was."""
    from lmcli.errors import RunError

    record = run.record
    recorded = {**record.training, **record.settings, **record.tokenizer_settings}
    recorded |= {"arch": record.arch, "tokenizer": record.tokenizer, "seed": record.seed}
    recorded |= record.budget | record.corpus["options"]
    recorded |= {name: record.corpus[name] for name in ("split", "valid", "test")}
    budget = next(f"--{n} {record.budget[n]:g}" for n in BUDGETS if record.budget[n] is not None)
    flags = {name: f"--{name} {value}" for name, value in asked.items()}
    flags |= {name: f"--set {name}={value}" for name, value in pairs.items()}
    fixed = {name: value for name, value in asked.items() if name != "device"}
    for name, value in {**fixed, **pairs}.items():
        if not _same(value, recorded.get(name)):
            before = f"budget {budget}" if name in BUDGETS else f"{name} {recorded.get(name)}"
            raise RunError(
                f"{flags[name]} differs from the run's {before}",
                "leave it out to go on, or train a new run",
            )


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a).lower() == str(b).lower()
