"""Has a run learnt the task of its items? "Forgot" is not "has not learnt yet".

**In:** a run, its model, its answers to held-out items by kind and gap, its training documents.
**Out:** a `TaskLearning`: the verdict, what it rests on, and for the user what may help.

An answer counts as *right* where its lower 95 % limit is above chance and the share of right
answers is at least half way from chance to 1. Then

    remembers     right after the cue and at the largest gap
    forgets       right after the cue, not at the largest gap
    not learnt    not right even after the cue, where there is nothing to forget

A model with a fixed context that ends before the cue, or that counts, is never *not learnt*: more
training would not change it, it forgets by construction.

What may help depends on three more things: the loss at the answer in *training* documents (a run
that knows those has learnt them by heart), why the training ended, and whether its loss was still
falling when it did.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcli.evaluation.forced_choice import CONTROL, ItemAccuracy, item_accuracy, main_kind
from lmcli.evaluation.statistics import wilson
from lmcli.grammars.base import Item
from lmcli.models.base import FixedContext, LanguageModel
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer

DOCUMENTS, LONGEST_DOCUMENT = 200, 20_000
"""training documents that are asked, at the most; longer ones, in characters, are left out"""
LEAST_FALL = 0.02
"""share by which a loss that is still falling falls in the second half of a training"""
LONGER = 4
"""times the budget that is advised"""
VERDICTS = ("not learnt", "forgets", "remembers")

Groups = Mapping[tuple[str, int], Sequence[Item]]
"""items by kind and gap"""


@dataclass(frozen=True)
class Answer:
    """How often the answer of some items is right."""

    gap: int
    right: int
    count: int
    chance: float

    @classmethod
    def of(cls, answers: Sequence[ItemAccuracy]) -> Answer:
        """Of several groups together, at the largest of their gaps."""
        count = sum(a.count for a in answers)
        chance = sum(a.chance * a.count for a in answers) / count
        return cls(max(a.gap for a in answers), sum(a.right for a in answers), count, chance)

    @property
    def is_right(self) -> bool:
        """Whether it is clearly above chance, and at least half way from there to 1."""
        above = wilson(self.right, self.count)[0] > self.chance
        return above and self.right / self.count >= (1 + self.chance) / 2

    def to_json(self) -> dict[str, float]:
        """Plain values, with the 95 % limits."""
        low, high = wilson(self.right, self.count)
        value = self.right / self.count
        return {"gap": self.gap, "value": value, "low": low, "high": high, "chance": self.chance}


@dataclass(frozen=True)
class TaskLearning:
    """What a run has learnt of the task of its items."""

    nearest: Answer
    """right after the cue: at the smallest gap, with those controls that ask the same"""
    farthest: Answer
    by_construction: bool = False
    """whether no training could show it the cue"""
    context: int | None = None
    """tokens before the present one that it sees, None without such a limit"""
    train_target_nats: float | None = None
    """mean -ln p of the answer among the candidates in training documents; None where not found"""
    amnesic_nats: float = math.inf
    """the same of a model without memory"""
    still_falling: bool = False
    stopped: str | None = None
    """why the training ended: "budget", "patience", ...; None for a model that counts"""
    spent: str = ""
    """the training in words, such as "40 s" """
    longer: str = ""
    """an option for a longer training, such as "--minutes 3" """

    @property
    def verdict(self) -> str:
        """remembers, forgets or not learnt."""
        if self.nearest.is_right:
            return "remembers" if self.farthest.is_right else "forgets"
        return "forgets" if self.by_construction else "not learnt"

    @property
    def by_heart(self) -> bool:
        """Whether it knows the answers of its training documents all the same."""
        nats = self.train_target_nats
        return self.verdict == "not learnt" and nats is not None and nats < self.amnesic_nats / 2

    @property
    def remark(self) -> str | None:
        """What is to be said of a run that does not know the answer even after the cue."""
        near = f"right after the cue {self.nearest.right} of {self.nearest.count}"
        if self.verdict != "not learnt":
            blind = self.by_construction and not self.nearest.is_right
            if not blind or self.context is None:
                return None
            return f"sees the last {self.context + 1} tokens, and no cue further back ({near})"
        if self.by_heart:
            known = "knows the answers of its training documents by heart, but not new ones"
            return f"{known} ({near}): more text may help, more time will not"
        said = f"has not learnt the task{' in ' * bool(self.spent)}{self.spent} ({near})"
        if self.stopped == "patience" or not self.still_falling:
            return f"{said}, and its loss no longer fell: more text may help, or other settings"
        return f"{said}: try {self.longer}"

    def to_json(self) -> dict[str, Any]:
        """The value of `learning` in a row of ``compare --json``."""
        return {
            "verdict": self.verdict,
            "nearest": self.nearest.to_json(),
            "farthest": self.farthest.to_json(),
            "train_target_nats": self.train_target_nats,
            "amnesic_nats": self.amnesic_nats,
            "by_heart": self.by_heart,
            "still_falling": self.still_falling,
            "stopped": self.stopped,
            "remark": self.remark,
        }


def measure_learning(
    run: Run | None,
    model: LanguageModel,
    tokenizer: Tokenizer,
    groups: Groups,
    answers: Mapping[tuple[str, int], ItemAccuracy],
    documents: Sequence[str],
) -> TaskLearning:
    """The verdict on a run, from its answers to `groups`; those of `nearest_groups` are needed."""
    near = nearest_groups(groups)
    kind = main_kind([kind for kind, _ in groups])
    far = max((key for key in answers if key[0] == kind), key=lambda key: key[1])
    items = groups[near[0]]
    known = training_items(documents, items[0].candidates)
    trained = (run.result("train") if run else None) or {}
    stopped = trained.get("stopped")
    counts, context = model.is_count_based, getattr(model, "context", None)
    spent, longer = training_time(run.record.budget, trained.get("seconds")) if run else ("", "")
    return TaskLearning(
        Answer.of([answers[key] for key in near]),
        Answer.of([answers[far]]),
        counts or (isinstance(model, FixedContext) and not sees_cue(model, tokenizer, items)),
        context if isinstance(model, FixedContext) else None,
        item_accuracy(model, tokenizer, known).target_nats if known else None,
        answers[near[0]].amnesic_nats,
        run is not None and not counts and is_falling(run.log()),
        None if stopped == "counted" else stopped,
        spent,
        longer,
    )


def nearest_groups(groups: Groups) -> list[tuple[str, int]]:
    """The keys of the items right after the cue: the smallest gap of the main kind comes first.

    Controls belong to them where they have the same candidates, that is, ask the same.
    """
    kind = main_kind([kind for kind, _ in groups])
    first = min((key for key in groups if key[0] == kind), key=lambda key: key[1])
    asked = set(groups[first][0].candidates)
    controls = (key for key in groups if key[0] == CONTROL and key != first)
    return [first, *(key for key in controls if set(groups[key][0].candidates) == asked)]


def sees_cue(model: FixedContext, tokenizer: Tokenizer, items: Sequence[Item]) -> bool:
    """Whether the context of the model reaches back to the cue, in most of the items."""
    return 2 * sum(_tokens_between(tokenizer, i) <= model.context for i in items) >= len(items)


def _tokens_between(tokenizer: Tokenizer, item: Item) -> int:
    """Tokens from the cue to the answer, marks too; of the whole text where it has no blanks."""
    words = item.text.split()
    cue = max(0, len(words) - item.gap - 1)
    return len(tokenizer.encode(" ".join(words[cue:]))) - 1


def training_items(
    documents: Sequence[str], candidates: Sequence[str], most: int = DOCUMENTS
) -> list[Item]:
    """A sample of training documents as items: the answer is the last candidate in each.

    A candidate is a whole word, unless most documents have none as one: then their script has no
    blanks, and it may stand within others.
    """
    places = range(0, len(documents), max(1, len(documents) // most))
    some = [documents[place] for place in places][:most]
    some = [text for text in some if len(text) <= LONGEST_DOCUMENT]
    words = "|".join(map(re.escape, sorted(candidates, key=len, reverse=True)))
    patterns = [rf"(?<!\w)(?:{words})(?!\w)"]
    if min(map(len, candidates)) > 1:
        patterns.append(words)
    for pattern in map(re.compile, patterns):
        found = [(text, list(pattern.finditer(text))[-1:]) for text in some]
        items = [
            Item(text[: last.start()], last[0], tuple(candidates), 0, "training")
            for text, matches in found
            for last in matches
        ]
        if 2 * len(items) > len(some):
            return items
    return []


def is_falling(log: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the loss was still falling when the training ended, from the lines of its log.

    That is: the last validation loss is lower by 2 % than at half-time, and not 2 % above the best.
    The validation loss is judged because it is of the same documents all along: the training loss
    jumps where the curriculum goes on to longer documents, and falls for a run that only learns its
    text by heart. Half-time, because the learning rate falls to 0: hardly anything changes in the
    last quarter, however much there is to learn. Among trainings of 40 steps to 7,700 that were
    looked at, a finished one fell by 0.5 % in its second half, the others by 4 % and more. One that
    was not validated in its first half was too short to level off.

    With a curriculum half-time comes before its end, so that most such runs count as falling. That
    errs on the right side: a GRU whose loss was flat after it knew nothing in a training of 42 s,
    and all in one of 59 s.
    """
    losses = [(line["step"], line["valid"]) for line in log if line["valid"] is not None]
    before = [loss for step, loss in losses if step <= losses[-1][0] / 2]
    if not before:
        return True
    last, best = losses[-1][1], min(loss for _, loss in losses)
    return bool(last < (1 - LEAST_FALL) * before[-1] and (1 - LEAST_FALL) * last <= best)


def training_time(budget: Mapping[str, Any], seconds: float | None) -> tuple[str, str]:
    """How long a training took, and the option for a longer one, in the unit of its budget.

    >>> training_time({"minutes": 2 / 3, "steps": None, "epochs": None}, 40.3)
    ('40 s', '--minutes 3')
    >>> training_time({"minutes": None, "steps": 50, "epochs": None}, 1.5)
    ('50 steps', '--steps 200')
    """
    unit, size = next((u, n) for u, n in budget.items() if n is not None)
    if unit == "minutes":
        seconds = seconds or 60 * size
        spent = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.3g} min"
        return spent, f"--minutes {math.ceil(LONGER * size)}"
    name = unit if size != 1 else unit.removesuffix("s")
    return f"{size:g} {name}", f"--{unit} {LONGER * size:g}"
