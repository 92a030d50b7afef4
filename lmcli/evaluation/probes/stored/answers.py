"""The answers of a grammar's items: are they in the state, and are they given?

**In:** a run, held-out items, training documents.
**Out:** a row for each gap: how often the answer can be read out of the state right before it, the
same of a net that was not trained and of shuffled answers, and how often the run itself gives it.

The read-out is fitted in training documents, whose answer is the last candidate in each, and tried
on items: other documents, never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.evaluation.convergence import training_items
from lmcli.evaluation.forced_choice import (
    STATE_MEMORY,
    encode_words,
    first_unknown,
    group_items,
    item_scores,
    main_kind,
)
from lmcli.evaluation.probes.base import Row, Rows, leading_run
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.stored.ridge import Flags, Ridge, States
from lmcli.evaluation.probes.stored.states import vectors
from lmcli.evaluation.state_batches import Ids, advance, row_bytes
from lmcli.evaluation.statistics import wilson
from lmcli.grammars.base import Item, read_items
from lmcli.models.base import LanguageModel
from lmcli.tokenizers.base import Tokenizer

DOCUMENTS = 1500
"""training documents that the read-out is fitted in, at the most"""
FEWEST = 100
"""of them; with fewer nothing is measured"""
SHARE = 5
"""of as many documents one chooses the penalty"""


@dataclass(frozen=True)
class AnswerTask:
    """Items by gap, and training documents that are items as well."""

    kind: str
    groups: dict[int, list[Item]]
    known: list[Item]
    answers: tuple[str, ...]

    @classmethod
    def of(cls, data: ProbeData, most: int) -> AnswerTask | None:
        """None where training documents have no such answers."""
        groups = group_items(read_items(data.items), most) if data.items else {}
        kind = main_kind([kind for kind, _ in groups]) if groups else ""
        mine = {gap: items for (k, gap), items in groups.items() if k == kind}
        answers = sorted({word for items in mine.values() for i in items for word in i.candidates})
        known = training_items(data.train, answers, DOCUMENTS) if answers else []
        return cls(kind, mine, known, tuple(answers)) if len(known) >= FEWEST else None

    def unknown_to(self, tokenizer: Tokenizer) -> bool:
        """Whether a tokenizer lacks one of the answers."""
        return first_unknown(tokenizer, self.answers) is not None


def measure_answers(subject: ProbedModel, task: AnswerTask, seed: int) -> list[dict[str, Any]]:
    """One row a gap."""
    labels, known = _labels(task), _read(subject.tokenizer, task.known)
    held = np.arange(len(known)) % SHARE == SHARE - 1
    nets = {"value": subject.model, "untrained": subject.untrained()}
    ridges = {name: Ridge(_states(model, known), held) for name, model in nets.items()}
    readouts = {name: ridge.fit(labels) for name, ridge in ridges.items()}
    shuffled = ridges["value"].fit(np.random.default_rng(seed).permutation(labels))
    rows = []
    for gap, items in sorted(task.groups.items()):
        read = _read(subject.tokenizer, items)
        chance = float(np.mean([1 / len(item.candidates) for item in items]))
        row = subject.row(gap=gap, kind=task.kind, count=len(items), chance=chance)
        for name, model in nets.items():
            states = _states(model, read)
            row |= _share(name, _right(readouts[name].scores(states), task, items))
            if name == "value":
                row |= _share("shuffled", _right(shuffled.scores(states), task, items))
        rows.append(row | _share("answered", _given(subject, items)))
    return rows


def _labels(task: AnswerTask) -> States:
    """1 at the answer of each training document. Shapes: -> (N, answers)."""
    table = np.zeros((len(task.known), len(task.answers)), np.float32)
    table[np.arange(len(table)), [task.answers.index(item.answer) for item in task.known]] = 1
    return table


def _read(tokenizer: Tokenizer, items: Sequence[Item]) -> list[Ids]:
    """The ids before each answer, after a start id."""
    rows = list[Ids]()
    for item in items:
        edge, _ = encode_words(tokenizer, item.text, item.candidates)
        encoded = tokenizer.encode_with_ends(item.text + item.candidates[0])
        ids = encoded.ids[: np.searchsorted(encoded.ends, edge, "right")]
        rows.append(np.append(tokenizer.start, ids).astype(np.int64))
    return rows


def _states(model: LanguageModel, rows: Sequence[Ids]) -> States:
    """The state after each row. Shapes: -> (N, D)."""
    batch = max(8, STATE_MEMORY // (8 * row_bytes(model)))
    some = [rows[begin : begin + batch] for begin in range(0, len(rows), batch)]
    read = [vectors(advance(model, part, model.initial_state(len(part)))) for part in some]
    return np.concatenate(read)


def _right(scores: Any, task: AnswerTask, items: Sequence[Item]) -> Flags:
    """Whether the answer scores highest among the candidates of its item; a tie is not right."""
    right = np.zeros(len(items), bool)
    for n, (row, item) in enumerate(zip(scores, items, strict=True)):
        own = row[task.answers.index(item.answer)]
        others = [row[task.answers.index(w)] for w in item.candidates if w != item.answer]
        right[n] = own > max(others)
    return right


def _given(subject: ProbedModel, items: Sequence[Item]) -> Flags:
    """Whether the run itself holds the answer for likeliest among the candidates."""
    scores = item_scores(subject.model, subject.tokenizer, items)
    answers = [item.candidates.index(item.answer) for item in items]
    pairs = zip(scores, answers, strict=True)
    return np.array([bool(row[a] > np.delete(row, a).max()) for row, a in pairs])


def _share(name: str, right: Flags) -> dict[str, float]:
    """Of right ones, with Wilson's interval."""
    low, high = wilson(int(right.sum()), len(right))
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return {name: float(right.mean()), ends[0]: low, ends[1]: high}


# ------------------------------------------------------------------ stored, and used


def above_chance(low: str) -> Callable[[Row], bool]:
    """Whether the lower limit of that name is above chance in a row."""
    return lambda row: bool(row[low] > row["chance"])


def summarise_answers(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    """Up to which gap the answer is stored, and up to which it is given."""
    summary = subject.row(kind=rows[0]["kind"])
    for name, low in (("stored", "low"), ("answered", "answered_low"), ("before", "untrained_low")):
        shown, at_least = leading_run(rows, above_chance(low))
        gap = shown[-1]["gap"] if shown else None
        summary[name] = {"tokens": gap, "at_least": bool(shown) and at_least}
    return summary | {"figure": gap_words(summary["stored"])}


def gap_words(reach: Mapping[str, Any]) -> str:
    """A largest gap in words.

    >>> gap_words({"tokens": 100, "at_least": True}), gap_words({"tokens": None})
    ('at least gap 100', 'none shown')
    """
    if reach["tokens"] is None:
        return "none shown"
    return f"{'at least ' if reach['at_least'] else ''}gap {reach['tokens']:,}"


def answer_verdict(row: Row) -> str:
    """Stored and given, stored and not given, or not found in the state."""
    stored, given = (row[name]["tokens"] for name in ("stored", "answered"))
    model = row["model"]
    if stored is None:
        return f"{model}: the answer is not found in the state, even at the smallest gap"
    said = f"{model}: the answer is in the state up to {gap_words(row['stored'])}"
    if given is None:
        return f"{said}, and is not given at the smallest gap: stored, not used"
    if given < stored:
        return f"{said}, and is given up to {gap_words(row['answered'])}: beyond, not used"
    end = "" if row["stored"]["at_least"] else ", further back it is forgotten"
    return f"{said}, and is given up to {gap_words(row['answered'])}{end}"
