"""An LSTM beside an n-gram, one token at a time; see models/hybrid/model.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, Floats, Weights
from lmcli.generation.numpy_models.lstm import LSTM
from lmcli.generation.numpy_models.ngram import NGram
from lmcli.generation.numpy_models.softmax import AdaptiveOutput
from lmcli.models import COUNTS
from lmcli.models.hybrid.cross_fit import way_to_mix


class Hybrid(LSTM):
    """The logits of both, joined by a gate."""

    name = "hybrid"
    required_settings = (*LSTM.required_settings, "mix")

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        super().__init__(vocabulary, settings, tensors)
        counts = {n.removeprefix(COUNTS): t for n, t in tensors.items() if n.startswith(COUNTS)}
        self.ngram = NGram(vocabulary, settings, counts)
        weights, context = Weights(tensors), self.ngram.table.order - 1
        self.gate = weights("gate.weight", 1, self.output.hidden + context)[0].astype(np.float64)
        self.gate_bias = float(weights("gate.bias", 1)[0])
        adaptive = isinstance(self.output, AdaptiveOutput)
        self.mix = way_to_mix(settings.mix, adaptive, vocabulary)

    def reset(self, streams: int) -> None:
        super().reset(streams)
        self.ngram.reset(streams)

    def state(self) -> list[Array]:
        """The LSTM's, and the n-grams that end at the last token."""
        return [*super().state(), *self.ngram.state()]

    def read(self, tokens: Sequence[int]) -> None:
        super().read(tokens)
        self.ngram.read(tokens)

    def logits(self) -> Floats:
        own, counted = super().logits(), self.ngram.logits()
        read = np.concatenate([self.h, self._known()], axis=1)
        gate = (np.dot(read, self.gate) + self.gate_bias)[:, None]  # (K, 1)
        if self.mix == "log":
            own += gate * counted
            return own
        own -= np.logaddexp.reduce(own, axis=1, keepdims=True)
        own -= np.logaddexp(0, -gate)
        counted -= np.logaddexp(0, gate)
        joined: Floats = np.logaddexp(own, counted, out=own)
        return joined

    def _known(self) -> Floats:
        """The share of mass of each context that was counted. Shapes: -> (K, order - 1)."""
        ranks, levels = self.ngram.ranks, self.ngram.table.levels
        known = np.zeros(ranks.shape)
        for k in range(ranks.shape[1]):
            counted = ranks[:, k] >= 0
            known[counted, k] = 1 - levels[k].backoff[ranks[counted, k]]
        return known


Member = Hybrid
