"""Long short-term memory with all its variants, one token at a time; see models/lstm.py.

The gates are in the order o, i, f, g, followed by the cell in the same array, so that i * g and
f * c are one product, and the new cell is their sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcli.generation.numpy_models.base import Weights
from lmcli.generation.numpy_models.local_attention import OutputAttention
from lmcli.generation.numpy_models.recurrent import Gated, Layer, Recurrent

if TYPE_CHECKING:
    from lmcli.models.base import Floats32

MANY = 8
"""streams from which on U h is computed as (U h)^T, which is the faster product then"""


class LSTMLayer(Gated):
    """One LSTM layer."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.coupled, self.forget = settings.coupled, settings.forget and not settings.coupled
        self.peepholes: Floats32 | None = None
        if settings.peepholes:  # saved as i, (f,) o; halved for the sigmoids
            peepholes = weights("recurrent_peepholes", 3 if self.forget else 2, hidden)
            self.peepholes = np.multiply(peepholes, np.float32(0.5))

    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """Saved as i, f, g, o or i, g, o; here o, i, (f,) g, all but g sigmoids."""
        return ((3, 0, 1, 2), 3) if settings.forget and not settings.coupled else ((2, 0, 1), 2)

    def reset(self, streams: int) -> None:
        """h = c = 0; the blocks of the array by name."""
        super().reset(streams)
        H, blocks = self.hidden, self.total.shape[1] // self.hidden
        whole = np.zeros((streams, (blocks + 1) * H), np.float32)  # o, i, (f,) g, c
        self.gates, self.sigmoids = whole[:, : blocks * H], whole[:, : (blocks - 1) * H]
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

    def state(self) -> list[np.ndarray[Any, Any]]:
        """Hidden vector and cell."""
        return [self.h, self.c]

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; where a document begins it starts from h = c = 0 and ends in h = c = 0."""
        if is_start:
            self._forget(is_start)
        np.add(self._recurrent_part(), prepared, out=self.gates)
        if self.peepholes is None:
            np.tanh(self.gates, out=self.gates)
            _to_sigmoid(self.sigmoids)
        else:
            self._add_peepholes(self.peepholes[:-1])
            np.tanh(self.late, out=self.late)
            _to_sigmoid(self.early)
        self._write()
        if self.peepholes is not None:
            self.output += self.peepholes[-1] * self.c
            np.tanh(self.output, out=self.output)
            _to_sigmoid(self.output)
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

    def _add_peepholes(self, weights: Floats32) -> None:
        """Add the peepholes of i and f."""
        for number, weight in enumerate(weights):
            block = self.early[:, number * self.hidden : (number + 1) * self.hidden]
            block += weight * self.c

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


def _to_sigmoid(tanh: Floats32) -> None:
    """tanh(x / 2) -> sigmoid(x), in place."""
    np.multiply(tanh, 0.5, out=tanh)
    np.add(tanh, 0.5, out=tanh)


class LSTM(Recurrent):
    """Long short-term memory."""

    name = "lstm"
    required_settings = (*Recurrent.required_settings, "peepholes", "coupled", "forget", "attend")
    kind = LSTMLayer

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> Iterable[Layer]:
        """The layers, and after them the attention head."""
        layers = list(super().stack(weights, inputs, hidden, settings))
        if settings.attend:
            part = weights.part(f"layers.{len(layers)}.")
            layers.append(OutputAttention(part, hidden, hidden, settings))
        return layers


Member = LSTM
