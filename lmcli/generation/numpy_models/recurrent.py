"""What all recurrent NumPy models share: embedding, a stack of layers, output layer.

**In:** tensors with the names of models/layers/recurrent.py.
**Out:** logits (K, V).

The part of the first layer that depends on its input alone (`prepare`) is computed in advance: a
table with one row per token replaces a matrix product, unless it is too large. A sigmoid is
computed as tanh(x / 2) / 2 + 1 / 2, with the halving of x in the weights, so that one tanh serves
all gates of a step.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmcli.generation.numpy_models import base
from lmcli.generation.numpy_models.base import ArrayModel, Rows, Weights
from lmcli.generation.numpy_models.softmax import embedding_table, output_layer

if TYPE_CHECKING:
    from lmcli.models.base import Array, Floats, Floats32

CLOSED = -60.0
"""As the input of a halved sigmoid: tanh(-60) = -1 exactly, so the gate is 0."""


class Layer(abc.ABC):
    """One recurrent layer of K streams."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        self.hidden = hidden

    @abc.abstractmethod
    def prepare(self, x: Floats32) -> Floats32:
        """The part that depends on the layer's input alone. Shapes: (n, inputs) -> (n, columns)."""

    @abc.abstractmethod
    def reset(self, streams: int) -> None:
        """State and scratch arrays for new streams."""

    @abc.abstractmethod
    def state(self) -> list[Array]:
        """All arrays carried from step to step, with the streams on axis 0."""

    @abc.abstractmethod
    def step(self, prepared: Floats32, is_start: list[int]) -> Floats32:
        """One step; the streams in `is_start` begin a document. Shapes: (K, columns) -> (K, H)."""


class Gated(Layer):
    """A layer with W x + b and U h, whose blocks are reordered for the step.

    `order` of a member gives the order, and how many of the first blocks are sigmoids.
    """

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(weights, inputs, hidden, settings)
        order, sigmoids = self.order(settings)
        rows = len(order) * hidden
        scale = np.ones((len(order), hidden), np.float32)
        scale[:sigmoids] = 0.5
        places = np.arange(rows).reshape(-1, hidden)[list(order)].ravel()
        self.scale, self.places = scale.ravel(), places
        self.weight = self._arranged(weights("input_weight", rows, inputs))  # (E, GH)
        self.recurrent = self._arranged(weights("recurrent_weight", rows, hidden))  # (H, GH)
        self.bias = weights("bias", rows)[places] * self.scale

    def _arranged(self, weight: Floats32) -> Floats32:
        return np.ascontiguousarray((weight[self.places] * self.scale[:, None]).T)

    @abc.abstractmethod
    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """The saved blocks in the order of the step; how many of the first are sigmoids."""

    def prepare(self, x: Floats32) -> Floats32:
        """W x + b."""
        prepared: Floats32 = np.dot(x, self.weight)
        prepared += self.bias
        return prepared

    def reset(self, streams: int) -> None:
        """h = 0, and scratch space for U h."""
        self.h = np.zeros((streams, self.hidden), np.float32)
        self.total = np.empty((streams, self.recurrent.shape[1]), np.float32)

    def state(self) -> list[Array]:
        """The hidden vector."""
        return [self.h]


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
        hidden = self.output.hidden
        self.layers = list(self.stack(weights, embed.shape[1], hidden, settings))
        columns = self.layers[0].prepare(embed[:1]).shape[1]
        self.tabulated = len(embed) * columns <= base.TABLE
        self.rows = Rows(self.layers[0].prepare(embed) if self.tabulated else embed)

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> Iterable[Layer]:
        """The layers, from the first to the last."""
        for number in range(settings.layers):
            part = weights.part(f"layers.{number}.")
            yield self.kind(part, hidden if number else inputs, hidden, settings)

    def reset(self, streams: int) -> None:
        """Begin `streams` new streams."""
        self.rows.reset(streams)
        self.output.reset(streams)
        for layer in self.layers:
            layer.reset(streams)
        self.h = np.zeros((streams, self.output.hidden), np.float32)

    def state(self) -> list[Array]:
        """The layers' state, and the output of the last one."""
        return [self.h, *(part for layer in self.layers for part in layer.state())]

    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream."""
        start = self.start_id
        is_start = (
            [i for i, token in enumerate(tokens) if token == start] if start in tokens else []
        )
        x = self.rows(tokens)
        tabulated = self.tabulated
        for layer in self.layers:
            x = layer.step(x if tabulated else layer.prepare(x), is_start)
            tabulated = False
        self.h = x

    def logits(self) -> Floats:
        """Logits after the tokens read last."""
        return self.output(self.h)
