"""Forced choice over held-out items with known answers, by kind and gap.

**In:** a model, a tokenizer, the items that a grammar has made with its text.
**Out:** for each kind and gap: how often the answer beats all other candidates, and its loss.

``lmcli cloze``, ``lmcli probe recall`` and ``lmcli compare`` all ask here, and ask the same items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmcli.evaluation.forced_choice import check_vocabulary, normalised, score_words
from lmcli.evaluation.state_batches import row_bytes
from lmcli.evaluation.statistics import Floats, Interval, wilson
from lmcli.grammars.base import Item
from lmcli.models.base import LanguageModel
from lmcli.tokenizers.base import Tokenizer

CONTROL = "control"
ITEMS_PER_GAP = 200
"""items of each kind and gap that are asked, at the most"""
STATE_MEMORY = 1 << 28
"""bytes of states held at once"""


@dataclass(frozen=True)
class ItemAccuracy:
    """Forced choice over items of one kind and gap."""

    kind: str
    gap: int
    count: int
    right: int
    """how often the answer beats all other candidates; a tie is not right"""
    target_nats: float
    """mean -ln p of the answer among the candidates: 0 is perfect"""
    amnesic_nats: float
    """the same for a model that knows nothing: mean ln of the number of candidates"""
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.count

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson(self.right, self.count)


def group_items(
    items: Sequence[Item], most: int = ITEMS_PER_GAP
) -> dict[tuple[str, int], list[Item]]:
    """The first items of each kind and gap, the control first."""
    groups: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        if len(item.candidates) > 1:
            group = groups.setdefault((item.kind, item.gap), [])
            if len(group) < most:
                group.append(item)
    order = sorted(groups, key=lambda key: (key[0] != CONTROL, *key))
    return {key: groups[key] for key in order}


def item_accuracy(
    model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]
) -> ItemAccuracy:
    """The answers of items of one kind and gap, each against its item's candidates."""
    check_vocabulary(
        tokenizer,
        sorted({word for item in items for word in item.candidates}),
        "the items belong to another text than the run",
    )
    right, probabilities = 0, list[float]()
    for item, scores in zip(items, item_scores(model, tokenizer, items), strict=True):
        answer = item.candidates.index(item.answer)
        right += bool(scores[answer] > np.delete(scores, answer).max())
        probabilities.append(normalised(scores)[answer])
    sizes = [len(item.candidates) for item in items]
    return ItemAccuracy(
        items[0].kind,
        items[0].gap,
        len(items),
        right,
        float(np.mean(-np.log(np.maximum(probabilities, 1e-300)))),
        float(np.mean([math.log(size) for size in sizes])),
        float(np.mean([1 / size for size in sizes])),
    )


def item_scores(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Floats]:
    """ln p of every candidate of every item."""
    batch = max(8, STATE_MEMORY // (8 * row_bytes(model)))
    scores: list[Floats] = [np.empty(0)] * len(items)
    for begin in range(0, len(items), batch):
        group = range(begin, min(begin + batch, len(items)))
        # candidates of one item may be fewer than another's: those of equal number at a time
        for size in sorted({len(items[i].candidates) for i in group}):
            alike = [i for i in group if len(items[i].candidates) == size]
            words = [items[i].candidates for i in alike]
            found = score_words(model, tokenizer, [items[i].text for i in alike], words)
            for i, row in zip(alike, found, strict=True):
                scores[i] = row
    return scores
