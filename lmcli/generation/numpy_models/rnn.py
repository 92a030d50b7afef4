"""Elman's simple recurrent network, one token at a time; equations in models/rnn.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Floats32, Weights
from lmcli.generation.numpy_models.recurrent import Gated, Recurrent


class RNNLayer(Gated):
    """One product, one activation."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.rectified = settings.activation == "relu"

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        if is_start:
            self.h[is_start] = 0
        total = np.dot(self.h, self.recurrent, out=self.total)
        total += prepared
        return np.maximum(total, 0, out=self.h) if self.rectified else np.tanh(total, out=self.h)


class RNN(Recurrent):
    """Simple recurrent network."""

    name = "rnn"
    required_settings = (*Recurrent.required_settings, "activation")
    kind = RNNLayer


Member = RNN
