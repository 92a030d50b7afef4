"""Long short-term memory with all its variants, one token at a time; see models/lstm.py.

The gates stand in the order o, i, f, g with the cell behind them in the same array, so that
i * g and f * c are one product and their sum the new cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Reals, Weights
from lmcli.generation.numpy_models.local_attention import LookBack
from lmcli.generation.numpy_models.recurrent import Gated, Layer, Recurrent

MANY = 8
"""streams from which on U h is computed as (U h)^T, whose sides suit the product's kernels more"""


class LSTMLayer(Gated):
    """One LSTM layer."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.coupled, self.forget = settings.coupled, settings.forget and not settings.coupled
        self.seen: Reals | None = None
        if settings.peepholes:  # saved as i, (f,) o; halved, as they lead into sigmoids
            seen = weights("recurrent_peepholes", 3 if self.forget else 2, hidden)
            self.seen = np.multiply(seen, np.float32(0.5))

    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """Saved as i, f, g, o or i, g, o; here o, i, (f,) g, all but g sigmoids."""
        return ((3, 0, 1, 2), 3) if settings.forget and not settings.coupled else ((2, 0, 1), 2)

    def begin(self, streams: int) -> None:
        """h = c = 0; the blocks of the array by name."""
        super().begin(streams)
        H, blocks = self.hidden, self.total.shape[1] // self.hidden
        whole = np.zeros((streams, (blocks + 1) * H), np.float32)  # o, i, (f,) g, c
        self.gates, self.sigmoids = whole[:, : blocks * H], whole[:, : (blocks - 1) * H]
        self.output, self.early = whole[:, :H], whole[:, H : (blocks - 1) * H]  # early: i, (f)
        self.behind = whole[:, H : blocks * H]  # i, (f,) g
        self.i, self.g, self.c = whole[:, H : 2 * H], whole[:, -2 * H : -H], whole[:, -H:]
        self.written = whole[:, -2 * H :]  # g, c
        self.pair = np.empty((streams, 2 * H), np.float32)
        self.shown = np.empty((streams, H), np.float32)
        self.many = streams >= MANY
        if self.many:
            self.room = np.empty((self.recurrent.shape[1], streams), np.float32)

    @cached_property
    def turned(self) -> Reals:
        """U as it was saved: (GH, H)."""
        return np.ascontiguousarray(self.recurrent.T)

    def state(self) -> list[np.ndarray[Any, Any]]:
        """Hidden vector and cell."""
        return [self.h, self.c]

    def step(self, prepared: Reals, is_start: list[int]) -> Reals:
        """One step; where a document begins it is the first, and h = c = 0 is left behind."""
        if is_start:
            self._forget(is_start)
        np.add(self._recurrent_part(), prepared, out=self.gates)
        if self.seen is None:
            np.tanh(self.gates, out=self.gates)
            _to_sigmoid(self.sigmoids)
        else:
            self._see_cell(self.seen[:-1])
            np.tanh(self.behind, out=self.behind)
            _to_sigmoid(self.early)
        self._write()
        if self.seen is not None:
            self.output += self.seen[-1] * self.c
            np.tanh(self.output, out=self.output)
            _to_sigmoid(self.output)
        np.tanh(self.c, out=self.shown)
        np.multiply(self.output, self.shown, out=self.h)
        if not is_start:
            return self.h
        shown = self.h.copy()
        self._forget(is_start)
        return shown

    def _forget(self, streams: list[int]) -> None:
        """h = c = 0."""
        self.c[streams] = 0
        self.h[streams] = 0

    def _recurrent_part(self) -> Reals:
        """U h. Shapes: -> (K, GH)."""
        if not self.many:
            return np.dot(self.h, self.recurrent, out=self.total)
        return np.dot(self.turned, self.h.T, out=self.room).T

    def _see_cell(self, seen: Reals) -> None:
        """The peepholes of i and f."""
        for number, weight in enumerate(seen):
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


def _to_sigmoid(tanh: Reals) -> None:
    """tanh(x / 2) -> sigmoid(x), in place."""
    np.multiply(tanh, 0.5, out=tanh)
    np.add(tanh, 0.5, out=tanh)


class LSTM(Recurrent):
    """Long short-term memory."""

    name = "lstm"
    needs = (*Recurrent.needs, "peepholes", "coupled", "forget", "attend")
    kind = LSTMLayer

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> Iterable[Layer]:
        """The layers, and behind them the head that looks back."""
        layers = list(super().stack(weights, inputs, hidden, settings))
        if settings.attend:
            part = weights.part(f"layers.{len(layers)}.")
            layers.append(LookBack(part, hidden, hidden, settings))
        return layers


Member = LSTM
