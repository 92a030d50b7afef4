"""Elman's simple recurrent network, one token at a time; equations in models/rnn.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Reals, Weights
from lmcli.generation.numpy_models.recurrent import Gated, Recurrent


class RNNLayer(Gated):
    """One product, one activation."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.rectified = settings.activation == "relu"

    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """One block, no sigmoid."""
        return (0,), 0

    def step(self, prepared: Reals, is_start: list[int]) -> Reals:
        """One step."""
        if is_start:
            self.h[is_start] = 0
        total = np.dot(self.h, self.recurrent, out=self.total)
        total += prepared
        return np.maximum(total, 0, out=self.h) if self.rectified else np.tanh(total, out=self.h)


class RNN(Recurrent):
    """Simple recurrent network."""

    name = "rnn"
    needs = (*Recurrent.needs, "activation")
    kind = RNNLayer


Member = RNN
