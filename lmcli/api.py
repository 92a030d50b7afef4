"""lmcli from Python: each command as a function.

**In:** paths or addresses of texts, runs or their paths, options with the commands' names.
**Out:** runs, streams of text, results with ``to_json()``. Nothing is printed; progress goes to
`on_progress` (see `lmcli.report.progress`). Errors are `LmcliError`s with a problem and a hint.

Importing this file loads neither torch nor numpy; each function imports the stage that it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmcli.run import Run

Texts = str | Path | Sequence[str | Path]
"""a path, an address, or a list of them"""
RunLike = Run | str | Path
"""a run or the path of one"""


def load(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return path if isinstance(path, Run) else Run.open(Path(path))
