"""What the items beside a text showed: right answers by gap as a table, a chart, three sentences.

**In:** the rows of a comparison (`recall`, and `learning` where it is known), a `MemoryTask`.
**Out:** a `Table` with 95 % intervals, a `Figure`, sentences in plain English.

A model *still knows* the answer at a gap if its skill, (right - chance) / (1 - chance), is at least
one half there and at every shorter gap. It has *lost* it where the interval reaches down to chance.
The sentences say only what the rows say: no outcome is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcli.evaluation.forced_choice import CONTROL
from lmcli.evaluation.probes.recall.grammar_items import main_kind
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
    learning: Mapping[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Curve:
        """From a row that has been asked."""
        name, arch, recall = row["name"], row["arch"], row["recall"]
        model, kind = MODELS.load(arch), main_kind(recall)
        kinds = {one["kind"]: one for one in recall}
        return cls(
            name,
            LABELS.get(arch, model.__name__) if name == arch else name,
            issubclass(model, FixedContext),
            row["parameters"],
            row["seconds"],
            sorted((one for one in recall if one["kind"] == kind), key=lambda one: one["gap"]),
            kinds.get(CONTROL),
            kinds.get(SHUFFLED),
            row.get("learning") or {},
        )

    @property
    def nearest(self) -> Answers:
        """The easiest question: right after the cue."""
        near = [self.by_gap[0], *([self.control] if self.control else [])]
        return max(near, key=skill)

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


def skill(one: Answers) -> float:
    """0 at chance, 1 where every answer is right.

    >>> skill({"value": 0.5, "chance": 0.0}), skill({"value": 0.0625, "chance": 0.0625})
    (0.5, 0.0)
    """
    return float((one["value"] - one["chance"]) / (1 - one["chance"]))


def curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Those of the rows that were asked, in their order."""
    return [Curve.of(row) for row in rows if row.get("recall")]


# ------------------------------------------------------------------ table and chart


