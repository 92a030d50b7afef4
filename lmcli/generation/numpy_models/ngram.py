"""N-gram counts with Kneser-Ney smoothing, one token at a time; see models/ngram.py.

Of every stream the rank of the n-gram of each order that ends at its last token is carried, so
that a token costs one look-up an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, ArrayModel, Logits
from lmcli.models.ngram.kneser_ney import KneserNey


class NGram(ArrayModel):
    """A smoothed table of counts."""

    name = "ngram"

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        self.vocabulary = vocabulary
        order = sum(name.endswith(".token") for name in tensors)
        self.table = KneserNey.from_arrays(tensors, vocabulary, order)
        self.single = self.table.levels[0].probability[:vocabulary].astype(np.float64)

    def begin(self, streams: int) -> None:
        """Behind a start id."""
        self.ranks = np.full((streams, self.table.order - 1), -1, np.int64)
        self.ranks[:, :1] = self.vocabulary

    def state(self) -> list[Array]:
        """Ranks of the orders below the highest, -1 where an n-gram was never seen."""
        return [self.ranks]

    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream."""
        if len(tokens) == 1:
            self._read_one(tokens[0])
            return
        read = np.array(tokens)
        for k in range(self.ranks.shape[1] - 1, 0, -1):
            self.ranks[:, k] = self.table.levels[k].find(self.ranks[:, k - 1], read)
        self.ranks[:, :1] = read[:, None]

    def _read_one(self, token: int) -> None:
        """The same for a single stream, without the cost of arrays."""
        found = [token]
        for level, context in zip(self.table.levels[1:], self.ranks[0, :-1].tolist(), strict=False):
            key = context * level.width + token
            place = int(level.keys.searchsorted(key))
            seen = context >= 0 and level.keys.item(place) == key
            found.append(place if seen else -1)
        self.ranks[0] = found[: self.ranks.shape[1]]

    def logits(self) -> Logits:
        """ln p of every token behind those read last."""
        if len(self.ranks) == 1:
            p = self._behind_one()[None]
        else:
            p = self.table.behind(list(self.ranks.T), len(self.ranks))
        return np.log(p, out=p)

    def _behind_one(self) -> Logits:
        p, levels = self.single.copy(), self.table.levels
        for below, level, rank in zip(levels, levels[1:], self.ranks[0].tolist(), strict=False):
            if rank < 0:  # then no longer context was seen either
                break
            p *= below.backoff[rank]
            first = level.first.item(rank)
            some = slice(first, first + level.children.item(rank))
            p[level.token[some]] = level.probability[some]
        return p


Member = NGram
