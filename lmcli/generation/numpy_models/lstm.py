"""Long short-term memory with all its variants, one token at a time; see models/lstm.py.

The gates are in the order o, i, f, g, followed by the cell in the same array, so that i * g and
f * c are one product, and the new cell is their sum.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Floats32, Weights
from lmcli.generation.numpy_models.layer import Layer
from lmcli.generation.numpy_models.recurrent import Gated, Recurrent, to_sigmoid

MANY = 8
"""streams from which on U h is computed as (U h)^T, which is the faster product then"""


class LSTMLayer(Gated):
    """Saved as i, f, g, o or i, g, o; here o, i, (f,) g, all but g sigmoids."""

    carried = ("h", "c")

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        self.coupled, self.forget = settings.coupled, settings.forget and not settings.coupled
        self.order, self.sigmoids = ((3, 0, 1, 2), 3) if self.forget else ((2, 0, 1), 2)
        super().__init__(weights, inputs, hidden, settings)
        self.peepholes: Floats32 | None = None
        if settings.peepholes:  # saved as i, (f,) o; halved for the sigmoids
            peepholes = weights("recurrent_peepholes", self.sigmoids, hidden)
            self.peepholes = np.multiply(peepholes, np.float32(0.5))

    def reset(self, streams: int) -> None:
        """h = c = 0; the blocks of the array by name."""
        super().reset(streams)
        H, blocks = self.hidden, self.total.shape[1] // self.hidden
        whole = np.zeros((streams, (blocks + 1) * H), np.float32)  # o, i, (f,) g, c
        self.gates, self.all_but_g = whole[:, : blocks * H], whole[:, : (blocks - 1) * H]
        self.output, self.early = whole[:, :H], whole[:, H : (blocks - 1) * H]  # early: i, (f)
        self.late = whole[:, H : blocks * H]  # i, (f,) g
        self.i, self.g, self.c = whole[:, H : 2 * H], whole[:, -2 * H : -H], whole[:, -H:]
        self.written = whole[:, -2 * H :]  # g, c
        self.pair = np.empty((streams, 2 * H), np.float32)
        self.tanh_c = np.empty((streams, H), np.float32)
        self.many = streams >= MANY
        if self.many:
            self.room = np.empty((self.recurrent.shape[1], streams), np.float32)

    @cached_property
    def transposed(self) -> Floats32:
        """U in the shape it was saved in: (GH, H)."""
        return np.ascontiguousarray(self.recurrent.T)

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; where a document begins it starts from h = c = 0 and ends in h = c = 0."""
        if is_start:
            self._forget(is_start)
        np.add(self._recurrent_part(), prepared, out=self.gates)
        if self.peepholes is None:
            np.tanh(self.gates, out=self.gates)
            to_sigmoid(self.all_but_g)
        else:
            H = self.hidden
            for number, weight in enumerate(self.peepholes[:-1]):  # of i and f
                self.early[:, number * H : (number + 1) * H] += weight * self.c
            np.tanh(self.late, out=self.late)
            to_sigmoid(self.early)
        self._write()
        if self.peepholes is not None:
            self.output += self.peepholes[-1] * self.c
            to_sigmoid(np.tanh(self.output, out=self.output))
        np.tanh(self.c, out=self.tanh_c)
        np.multiply(self.output, self.tanh_c, out=self.h)
        if not is_start:
            return self.h
        output = self.h.copy()
        self._forget(is_start)
        return output

    def _forget(self, streams: list[int]) -> None:
        """h = c = 0."""
        self.c[streams] = 0
        self.h[streams] = 0

    def _recurrent_part(self) -> Floats32:
        """U h. Shapes: -> (K, GH)."""
        if not self.many:
            return np.dot(self.h, self.recurrent, out=self.total)
        return np.dot(self.transposed, self.h.T, out=self.room).T

    def _write(self) -> None:
        """The new cell."""
        c = self.c
        if self.forget:  # f * c + i * g
            np.multiply(self.early, self.written, out=self.pair)
            np.add(self.pair[:, : self.hidden], self.pair[:, self.hidden :], out=c)
            return
        if self.coupled:  # (1 - i) * c + i * g = c + i * (g - c)
            np.subtract(self.g, c, out=self.g)
        np.multiply(self.i, self.g, out=self.g)
        np.add(c, self.g, out=c)


class OutputAttention(Layer):
    """One attention head over the last outputs; equations in models/layers/local_attention.py.

    Keys and values are computed once and stored in a ring buffer of N + 1 places: each output
    overwrites the one N + 1 steps before it.
    """

    carried = ("keys", "values", "length", "here")

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.places = settings.attend + 1
        query = weights.transposed("query.weight", hidden, hidden) * np.float32(hidden**-0.5)
        key_value = weights.transposed("key_value.weight", 2 * hidden, hidden)
        self.weight = np.concatenate([query, key_value], axis=1)  # (H, 3H)
        bias = weights("distance_bias", 1, self.places)[0]
        self.bias = np.tile(bias[::-1], 2)  # farthest first, twice: rotated like the ring buffer

    def reset(self, streams: int) -> None:
        """An empty ring buffer."""
        self.keys, self.values = np.zeros((2, streams, self.places, self.hidden), np.float32)
        self.length = np.zeros(streams, np.int64)  # outputs of the document in the buffer
        self.here = np.zeros(streams, np.int64)  # where the next output goes; the same for all

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        H, N, here = self.hidden, self.places, int(self.here[0])
        product = np.dot(prepared, self.weight)  # (K, 3H)
        self.keys[:, here], self.values[:, here] = product[:, H : 2 * H], product[:, 2 * H :]
        self.length[is_start] = 0
        np.minimum(self.length + 1, N, out=self.length)
        scores = (self.keys @ product[:, :H, None])[:, :, 0]  # (K, N)
        scores += self.bias[N - 1 - here : 2 * N - 1 - here]
        if self.length.min() < N:
            ago = (here - np.arange(N)) % N
            scores[ago >= self.length[:, None]] = -np.inf
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(1, keepdims=True)
        mean: Floats32 = (scores[:, None] @ self.values)[:, 0]  # (K, H)
        self.here[:] = (here + 1) % N
        return prepared + mean


class LSTM(Recurrent):
    """Long short-term memory."""

    name = "lstm"
    required_settings = (*Recurrent.required_settings, "peepholes", "coupled", "forget", "attend")
    kind = LSTMLayer

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> list[Layer]:
        """The layers, and after them the attention head."""
        layers = super().stack(weights, inputs, hidden, settings)
        if settings.attend:
            part = weights.part(f"layers.{len(layers)}.")
            layers.append(OutputAttention(part, hidden, hidden, settings))
        return layers


Member = LSTM
