"""One attention head over the last outputs; equations in models/layers/local_attention.py.

Keys and values are computed once and stored in a ring buffer of N + 1 places: each output
overwrites the one N + 1 steps before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmcli.generation.numpy_models.base import Weights
from lmcli.generation.numpy_models.recurrent import Layer

if TYPE_CHECKING:
    from lmcli.models.base import Array, Floats32


class OutputAttention(Layer):
    """One more layer after the recurrent ones."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        self.places = settings.attend + 1
        query = weights.transposed("query.weight", hidden, hidden) * np.float32(hidden**-0.5)
        key_value = weights.transposed("key_value.weight", 2 * hidden, hidden)
        self.weight = np.concatenate([query, key_value], axis=1)  # (H, 3H)
        bias = weights("distance_bias", 1, self.places)[0]
        self.bias = np.tile(bias[::-1], 2)  # farthest first, twice: rotated like the ring buffer

    def prepare(self, x: Floats32) -> Floats32:
        """The outputs themselves."""
        return x

    def reset(self, streams: int) -> None:
        """An empty ring buffer."""
        H, N = self.hidden, self.places
        self.product = np.empty((streams, 3 * H), np.float32)
        self.keys = np.zeros((streams, N, H), np.float32)
        self.values = np.zeros((streams, N, H), np.float32)
        self.length = np.zeros(streams, np.int64)  # outputs of the document in the buffer
        self.here = np.zeros(streams, np.int64)  # where the next output goes; the same for all
        self.y = np.empty((streams, H), np.float32)

    def state(self) -> list[Array]:
        """The buffer, and how far it is filled."""
        return [self.keys, self.values, self.length, self.here]

    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
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
        mean = (scores[:, None] @ self.values)[:, 0]  # (K, H)
        self.here[:] = (here + 1) % N
        return np.add(prepared, mean, out=self.y)
