"""When a training may end before its budget: as soon as the memory that was asked for is there.

**In:** the items beside the text of a dataset.
**Out:** `RecallCriterion`: whether a model answers them, at every gap, twice in a row.

The items are those after the first `ITEMS_PER_GAP` of each gap: no table reports them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from lmcli.data.dataset import Dataset
from lmcli.evaluation.forced_choice import ITEMS_PER_GAP, group_items, item_accuracy
from lmcli.grammars.base import Item, find_companions, read_items
from lmcli.models.base import LanguageModel
from lmcli.tokenizers.base import Tokenizer

LONGEST = 200
"""the longest gap at which the answer must be known"""
ITEMS = 40
"""of each gap"""
RIGHT = 0.95
"""the share of right answers at each gap"""
IN_A_ROW = 2


@dataclass
class RecallCriterion:
    """Counts how many times in a row a model has answered nearly all items."""

    groups: Sequence[Sequence[Item]]
    """of one gap each"""
    tokenizer: Tokenizer
    passed: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> RecallCriterion | None:
        """With the kind of item that comes at the most gaps; None for a text without any."""
        path = find_companions(dataset.spec.texts, lambda event: None).items
        groups = {} if path is None else group_items(read_items(path), ITEMS_PER_GAP + ITEMS)
        own = {key: items[ITEMS_PER_GAP:] for key, items in groups.items() if key[1] <= LONGEST}
        kinds = Counter(kind for (kind, _), items in own.items() if items)
        asked = [own[key] for key in own if kinds and key[0] == kinds.most_common(1)[0][0]]
        asked = [items for items in asked if items]
        return cls(asked, dataset.tokenized.tokenizer) if asked else None

    def __call__(self, model: LanguageModel) -> bool:
        """Ask once more, on the CPU as all that scores does; whether the training may end."""
        model = deepcopy(model).cpu().eval()
        right = (item_accuracy(model, self.tokenizer, items).accuracy for items in self.groups)
        self.passed = self.passed + 1 if all(share >= RIGHT for share in right) else 0
        return self.passed >= IN_A_ROW
