"""What mingru and minlstm share, one token at a time; equations in models/minimal.py.

As their gates see the input only, the first layer's gates are a row of a table.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, Reals, Weights
from lmcli.generation.numpy_models.recurrent import Layer

EPSILON = 1e-5
"""What torch's LayerNorm adds to the variance."""
REACH, STEPS = 6, 1024
"""The table behind `gelu`: as far as |x| = 6, in steps of 1 / 1024."""
SHORT = np.array(
    [-k / STEPS * math.erfc(k / STEPS * 0.5**0.5) / 2 for k in range(REACH * STEPS + 2)], np.float32
)
RISE = np.diff(SHORT)


class MinimalLayer(Layer):
    """Gates, recurrence, a product over the units and a feed-forward net."""

    blocks: int

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        rows = self.blocks * hidden
        scale, shift = weights("norm.weight", inputs), weights("norm.bias", inputs)
        weight = weights.turned("input_weight", rows, inputs)  # (E, GH)
        self.weight = weight * scale[:, None]
        self.bias = weights("bias", rows) + shift @ weight
        self.merge = weights.turned("merge.weight", hidden, hidden)
        self.residual = inputs == hidden
        scale, shift = weights("between.weight", hidden), weights("between.bias", hidden)
        up = weights.turned("up.weight", 2 * hidden, hidden)
        self.up, self.up_bias = up * scale[:, None], weights("up.bias", 2 * hidden) + shift @ up
        self.down = weights.turned("down.weight", hidden, 2 * hidden)
        self.down_bias = weights("down.bias", hidden)

    @abc.abstractmethod
    def gates(self, total: Reals) -> tuple[Reals, Reals]:
        """What is kept of h and what is added to it. Shapes: (n, GH) -> (n, H), (n, H)."""

    def prepare(self, x: Reals) -> Reals:
        """What is kept, what is added, and x where it is passed by. Shapes: -> (n, 2H or 3H)."""
        kept, added = self.gates(normed(x) @ self.weight + self.bias)
        return np.concatenate([kept, added, x] if self.residual else [kept, added], axis=1)

    def begin(self, streams: int) -> None:
        """h = 0."""
        self.h = np.zeros((streams, self.hidden), np.float32)
        self.y = np.empty((streams, self.hidden), np.float32)
        self.thought = np.empty((streams, self.hidden), np.float32)
        self.inner = np.empty((streams, 2 * self.hidden), np.float32)

    def state(self) -> list[Array]:
        """The hidden vector."""
        return [self.h]

    def step(self, prepared: Reals, is_start: list[int]) -> Reals:
        """One step; where a document begins nothing is kept."""
        H, h, y = self.hidden, self.h, self.y
        if is_start:
            h[is_start] = 0
        h *= prepared[:, :H]
        h += prepared[:, H : 2 * H]
        np.dot(h, self.merge, out=y)
        if self.residual:
            y += prepared[:, 2 * H :]
        np.dot(normed(y), self.up, out=self.inner)
        self.inner += self.up_bias
        np.dot(gelu(self.inner), self.down, out=self.thought)
        y += self.thought
        y += self.down_bias
        return y


def normed(x: Reals) -> Reals:
    """Mean 0 and variance 1; LayerNorm's weight and bias are in what follows. Shapes: (n, H)."""
    share = np.full((x.shape[1], 1), 1 / x.shape[1], np.float32)
    x = np.subtract(x, np.dot(x, share))
    deviation: Reals = np.dot(x * x, share)
    deviation += np.float32(EPSILON)
    x /= np.sqrt(deviation, out=deviation)
    return x


def gelu(x: Reals) -> Reals:
    """x times the share of a normal distribution that lies below x, right to 2e-7.

    What it is short of max(x, 0) depends on |x| only, and is read off a line between two places of
    a table; NumPy has no erf.
    """
    place = np.abs(x)
    place *= np.float32(STEPS)
    np.minimum(place, np.float32(REACH * STEPS), out=place)
    before = place.astype(np.int32)
    short: Reals = np.subtract(place, before, dtype=np.float32)
    short *= RISE.take(before)
    short += SHORT.take(before)
    short += np.maximum(x, 0)
    return short


def sigmoid(x: Reals) -> Reals:
    """1 / (1 + exp(-x)), without overflow."""
    gate: Reals = np.tanh(x * np.float32(0.5))
    gate *= np.float32(0.5)
    gate += np.float32(0.5)
    return gate
