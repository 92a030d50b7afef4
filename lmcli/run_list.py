"""The runs below a folder, finished or not, with their scores: what ``lmcli list --runs`` shows.

**In:** a folder.
**Out:** `RunList`: a row a run. A run that is damaged has a row that says so; nothing is loaded but
its JSON files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError, RunError
from lmcli.report.result import PARAMETERS, Column, Metric, Reportable, Result, Table, text
from lmcli.run import RECORD, RESULTS, TRAINING_COPY
from lmcli.run_record import check_record, check_trained
from lmcli.storage import read_json

DEEPEST = 4
"""folders below each other in which runs are looked for"""
FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"
NOTE = "bits/char: of the held-out test part, or of the validation part where there is no other"


@dataclass(frozen=True)
class RunList(Reportable):
    """Runs by path."""

    folder: str
    rows: Sequence[Mapping[str, Any]]

    def result(self) -> Result:
        """A table."""
        columns = [
            Column("run", text("run")),
            Column("arch", text("model")),
            Column("tokenizer", text("tokens")),
            Column("text", text("text")),
            Column("parameters", PARAMETERS),
            Column("bits_per_char", Metric("bits/char", 4)),
            Column("state", text("state")),
        ]
        values = {"folder": self.folder, "runs": self.rows}
        table = Table(f"runs in {self.folder}", columns, self.rows, NOTE)
        return Result("list", values, [table])


def list_runs(folder: Path) -> RunList:
    """All runs at and below a folder; a folder without any is a RunError."""
    if not folder.is_dir():
        raise RunError(f"no folder '{folder}'", "lmcli list --runs FOLDER names another")
    rows = [describe(path) for path in run_folders(folder)]
    if not rows:
        hint = "lmcli train my.txt makes one; lmcli list --runs FOLDER looks elsewhere"
        raise RunError(f"no runs in '{folder}'", hint)
    return RunList(str(folder), rows)


def run_folders(folder: Path, deepest: int = DEEPEST) -> Iterator[Path]:
    """Folders with a run.json, by name; hidden ones are left out."""
    if (folder / RECORD).is_file():
        yield folder
        return
    if deepest:
        try:
            inside = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
        except OSError:  # not ours to read
            return
        for name in inside:
            yield from run_folders(folder / name, deepest - 1)


def describe(path: Path) -> dict[str, Any]:
    """The row of one run."""
    row: dict[str, Any] = {"run": str(path), "state": DAMAGED}
    try:
        check_record(record := read_json(path / RECORD))
        row |= {"arch": record["arch"], "tokenizer": record["tokenizer"]}
        row |= {"texts": record["corpus"]["texts"], "sha256": record["corpus"]["sha256"]}
        row["text"] = ", ".join(Path(name).name or name for name in row["texts"])
        file = path / RESULTS / "train.json"
        if not file.is_file():
            return row | {"state": UNFINISHED, "step": _last_step(path)}
        check_trained(result := read_json(file))
        score = result.get("test") or result["valid"]
        row |= {"bits_per_char": score["bits_per_char"], "part": "valid"}
        row |= {"standard_error": score.get("standard_error")}
        row |= {"part": "test"} if result.get("test") else {}
        return row | {"parameters": result["parameters"], "state": FINISHED}
    except LmcliError as error:
        return row | {"problem": error.problem}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return row | {"problem": f"{type(error).__name__}: {error}"}


def _last_step(path: Path) -> int | None:
    """The step of the last checkpoint; None where there is none."""
    try:
        step: int = read_json(path / TRAINING_COPY)["step"]
    except (LmcliError, KeyError):
        return None
    return step
