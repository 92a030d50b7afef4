"""One attention head over the last outputs, one token at a time; see models/lookback.py.

Keys and values are computed once and kept in a ring of N + 1 places: the output of now overwrites
the one of N + 1 steps ago, and nothing is moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmcli.generation.numpy_models.base import Array, Reals, Weights
from lmcli.generation.numpy_models.recurrent import Layer


class LookBack(Layer):
    """Stands behind the recurrent layers as one more."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.places = settings.attend + 1
        query = weights.turned("query.weight", hidden, hidden) * np.float32(hidden**-0.5)
        key_value = weights.turned("key_value.weight", 2 * hidden, hidden)
        self.weight = np.concatenate([query, key_value], axis=1)  # (H, 3H)
        bias = weights("distance_bias", 1, self.places)[0]
        self.bias = np.tile(bias[::-1], 2)  # the farthest first, twice: turned as the ring is

    def prepare(self, x: Reals) -> Reals:
        """The outputs as they are."""
        return x

    def begin(self, streams: int) -> None:
        """Nothing in the ring."""
        H, N = self.hidden, self.places
        self.product = np.empty((streams, 3 * H), np.float32)
        self.keys = np.zeros((streams, N, H), np.float32)
        self.values = np.zeros((streams, N, H), np.float32)
        self.length = np.zeros(streams, np.int64)  # outputs of the document that are in the ring
        self.here = np.zeros(streams, np.int64)  # where the output of now goes; the same for all
        self.y = np.empty((streams, H), np.float32)

    def state(self) -> list[Array]:
        """The ring, and how far it is filled."""
        return [self.keys, self.values, self.length, self.here]

    def step(self, prepared: Reals, is_start: list[int]) -> Reals:
        """One step."""
        H, N, here = self.hidden, self.places, int(self.here[0])
        product = np.dot(prepared, self.weight, out=self.product)
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
        found = (scores[:, None] @ self.values)[:, 0]  # (K, H)
        self.here[:] = (here + 1) % N
        return np.add(prepared, found, out=self.y)
