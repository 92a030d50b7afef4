"""How far back each model of a comparison remembers: right answers by gap, as table and chart.

**In:** the rows of a comparison (`recall`, and `learning` where it is known), a `MemoryTask`.
**Out:** a `Curve` for each row, a `Table` with 95 % intervals, a `Figure`.

A model *still knows* the answer at a gap if its skill, (right - chance) / (1 - chance), is at least
one half there and at every shorter gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcli.evaluation.forced_choice import CONTROL, main_kind
from lmcli.models.base import FixedContext
from lmcli.registry import MODELS
from lmcli.report.result import (
    WHOLE_PERCENT,
    Column,
    Figure,
    Metric,
    Point,
    Series,
    Table,
    text,
)

SHUFFLED = "shuffled"
HALF = 0.5
"""of the skill: what a model must have to know an answer still"""
MODELS_A_TABLE = 5
"""as many as fit into 80 columns beside gap, order-free reader and chance"""
LABELS = {"ngram": "n-gram", "window": "window model", "attention": "attention model"}
RIGHT = Metric("", 0, error="half")

Answers = Mapping[str, Any]
"""of one kind of items and one gap: gap, value, low, high, chance, count, least, seeds"""


@dataclass(frozen=True)
class MemoryTask:
    """What was asked, of which text."""

    text: str
    """its name in a sentence"""
    minutes: float
    """the budget of each training"""
    asked: str = "country"
    """what has to be remembered"""
    unit: str = "words"
    """what a gap is counted in"""
    planted: bool = False
    """whether cues and queries were put into a text of the user's own"""
    order_free: Mapping[int, float] = field(default_factory=dict)
    """by gap, how often a reader is right who takes what is named most often; {}: not known"""
    minutes_needed: float = 0.0
    """by this machine for each training; 0: not known"""


@dataclass(frozen=True)
class Curve:
    """The answers of one row of the comparison."""

    name: str
    label: str
    sees_little: bool
    """whether it cannot see beyond its last few tokens, however long it is trained"""
    parameters: int
    seconds: float
    by_gap: Sequence[Answers]
    control: Answers | None
    shuffled: Answers | None
    nearest: Answers
    """the easiest question: right after the cue"""
    learning: Mapping[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any], task: MemoryTask) -> Curve:
        """From a row that has been asked. The control of a text made by rule is no such question:
        it asks for something else."""
        name, arch, recall = row["name"], row["arch"], row["recall"]
        model, kind = MODELS.load(arch), main_kind([one["kind"] for one in recall])
        kinds = {one["kind"]: one for one in recall}
        by_gap = sorted((one for one in recall if one["kind"] == kind), key=lambda one: one["gap"])
        near = [by_gap[0], *([kinds[CONTROL]] if task.planted and CONTROL in kinds else [])]
        return cls(
            name,
            label(name, arch),
            issubclass(model, FixedContext),
            row["parameters"],
            row["seconds"],
            by_gap,
            kinds.get(CONTROL),
            kinds.get(SHUFFLED),
            max(near, key=skill),
            row.get("learning") or {},
        )

    @property
    def has_learnt(self) -> bool:
        """Whether it can answer at all: where not, its other answers show no forgetting."""
        if "verdict" in self.learning:
            return bool(self.learning["verdict"] != "not learnt")
        return skill(self.nearest) >= HALF

    @property
    def known(self) -> Sequence[Answers]:
        """The unbroken run of gaps from the shortest on at which it still knows the answer."""
        first_lost = next((i for i, one in enumerate(self.by_gap) if skill(one) < HALF), None)
        return self.by_gap[:first_lost]

    @property
    def furthest(self) -> Answers | None:
        """The longest of these."""
        return self.known[-1] if self.known else None

    @property
    def next_gap(self) -> Answers:
        """The first gap at which it does not; only where there is one."""
        return self.by_gap[len(self.known)]


