"""The arguments of the functions of `lmcli.api`, as the stages take them.

**In:** texts and runs as they are given from Python: one or several, objects or paths.
**Out:** runs; plain options, as those of the command line are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcli.run import Run
from lmcli.settings import text_names

ARCHS = "ngram,window,rnn,gru,lstm"
"""what `compare` trains by default"""
Texts = str | Path | Sequence[str | Path]
"""a path, an address, or a list of them"""
RunLike = Run | str | Path
"""a run or the path of one"""
Settings = Mapping[str, Any] | None
"""what ``--set`` takes, by name"""


def open_run(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return path if isinstance(path, Run) else Run.open(Path(path))


def open_runs(runs: RunLike | Sequence[RunLike]) -> list[Run]:
    """One or several."""
    return [open_run(r) for r in ([runs] if isinstance(runs, Run | str | Path) else runs)]


def plain_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as options: texts as lists, without the callback."""
    options = {name: value for name, value in values.items() if name != "on_progress"}
    if "run" in options:
        runs = options.pop("run")
        runs = [runs] if isinstance(runs, Run | str | Path) else runs or ()
        options["runs"] = [str(run.path if isinstance(run, Run) else run) for run in runs]
        if runs and options["arch"] is ARCHS:  # the very default, not the same names given
            options["arch"] = ""
    return options | {n: text_names(options[n]) for n in ("texts", "valid", "test") if n in options}
