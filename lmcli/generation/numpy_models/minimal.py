"""What mingru and minlstm share, one token at a time; equations in models/layers/minimal.py.

Their gates read the input only, so the gates of the first layer are a row of a table.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Floats32, Weights
from lmcli.generation.numpy_models.layer import Layer
from lmcli.generation.numpy_models.recurrent import to_sigmoid


class MinimalLayer(Layer):
    """Gates and recurrence."""

    gates: int

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        rows = self.gates * hidden
        self.weight = weights.transposed("input_weight", rows, inputs)  # (E, GH)
        self.bias = weights("bias", rows)

    @abc.abstractmethod
    def gate_values(self, total: Floats32) -> tuple[Floats32, Floats32]:
        """The factor of h and the term to it. Shapes: (n, GH) -> (n, H), (n, H)."""

    def prepare(self, x: Floats32) -> Floats32:
        """Factor and term. Shapes: (n, inputs) -> (n, 2H)."""
        return np.concatenate(self.gate_values(x @ self.weight + self.bias), axis=1)

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; where a document begins h is 0 before it."""
        H, h = self.hidden, self.h
        if is_start:
            h[is_start] = 0
        h *= prepared[:, :H]
        h += prepared[:, H:]
        return h


def sigmoid(x: Floats32) -> Floats32:
    """1 / (1 + exp(-x)), without overflow."""
    return to_sigmoid(np.tanh(x * np.float32(0.5)))
