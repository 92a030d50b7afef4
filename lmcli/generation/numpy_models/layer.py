"""A recurrent layer of K streams, and the residual block around one; see models/layers/block.py.

The weights of a LayerNorm are put into the product that follows it.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, Floats32, Stateful, Weights

EPSILON = 1e-5
"""Added to the variance by torch's LayerNorm."""
REACH, STEPS = 6, 1024
"""The table of `gelu`: up to |x| = 6, in steps of 1 / 1024."""
SHORTFALL = np.array(
    [-k / STEPS * math.erfc(k / STEPS * 0.5**0.5) / 2 for k in range(REACH * STEPS + 2)], np.float32
)
RISE = np.diff(SHORTFALL)


class Layer(Stateful):
    """One recurrent layer of K streams with the hidden vectors `h`."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        self.hidden = hidden

    def prepare(self, x: Floats32) -> Floats32:
        """The part that depends on the layer's input alone. Shapes: (n, inputs) -> (n, columns)."""
        return x

    def reset(self, streams: int) -> None:
        self.h = np.zeros((streams, self.hidden), np.float32)

    @abc.abstractmethod
    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; the streams in `is_start` begin a document. Shapes: (K, columns) -> (K, H)."""


class Block(Layer):
    """A layer, the norm before it, and a product and a feed-forward net after it."""

    def __init__(
        self, kind: type[Layer], weights: Weights, inputs: int, hidden: int, settings: Any
    ) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.recurrence = kind(without_norm(weights, inputs), inputs, hidden, settings)
        self.out_proj = weights.transposed("out_proj.weight", hidden, hidden)
        self.residual = inputs == hidden
        scale, shift = weights("ffn_norm.weight", hidden), weights("ffn_norm.bias", hidden)
        up = weights.transposed("up.weight", 2 * hidden, hidden)
        self.up, self.up_bias = up * scale[:, None], weights("up.bias", 2 * hidden) + shift @ up
        self.down = weights.transposed("down.weight", hidden, 2 * hidden)
        self.down_bias = weights("down.bias", hidden)

    def prepare(self, x: Floats32) -> Floats32:
        """What the recurrence prepares, and x where there is a residual path."""
        prepared = self.recurrence.prepare(normed(x))
        return np.concatenate([prepared, x], axis=1) if self.residual else prepared

    def reset(self, streams: int) -> None:
        """That of the recurrence."""
        self.recurrence.reset(streams)

    def state(self) -> list[Array]:
        """That of the recurrence."""
        return self.recurrence.state()

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """The recurrence, then the rest of the block."""
        columns = prepared.shape[1] - (self.hidden if self.residual else 0)
        h = self.recurrence.step(prepared[:, :columns], is_start)
        y: Floats32 = np.dot(h, self.out_proj)
        if self.residual:
            y += prepared[:, columns:]
        inner = np.dot(normed(y), self.up)
        inner += self.up_bias
        y += np.dot(gelu(inner), self.down)
        y += self.down_bias
        return y


def without_norm(weights: Weights, inputs: int) -> Weights:
    """The weights of a layer that reads the norm's output before its scale and shift."""
    scale, shift = weights("norm.weight", inputs), weights("norm.bias", inputs)
    weight = weights("input_weight", None, inputs)
    bias = weights("bias", len(weight)) + weight @ shift
    own = {"input_weight": weight * scale, "bias": bias}
    tensors = {**weights.tensors, **{weights.prefix + name: own[name] for name in own}}
    return Weights(tensors, weights.prefix)


def layer_of(kind: type[Layer], weights: Weights, inputs: int, hidden: int, settings: Any) -> Layer:
    """A layer, in a block where there are tensors of one: older runs have no setting for it."""
    parts = ("norm.weight", "up.weight")
    if any(weights.prefix + part in weights.tensors for part in parts):
        return Block(kind, weights, inputs, hidden, settings)
    return kind(weights, inputs, hidden, settings)


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
