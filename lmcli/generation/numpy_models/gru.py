"""Gated recurrent unit, one token at a time; equations in models/gru.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Floats32, Weights
from lmcli.generation.numpy_models.recurrent import Gated, Recurrent, to_sigmoid

CLOSED = -60.0
"""As the input of a halved sigmoid: tanh(-60) = -1 exactly, so the gate is 0."""


class GRULayer(Gated):
    """Gates in the order r, z, n."""

    order, sigmoids = (0, 1, 2), 2

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.candidate_bias = weights("candidate_bias", hidden)  # c_n

    def reset(self, streams: int) -> None:
        """h = 0; the blocks of U h by name."""
        super().reset(streams)
        H = self.hidden
        self.gates, self.r = self.total[:, : 2 * H], self.total[:, :H]
        self.z, self.n = self.total[:, H : 2 * H], self.total[:, 2 * H :]

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; where a document begins both gates are closed."""
        h, n, gates, split = self.h, self.n, self.gates, 2 * self.hidden
        np.dot(h, self.recurrent, out=self.total)
        np.add(gates, prepared[:, :split], out=gates)
        if is_start:
            gates[is_start] = CLOSED
        to_sigmoid(np.tanh(gates, out=gates))
        np.add(n, self.candidate_bias, out=n)
        np.multiply(n, self.r, out=n)
        np.add(n, prepared[:, split:], out=n)
        np.tanh(n, out=n)
        np.subtract(h, n, out=h)  # h = n + z * (h - n)
        np.multiply(h, self.z, out=h)
        return np.add(h, n, out=h)


class GRU(Recurrent):
    """Gated recurrent unit."""

    name = "gru"
    kind = GRULayer


Member = GRU
