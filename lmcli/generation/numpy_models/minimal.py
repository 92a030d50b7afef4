"""What mingru and minlstm share, one token at a time; equations in models/layers/minimal.py.

Their gates read the input only, so the gates of the first layer are a row of a table.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Floats32, Weights
from lmcli.generation.numpy_models.recurrent import Layer, to_sigmoid

EPSILON = 1e-5
"""Added to the variance by torch's LayerNorm."""
REACH, STEPS = 6, 1024
"""The table of `gelu`: up to |x| = 6, in steps of 1 / 1024."""
SHORTFALL = np.array(
    [-k / STEPS * math.erfc(k / STEPS * 0.5**0.5) / 2 for k in range(REACH * STEPS + 2)], np.float32
)
RISE = np.diff(SHORTFALL)


class MinimalLayer(Layer):
    """Gates, recurrence, a product over the units and a feed-forward net."""

    gates: int

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        rows = self.gates * hidden
        scale, shift = weights("norm.weight", inputs), weights("norm.bias", inputs)
        weight = weights.transposed("input_weight", rows, inputs)  # (E, GH)
        self.weight = weight * scale[:, None]
        self.bias = weights("bias", rows) + shift @ weight
        self.out_proj = weights.transposed("out_proj.weight", hidden, hidden)
        self.residual = inputs == hidden
        scale, shift = weights("ffn_norm.weight", hidden), weights("ffn_norm.bias", hidden)
        up = weights.transposed("up.weight", 2 * hidden, hidden)
        self.up, self.up_bias = up * scale[:, None], weights("up.bias", 2 * hidden) + shift @ up
        self.down = weights.transposed("down.weight", hidden, 2 * hidden)
        self.down_bias = weights("down.bias", hidden)

    @abc.abstractmethod
    def gate_values(self, total: Floats32) -> tuple[Floats32, Floats32]:
        """The factor of h and the term term to it. Shapes: (n, GH) -> (n, H), (n, H)."""

    def prepare(self, x: Floats32) -> Floats32:
        """Factor, term, and x where there is a residual path. Shapes: -> (n, 2H or 3H)."""
        factor, term = self.gate_values(normed(x) @ self.weight + self.bias)
        return np.concatenate([factor, term, x] if self.residual else [factor, term], axis=1)

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; where a document begins h is 0 before it."""
        H, h = self.hidden, self.h
        if is_start:
            h[is_start] = 0
        h *= prepared[:, :H]
        h += prepared[:, H : 2 * H]
        y: Floats32 = np.dot(h, self.out_proj)
        if self.residual:
            y += prepared[:, 2 * H :]
        inner = np.dot(normed(y), self.up)
        inner += self.up_bias
        y += np.dot(gelu(inner), self.down)
        y += self.down_bias
        return y


def normed(x: Floats32) -> Floats32:
    """Mean 0, variance 1; LayerNorm's weights are in the next product. Shapes: (n, H)."""
    share = np.full((x.shape[1], 1), 1 / x.shape[1], np.float32)
    x = np.subtract(x, np.dot(x, share))
    deviation: Floats32 = np.dot(x * x, share)
    deviation += np.float32(EPSILON)
    x /= np.sqrt(deviation, out=deviation)
    return x


def gelu(x: Floats32) -> Floats32:
    """x times the normal distribution function at x, exact to 2e-7.

    gelu(x) - max(x, 0) depends on |x| only and is interpolated in a table; NumPy has no erf.
    """
    place = np.abs(x)
    place *= np.float32(STEPS)
    np.minimum(place, np.float32(REACH * STEPS), out=place)
    before = place.astype(np.int32)
    shortfall: Floats32 = np.subtract(place, before, dtype=np.float32)
    shortfall *= RISE.take(before)
    shortfall += SHORTFALL.take(before)
    shortfall += np.maximum(x, 0)
    return shortfall


def sigmoid(x: Floats32) -> Floats32:
    """1 / (1 + exp(-x)), without overflow."""
    return to_sigmoid(np.tanh(x * np.float32(0.5)))
