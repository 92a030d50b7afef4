"""The figure that this project exists for: right answers by gap, a line a model; one example.

**In:** a `Subject` whose text has items with known answers.
**Out:** a `Section`: what was seen, the figure with chance and a reader without order, one text
with the three likeliest words of each model, the table with intervals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcli.evaluation.cloze import BLANK, shortened
from lmcli.evaluation.forced_choice import main_kind
from lmcli.evaluation.likeliest_words import top_words
from lmcli.evaluation.memory_curves import MemoryTask, recall_by_gap, recall_chart
from lmcli.evaluation.memory_sentences import memory_sentences
from lmcli.pages.subject import Subject
from lmcli.report.result import (
    PROBABILITY,
    Block,
    Column,
    Figure,
    Passage,
    Point,
    Section,
    Series,
    Table,
    text,
)

WORDS = 3
"""likeliest words of each model in the example"""
EXAMPLE_GAP = 100
"""the example has the longest gap up to this one"""
LONG = 240
"""characters of a text from which on its middle is left out"""
FREE = "order-free reader"


def recall_section(subject: Subject) -> Section | None:
    """None where the text has no items."""
    if not subject.recalled:
        return None
    task = subject.task()
    blocks: list[Block] = []
    if subject.is_france:
        blocks += map(Passage, memory_sentences(subject.recalled, task))
    blocks.append(recall_figure(subject, task))
    if subject.items is not None and (example := Example.of(subject.items)):
        blocks += [Passage(f"One of the texts: {example.shown}"), example_table(subject, example)]
    blocks += recall_by_gap(subject.recalled, task, len(subject.recalled))
    return Section(f"Who still knows the {task.asked}?", blocks)


def recall_figure(subject: Subject, task: MemoryTask) -> Figure:
    """Right answers by gap with intervals, chance, and the reader who needs no order."""
    figure = recall_chart(subject.recalled, task)
    series = list(figure.series)
    gaps = [one["gap"] for one in _main(subject.recalled[0])]
    if task.order_free:
        series.append(Series(FREE, [Point(task.order_free.get(gap)) for gap in gaps]))
    one = _main(subject.recalled[0])[0]
    candidates = round(1 / one["chance"])
    read = (
        f"A point says how often a model chose the right word out of {candidates}, in "
        f"{one['count']} held-out texts with that many {task.unit} between the cue and the blank "
        "(upright bars: 95 % intervals). A line that stays high remembers, a line that falls to "
        "chance has forgotten."
    )
    caution = (
        "These are models of this size, after this training, on this text: another training time "
        "can change the order of the lines. "
    )
    if task.order_free:
        caution += (
            f"The {FREE}, who only counts which {task.asked} is named most often, is right "
            "without understanding a sentence, so a high line shows that a word was kept, not "
            "that a text was understood."
        )
    else:
        caution += "A model that was never right near the cue has not forgotten: it has not learnt."
    x_label = f"{task.unit} between cue and blank"
    return replace(figure, series=series, x_label=x_label, read=read, caution=caution)


def _main(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The answers of a row that stand by gap."""
    kind = main_kind([one["kind"] for one in row["recall"]])
    return sorted((o for o in row["recall"] if o["kind"] == kind), key=lambda one: one["gap"])


# ------------------------------------------------------------------ one text


@dataclass(frozen=True)
class Example:
    """One of the texts that were asked: the first of its gap, whatever the models say."""

    text: str
    """all before the blank"""
    answer: str
    gap: int
    unit: str
    shown: str
    """as a reader sees it, with the middle of a long text left out"""

    @classmethod
    def of(cls, items: Path, longest_gap: int = EXAMPLE_GAP) -> Example | None:
        """The first of the texts with the longest gap up to this one."""
        read = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
        if not read:
            return None
        kind = main_kind([item["kind"] for item in read])
        asked = [item for item in read if item["kind"] == kind]
        gaps = sorted({item["gap"] for item in asked})
        gap = max([g for g in gaps if g <= longest_gap], default=gaps[0])
        item = next(item for item in asked if item["gap"] == gap)
        shown = item["text"]
        if begin_end := item.get("filler"):
            begin, end = begin_end
            shown = f"{shown[:begin]}{shortened(shown[begin:end])}{shown[end:]}"
        elif len(shown) > LONG:
            first, last = shown[: LONG // 2], shown[-LONG // 2 :]
            shown = f"{first.rpartition(' ')[0] or first} ... {last.partition(' ')[2] or last}"
        unit = item.get("unit", "words")
        return cls(item["text"], item["answer"], gap, unit, f"{shown.rstrip()} {BLANK}")


def example_table(subject: Subject, example: Example) -> Table:
    """The likeliest words of each model in the blank."""
    rows = []
    for name, run in subject.firsts.items():
        found = top_words(run.model(), run.tokenizer, [example.text], WORDS)
        row: dict[str, Any] = {"name": name}
        for place, (word, probability) in enumerate(found):
            right = " ✓" if word == example.answer else ""
            row[f"word{place}"] = f"{word} {PROBABILITY.show(probability)}{right}"
        rows.append(row)
    columns = [Column("name", text("model"))]
    ranks = ("likeliest word", "second", "third")
    columns += [Column(f"word{i}", text(rank)) for i, rank in enumerate(ranks)]
    return Table(
        f"what each model expects in the blank, {example.gap} {example.unit} after the cue",
        columns,
        rows,
        read=f"The number is the probability of the word; the right word is {example.answer} (✓).",
        caution="One text is an example: the figure above counts all of them.",
    )
