"""Neural n-gram, one token at a time; equations in models/window.py.

H x is a sum over the positions of the window, and each term depends on one token: with a table of
one row per position and token (with `direct` followed by W x) a step is a sum of N rows, unless
that table is too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmcli.generation.numpy_models import base
from lmcli.generation.numpy_models.base import Array, ArrayModel, Floats, Floats32, Weights
from lmcli.generation.numpy_models.softmax import embedding_table, output_layer


class Window(ArrayModel):
    """Embeddings of the last N tokens, a tanh layer, an output layer."""

    name = "window"
    required_settings = ("window", "direct")
    carried = ("tokens",)

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        weights = Weights(tensors)
        self.start_id, self.places = vocabulary, settings.window
        self.embed = embedding_table(weights, vocabulary)
        wide = self.places * self.embed.shape[1]
        weight = weights.transposed("hidden.weight", None, wide)  # (N E, H)
        self.hidden = weight.shape[1]
        if settings.direct:
            direct = weights.transposed("direct.weight", vocabulary, wide)
            weight = np.concatenate([weight, direct], axis=1)  # (N E, H + V)
        self.weight = weight
        self.bias = weights("hidden.bias", self.hidden)
        self.output = output_layer(weights, vocabulary, self.hidden)
        self.tabulated = self.places * len(self.embed) * weight.shape[1] <= base.TABLE
        if self.tabulated:
            blocks = weight.reshape(self.places, -1, weight.shape[1])
            self.table = np.concatenate([self.embed @ block for block in blocks])
        self.offsets = np.arange(self.places) * len(self.embed)

    def reset(self, streams: int) -> None:
        """All start ids."""
        self.tokens = np.full((streams, self.places), self.start_id)

    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream; all tokens before a start id become start ids."""
        self.tokens[:, :-1] = self.tokens[:, 1:]
        self.tokens[:, -1] = tokens
        if self.start_id in tokens:
            self.tokens[self.tokens[:, -1] == self.start_id] = self.start_id

    def logits(self) -> Floats:
        total = self._total()  # (K, H) or (K, H + V)
        hidden = total[:, : self.hidden] + self.bias
        logits = self.output(np.tanh(hidden, out=hidden))
        if total.shape[1] > self.hidden:
            logits += total[:, self.hidden :]
        return logits

    def _total(self) -> Floats32:
        if not self.tabulated:
            return self.embed[self.tokens].reshape(len(self.tokens), -1) @ self.weight
        rows = self.table.take(self.tokens + self.offsets, axis=0)  # (K, N, H)
        total: Floats32 = np.add.reduce(rows, axis=1)
        return total


Member = Window
