"""Gated recurrent unit, one token at a time; equations in models/gru.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcli.generation.numpy_models.base import Weights
from lmcli.generation.numpy_models.recurrent import CLOSED, Gated, Recurrent

if TYPE_CHECKING:
    from lmcli.models.base import Floats32


class GRULayer(Gated):
    """Gates in the order r, z, n."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.candidate_bias = weights("candidate_bias", hidden)  # c_n

    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """As saved; r and z are sigmoids."""
        return (0, 1, 2), 2

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
        np.tanh(gates, out=gates)
        np.multiply(gates, 0.5, out=gates)
        np.add(gates, 0.5, out=gates)
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
