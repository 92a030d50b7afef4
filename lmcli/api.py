"""lmcli from Python: each command as a function.

**In:** paths or addresses of texts, runs or their paths, options with the commands' names.
**Out:** runs, streams of text, results with ``to_json()``. Nothing is printed; progress goes to
`on_progress` (see `lmcli.report.progress`). Errors are `LmcliError`s with a problem and a hint.

Importing this file loads neither torch nor numpy; each function imports the stage that it calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import Run, free_name

Texts = str | Path | Sequence[str | Path]
"""a path, an address, or a list of them"""
RunLike = Run | str | Path
"""a run or the path of one"""
Settings = Mapping[str, Any] | None
"""what ``--set`` takes, by name"""


def load(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return path if isinstance(path, Run) else Run.open(Path(path))


def train(
    texts: Texts,
    *,
    arch: str = "lstm",
    tokenizer: str = "char",
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    settings: Settings = None,
    seed: int = 0,
    output: str | Path | None = None,
    valid: Texts = (),
    test: Texts = (),
    split: str = "interleaved",
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    slim: bool = False,
    verbose: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Run:
    """Train one model on texts, for 3 minutes if no budget is given.

    The result is ``run.result("train")``. If `on_progress` stops the training there is none, and
    `resume` continues it. `output` is runs/ARCH if not given, or the first such name that is free.
    """
    options = _plain(locals(), "texts", "valid", "test")
    from lmcli.training.launch import train

    options["output"] = Path(output) if output else free_name(Path("runs"), arch)
    return train(options | {"resume": False}, on_progress)


def resume(
    run: RunLike, texts: Texts = (), *, on_progress: OnProgress = warnings_only, **options: Any
) -> Run:
    """Continue a training where it stopped, with the texts at their places, or at new ones.

    Of the options of `train`, `device`, `workers`, `slim` and `verbose` may be given, and those
    that the run was made with: a value that differs is a RunError.
    """
    from lmcli.training.launch import train

    path = run.path if isinstance(run, Run) else Path(run)
    given = _plain({"texts": texts, **options}, "texts", "valid", "test")
    return train(given | {"output": path, "resume": True}, on_progress)


def _plain(values: Mapping[str, Any], *texts: str) -> dict[str, Any]:
    """Arguments as options: lists of texts are lists of str, without the callback."""
    options = {name: value for name, value in values.items() if name != "on_progress"}
    for name in texts:
        if name in options:
            given = options[name] or ()
            listed = [given] if isinstance(given, str | Path) else given
            options[name] = [str(text) for text in listed]
    return options