def recall_by_gap(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> list[Table]:
    """Gaps as rows, models as columns; several tables where there are many models."""
    found = curves(rows)
    groups = [found[i : i + MODELS_A_TABLE] for i in range(0, len(found), MODELS_A_TABLE)]
    counts = sorted({one["count"] for curve in found for one in curve.by_gap})
    notes = [
        f"right answers in % with 95 % intervals; {'-'.join(map(str, counts))} texts a gap",
        "control: right after the cue, no sentence between" if task.planted else "",
        "shuffled: cue and answer unrelated, nobody can know" if found[0].shuffled else "",
        f"order-free: a reader who takes the {task.asked} named most often"
        if task.order_free
        else "",
    ]
    if (seeds := found[0].by_gap[0]["seeds"]) > 1:
        notes.append(f"medians of {seeds} seeds")
    note = "\n".join(filter(None, notes))
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
    title = f"does it still know the {task.asked}? by {task.unit} between cue and blank"
    return Table(title, columns, rows)


def _cells(answers: Sequence[Answers]) -> dict[str, Any]:
    cells: dict[str, Any] = {"chance": 100 * answers[0]["chance"]}
    for number, one in enumerate(answers):
        half = max(one["high"] - one["value"], one["value"] - one["low"])
        cells[f"m{number}"] = {"right": 100 * one["value"], "half": 100 * half}
    return cells


def recall_chart(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> Figure:
    """Bars by gap, one a model."""
    found = curves(rows)
    return Figure(
        f"right answers by {task.unit} between cue and blank",
        [f"{one['gap']:,}" for one in found[0].by_gap],
        [Series(c.name, [Point(o["value"], o["low"], o["high"]) for o in c.by_gap]) for c in found],
        WHOLE_PERCENT,
        reference=found[0].by_gap[0]["chance"],
        line="chance",
    )


# ------------------------------------------------------------------ three sentences


def sentences(rows: Sequence[Mapping[str, Any]], task: MemoryTask) -> list[str]:
    """What was seen; what it cost, or who has not learnt the task yet; what not to conclude."""
    found = curves(rows)
    learnt = [curve for curve in found if curve.has_learnt and curve.known]
    best = max(learnt, key=lambda c: (len(c.known), c.known[-1]["value"]), default=None)
    return [
        _seen(found, best, task) if best else _nothing_seen(found, task),
        _not_learnt([c for c in found if not (c.has_learnt or c.sees_little)], task)
        or _cost(found, task),
        _not_to_conclude(found, best, task),
    ]


def _seen(found: Sequence[Curve], best: Curve, task: MemoryTask) -> str:
    """Who still knows the answer at the longest gap; where each of the others has lost it."""
    with_best = [c for c in found if c.has_learnt and len(c.known) == len(best.known)]
    others = [c for c in found if c.has_learnt and not c.sees_little and c not in with_best]
    gap = best.known[-1]["gap"]
    right = _listed([_of_100(c.known[-1]) for c in with_best])
    all_of_them = "all " if len(with_best) > 2 and not others else ""
    said = f"On {task.text} {_names(with_best)} {all_of_them}still knew the {task.asked} after "
    said += f"{gap:,} {task.unit} in {right} of 100 texts"
    if len(best.known) == len(best.by_gap):
        said += ", the longest gap asked"
    if others:
        said += "; " + ", ".join(_lost(c, task) for c in others)
    elif len(with_best) > 1:
        said += ": none of them had forgotten it"
    return said + "."


def _lost(curve: Curve, task: MemoryTask) -> str:
    one = curve.next_gap
    after = f"after {one['gap']:,} {task.unit}"
    if one["low"] <= one["chance"]:
        return f"{_names([curve])} had lost it {after}"
    return f"{_names([curve])} knew it {after} in only {_of_100(one)}"


def _nothing_seen(found: Sequence[Curve], task: MemoryTask) -> str:
    """No model knows the answer at any gap."""
    best = max(found, key=lambda curve: skill(curve.nearest))
    near = best.nearest
    right = f"{_names([best])} was right in {_of_100(near)} of 100 texts"
    if any(curve.has_learnt for curve in found):
        gap = found[0].by_gap[0]["gap"]
        return (
            f"On {task.text} no model still knew the {task.asked} after {gap:,} {task.unit}, "
            f"though right after the cue {right}."
        )
    return (
        f"On {task.text} no model had learnt it in {_minutes(task.minutes)}: even right after the "
        f"cue the best of them, {right} (guessing: {_percent(near['chance'])})."
    )


def _not_learnt(some: Sequence[Curve], task: MemoryTask) -> str | None:
    """Models whose answers do not show forgetting, and what to try."""
    if not some:
        return None
    falling = [curve.learning.get("still_falling") for curve in some]
    right = _listed([_of_100(curve.nearest) for curve in some])
    said = f"{_names(some)} had not learnt the task in {_minutes(task.minutes)} (right after the "
    said += f"cue: {right} of 100), which is not forgetting"
    said = said[:1].upper() + said[1:]
    if False in falling and True not in falling:
        return f"{said}; the loss had stopped falling, so that more minutes alone may not help."
    still = ", and the loss was still falling" if all(falling) else ""
    return f"{said}{still}: try --minutes {math.ceil(2 * task.minutes)}."


def _cost(found: Sequence[Curve], task: MemoryTask) -> str:
    """Seconds and parameters of what was trained; what cannot see far back."""
    trained = [c for c in found if c.seconds and not c.sees_little] or list(found)
    seconds = _range([round(c.seconds) for c in trained])
    parameters = _range([c.parameters for c in trained])
    said = f"It took {seconds} seconds of training and {parameters} parameters"
    said += " each" if len(trained) > 1 else ""
    blind = [c for c in found if c.sees_little and len(c.known) < len(c.by_gap)]
    if blind and len(trained) < len(found):
        gap = max(c.next_gap["gap"] for c in blind)
        said += f"; {_names(blind)} see" + "s" * (len(blind) == 1)
        said += f" only the last words and cannot know it after {gap:,} {task.unit}"
    return said + "."


def _not_to_conclude(found: Sequence[Curve], best: Curve | None, task: MemoryTask) -> str:
    """One seed, few texts, planted sentences, a reader who needs no order."""
    one = best.known[-1] if best else found[0].by_gap[0]
    made = "planted into your text" if task.planted else "made by rule"
    seeds = one["seeds"]
    said = "this is one seed" if seeds == 1 else f"these are medians of {seeds} seeds"
    if best and seeds > 1:
        said += f" (the worst of {_names([best])}: {_percent(one['least'])} of 100)"
    said = f"Do not conclude too much: {said} and {one['count']} texts a gap, with sentences {made}"
    free = task.order_free.get(one["gap"])
    if free is not None and free >= one["value"] - (one["value"] - one["chance"]) / 4:
        said += (
            f", and a reader who takes the {task.asked} named most often is right in "
            f"{_percent(free)} of 100, so that it shows a word kept, not a text understood"
        )
    return said + ("; --seeds 3 shows how much is luck." if seeds == 1 else ".")


def _names(some: Sequence[Curve]) -> str:
    return _listed([f"the {curve.label}" for curve in some])


def _listed(parts: Sequence[str]) -> str:
    """
    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _of_100(one: Answers) -> str:
    return _percent(one["value"])


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute" + "s" * (minutes != 1)
