"""What all recurrent NumPy models share: embedding, a stack of layers, output layer.

**In:** tensors with the names of models/layers/recurrent.py.
**Out:** logits (K, V).

The part of the first layer that depends on its input alone (`prepare`) is computed in advance: a
table with one row per token replaces a matrix product, unless it is too large. A sigmoid is
computed as tanh(x / 2) / 2 + 1 / 2, with the halving of x in the weights, so that one tanh serves
all gates of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from lmcli.generation.numpy_models import base
from lmcli.generation.numpy_models.base import (
    Array,
    ArrayModel,
    Floats,
    Floats32,
    Weights,
)
from lmcli.generation.numpy_models.layer import Layer, layer_of
from lmcli.generation.numpy_models.softmax import embedding_table, output_layer

CLOSED = -60.0
"""As the input of a halved sigmoid: tanh(-60) = -1 exactly, so the gate is 0."""


class Gated(Layer):
    """A layer with W x + b and U h, whose blocks are reordered for the step."""

    order: tuple[int, ...] = (0,)
    """The saved blocks in the order of the step."""
    sigmoids: int = 0
    """How many of the first are sigmoids."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        rows = len(self.order) * hidden
        scale = np.ones((rows, 1), np.float32)
        scale[: self.sigmoids * hidden] = 0.5
        places = np.arange(rows).reshape(-1, hidden)[list(self.order)].ravel()
        self.weight, self.recurrent = (  # (E, GH), (H, GH)
            np.ascontiguousarray((weights(name, rows, size)[places] * scale).T)
            for name, size in (("input_weight", inputs), ("recurrent_weight", hidden))
        )
        self.bias = weights("bias", rows)[places] * scale[:, 0]

    def prepare(self, x: Floats32) -> Floats32:
        """W x + b."""
        prepared: Floats32 = np.dot(x, self.weight)
        prepared += self.bias
        return prepared

    def reset(self, streams: int) -> None:
        """h = 0, and scratch space for U h."""
        super().reset(streams)
        self.total = np.empty((streams, self.recurrent.shape[1]), np.float32)


class Recurrent(ArrayModel):
    """Embedding, L recurrent layers, output layer."""

    kind: ClassVar[type[Layer]]
    required_settings: ClassVar[tuple[str, ...]] = ("layers", "tie")

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        weights = Weights(tensors)
        self.start_id = vocabulary
        embed = embedding_table(weights, vocabulary)
        tied = embed[:vocabulary] if settings.tie else None
        self.output = output_layer(weights, vocabulary, tied=tied)
        self.layers = self.stack(weights, embed.shape[1], self.output.hidden, settings)
        columns = self.layers[0].prepare(embed[:1]).shape[1]
        self.tabulated = len(embed) * columns <= base.TABLE
        self.table = self.layers[0].prepare(embed) if self.tabulated else embed

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> list[Layer]:
        """The layers, from the first to the last."""
        sizes = [inputs, *[hidden] * (settings.layers - 1)]
        parts = [weights.part(f"layers.{number}.") for number in range(settings.layers)]
        stacked = zip(parts, sizes, strict=True)
        return [layer_of(self.kind, part, size, hidden, settings) for part, size in stacked]

    def reset(self, streams: int) -> None:
        for layer in self.layers:
            layer.reset(streams)
        self.h = np.zeros((streams, self.output.hidden), np.float32)

    def state(self) -> list[Array]:
        """The layers' state, and the output of the last one."""
        return [self.h, *(part for layer in self.layers for part in layer.state())]

    def read(self, tokens: Sequence[int]) -> None:
        start, table = self.start_id, self.table
        is_start = [i for i, token in enumerate(tokens) if token == start]
        if len(tokens) == 1:  # a view, which is faster
            x = table[tokens[0] : tokens[0] + 1]
        else:
            x = table.take(tokens, axis=0, mode="clip")
        for number, layer in enumerate(self.layers):
            prepared = x if number == 0 and self.tabulated else layer.prepare(x)
            x = layer.step(prepared, is_start)
        self.h = x

    def logits(self) -> Floats:
        return self.output(self.h)


def to_sigmoid(tanh: Floats32) -> Floats32:
    """tanh(x / 2) -> sigmoid(x), in place."""
    np.multiply(tanh, 0.5, out=tanh)
    return np.add(tanh, 0.5, out=tanh)
