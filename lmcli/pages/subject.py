"""What a page is about: a run, or the runs of a comparison, with all that was saved of them.

**In:** the folder of a run, of a comparison or of a demo.
**Out:** a `Subject`: its runs by the names of their rows, the saved values, the text's companions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.errors import RunError
from lmcli.evaluation.forced_choice import main_kind
from lmcli.evaluation.item_answers import QUESTIONS, answer_items
from lmcli.evaluation.memory_curves import MemoryTask
from lmcli.evaluation.ranking_table import ranked
from lmcli.grammars.base import find_companions
from lmcli.grammars.france.grammar import France
from lmcli.report.progress import Message, OnProgress, Stage
from lmcli.run import RECORD, WEIGHTS, Run
from lmcli.storage import read_json
from lmcli.training.comparison_folder import RESULT
from lmcli.training.demo import LEAST, TEXT, DemoText

ORDER = ("ngram", "window", "rnn", "gru", "lstm", "attention", "mingru", "minlstm", "hybrid")
"""of architectures in a page: from those that see little to those that may see all"""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """The runs of a page and what is known of them."""

    path: Path
    runs: Mapping[str, Sequence[Run]]
    """by the names of their rows; the seeds of one row together"""
    rows: Sequence[Row]
    """of the comparison, or one made of the run, in the order of a page"""
    values: Mapping[str, Any] | None
    """what comparison.json holds; None for a run"""
    items: Path | None
    about: Mapping[str, Any]
    """what was written beside the text when it was made"""

    @classmethod
    def open(cls, path: Path, on_progress: OnProgress) -> Subject:
        """A folder of `lmcli train`, `compare` or `demo`; anything else is a RunError."""
        if (path / RESULT).is_file():
            return cls._comparison(path, on_progress)
        if path.exists() and not (path / RECORD).is_file():
            problem = f"'{path}' is neither a run nor a comparison that has ended"
            raise RunError(problem, "give the folder of lmcli train, compare or demo")
        run = Run.open(path)
        run.weights_file()
        items, about = _companions(run, on_progress)
        row = _row_of(run, items, on_progress)
        return cls(path, {row["name"]: [run]}, [row], None, items, about)

    @classmethod
    def _comparison(cls, path: Path, on_progress: OnProgress) -> Subject:
        values = read_json(path / RESULT)
        rows = sorted(ranked(values["rows"]), key=_place)
        runs: dict[str, list[Run]] = {}
        for row in rows:
            for seed in row["seeds"]:
                recorded = Path(seed["run"])
                places = [path / recorded.name, recorded]  # the folder may have been moved
                if recorded.name not in values.get("members", ()):
                    places.reverse()
                place = next((p for p in places if (p / RECORD).is_file()), None)
                run = None if place is None else _compared(Run.open(place), seed)
                if run is None:
                    what = "is gone" if place is None else "has changed since it was compared"
                    said = f"'{seed['run']}' {what}: the page shows only what was saved of it"
                    on_progress(Message(said, "warning"))
                else:
                    runs.setdefault(row["name"], []).append(run)
        if not runs:
            raise RunError(f"the runs of '{path}' are gone", "lmcli compare makes them again")
        items, about = _companions(next(iter(runs.values()))[0], on_progress)
        return cls(path, runs, rows, values, items, about)

    @property
    def first(self) -> Run:
        """Any of the runs, for what all have in common."""
        return next(iter(self.firsts.values()))

    @property
    def firsts(self) -> dict[str, Run]:
        """The first seed of each row."""
        return {name: seeds[0] for name, seeds in self.runs.items()}

    @property
    def text_name(self) -> str:
        """The name of the text in a sentence: of the user's own, where one was made of it."""
        texts = self.about.get("filler", {}).get("texts") or self.first.record.corpus["texts"]
        name = Path(texts[0]).name
        if name == TEXT and self.is_france:
            name = "a text made by rule"
        return f"{name} and {len(texts) - 1} more" if len(texts) > 1 else name

    @property
    def is_france(self) -> bool:
        """Whether the text asks which language somebody speaks."""
        return bool(self.about.get("recipe", {}).get("grammar") == France.name)

    @property
    def recalled(self) -> list[Row]:
        """The rows of models that were asked items with known answers."""
        return [row for row in self.rows if row.get("recall")]

    def task(self) -> MemoryTask:
        """What the items ask."""
        minutes = self.first.record.budget.get("minutes") or 0.0
        if self.is_france:
            text = Path(self.first.record.corpus["texts"][0])
            needed = ((self.values or {}).get("protocol") or {}).get("minutes_needed") or 0.0
            return DemoText(text, self.text_name, self.about).task(minutes, LEAST * needed)
        kind = main_kind([one["kind"] for one in self.recalled[0]["recall"]])
        unit = QUESTIONS.get(kind, ("", "words"))[1]
        return MemoryTask(self.text_name, minutes, "answer", unit)


def _compared(run: Run, seed: Mapping[str, Any]) -> Run | None:
    """The run if its weights are those that were compared."""
    known = seed.get("weights")
    is_same = known is None or ((run.path / WEIGHTS).is_file() and run.weights_checksum() == known)
    return run if is_same else None


def _place(row: Row) -> tuple[float, str]:
    arch = row["arch"]
    return ORDER.index(arch) if arch in ORDER else math.inf, row["name"]


def _companions(run: Run, on_progress: OnProgress) -> tuple[Path | None, Mapping[str, Any]]:
    found = find_companions(run.record.corpus["texts"], on_progress)
    return found.items, found.about or {}


def _row_of(run: Run, items: Path | None, on_progress: OnProgress) -> dict[str, Any]:
    """A run as a row, its answers to the items beside its text included."""
    trained = run.result("train") or {}
    arch = run.record.arch
    row: dict[str, Any] = {"name": arch, "arch": arch, "parameters": trained.get("parameters", 0)}
    row |= {"seconds": trained.get("seconds", 0.0), "seeds": [{"run": str(run.path)}]}
    if items is None:
        return row
    on_progress(Stage("answering the items", 0, 0, ""))
    answers = answer_items([run], items, None, on_progress)
    recall = [
        {**one, "value": one["accuracy"], "least": one["accuracy"], "seeds": 1}
        for one in answers.rows
    ]
    return row | {"recall": recall, "learning": answers.learning[0]}