def label(name: str, arch: str) -> str:
    """What a row is called in a sentence.

    >>> label("rnn:activation=relu", "rnn"), label("lstm", "lstm"), label("runs/mine", "lstm")
    ('RNN with activation=relu', 'LSTM', 'runs/mine')
    """
    base, _, settings = name.partition(":")
    if base != arch:
        return name
    known = LABELS.get(arch) or str(MODELS.load(arch).__name__)
    return f"{known} with {settings.replace(':', ' and ')}" if settings else known


def skill(one: Answers) -> float:
    """0 at chance, 1 where every answer is right.

    >>> skill({"value": 0.5, "chance": 0.0}), skill({"value": 0.0625, "chance": 0.0625})
    (0.5, 0.0)
    """
    return float((one["value"] - one["chance"]) / (1 - one["chance"]))


def curves(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> list[Curve]:
    """Those of the rows that were asked, in their order."""
    return [Curve.of(row, task) for row in rows if row.get("recall")]


# ------------------------------------------------------------------ table and chart


def recall_by_gap(
    rows: Sequence[Mapping[str, Any]], task: MemoryTask, models: int = MODELS_A_TABLE
) -> list[Table]:
    """Gaps as rows, models as columns; several tables where there are more models than that."""
    found = curves(rows, task)
    groups = [found[i : i + models] for i in range(0, len(found), models)]
    counts = [one["count"] for curve in found for one in curve.by_gap]
    counts = sorted({min(counts), max(counts)})
    control = "right after the cue" if task.planted else "another question, 3 words back"
    notes = [
        f"right answers in %, with 95 % intervals, by {task.unit} between cue and blank; "
        f"{'-'.join(map(str, counts))} texts a gap",
        f"control: {control}",
    ]
    if found[0].shuffled:
        notes.append("shuffled: cue and answer unrelated, so that right answers are chance")
    if task.order_free:
        notes.append(f"order-free: a reader who takes the {task.asked} named most often")
    if (seeds := found[0].by_gap[0]["seeds"]) > 1:
        notes.append(f"medians of {seeds} seeds; the intervals are of the texts, not of the seeds")
    note = "\n".join(notes) + "\n"
    tables = [_table(group, task) for group in groups]
    last = tables[-1]
    return [*tables[:-1], Table(last.title, last.columns, last.rows, note)]


def _table(group: Sequence[Curve], task: MemoryTask) -> Table:
    first = group[0]
    kinds = {"control": [c.control for c in group], "shuffled": [c.shuffled for c in group]}
    rows = []
    for place, one in enumerate(first.by_gap):
        free = task.order_free.get(one["gap"])
        rows.append(
            {"gap": f"{one['gap']:,}", "free": None if free is None else 100 * free}
            | _cells([c.by_gap[place] for c in group])
        )
    for number, (kind, answers) in enumerate(kinds.items()):
        asked = [one for one in answers if one]
        if len(asked) == len(group):
            rows.insert(0 if number == 0 else len(rows), {"gap": kind} | _cells(asked))
    columns = [Column("gap", text(task.unit))]
    columns += [Column(f"m{i}.right", RIGHT, curve.name) for i, curve in enumerate(group)]
    columns += [Column("free", Metric("order-free"))] if task.order_free else []
    columns.append(Column("chance", Metric("chance")))
    title = f"who still knows the {task.asked}?"
    return Table(title, columns, rows)


def _cells(answers: Sequence[Answers]) -> dict[str, Any]:
    cells: dict[str, Any] = {"chance": 100 * answers[0]["chance"]}
    for number, one in enumerate(answers):
        half = max(one["high"] - one["value"], one["value"] - one["low"])
        cells[f"m{number}"] = {"right": 100 * one["value"], "half": 100 * half}
    return cells


def recall_chart(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> Figure:
    """Bars by gap, one a model."""
    found = curves(rows, task)
    return Figure(
        f"right answers by {task.unit} between cue and blank",
        [f"{one['gap']:,}" for one in found[0].by_gap],
        [Series(c.name, [Point(o["value"], o["low"], o["high"]) for o in c.by_gap]) for c in found],
        WHOLE_PERCENT,
        reference=found[0].by_gap[0]["chance"],
        line="chance",
    )
