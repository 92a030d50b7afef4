"""N-gram counts with Kneser-Ney smoothing, one token at a time; see models/ngram/.

The state of a stream is, for each order, the rank of the n-gram that ends at its last token, so a
token costs one look-up per order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, ArrayModel, Floats
from lmcli.models.ngram.kneser_ney import KneserNey


class NGram(ArrayModel):
    """A smoothed table of counts."""

    name = "ngram"
    carried = ("ranks",)

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        self.vocabulary = vocabulary
        order = sum(name.endswith(".token") for name in tensors)
        self.table = KneserNey.from_arrays(tensors, vocabulary, order)
        self.single = self.table.levels[0].probability[:vocabulary].astype(np.float64)

    def reset(self, streams: int) -> None:
        """Ranks of the orders below the highest, -1 where an n-gram was never counted."""
        self.ranks = np.full((streams, self.table.order - 1), -1, np.int64)
        self.ranks[:, :1] = self.vocabulary

    def read(self, tokens: Sequence[int]) -> None:
        if len(tokens) == 1:
            self._read_one(tokens[0])
            return
        read = np.array(tokens)
        for k in range(self.ranks.shape[1] - 1, 0, -1):
            self.ranks[:, k] = self.table.levels[k].find(self.ranks[:, k - 1], read)
        self.ranks[:, :1] = read[:, None]

    def _read_one(self, token: int) -> None:
        """The same for a single stream, without the cost of arrays."""
        ranks = [token]
        for level, context in zip(self.table.levels[1:], self.ranks[0, :-1].tolist(), strict=False):
            key = context * level.width + token
            rank = int(level.keys.searchsorted(key))
            counted = context >= 0 and level.keys.item(rank) == key
            ranks.append(rank if counted else -1)
        self.ranks[0] = ranks[: self.ranks.shape[1]]

    def logits(self) -> Floats:
        """ln p of every token after those read last."""
        if len(self.ranks) == 1:
            p = self._after_one()[None]
        else:
            p = self.table.after_contexts(list(self.ranks.T), len(self.ranks))
        return np.log(p, out=p)

    def _after_one(self) -> Floats:
        p, levels = self.single.copy(), self.table.levels
        for below, level, rank in zip(levels, levels[1:], self.ranks[0].tolist(), strict=False):
            if rank < 0:  # then no longer context was counted either
                break
            p *= below.backoff[rank]
            first = level.first.item(rank)
            some = slice(first, first + level.children.item(rank))
            p[level.token[some]] = level.probability[some]
        return p


Member = NGram
