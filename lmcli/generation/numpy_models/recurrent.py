"""What all recurrent steppers share: embedding, a stack of layers, output layer.

**In:** tensors as models/recurrent.py names them.
**Out:** logits (K, V).

What a layer makes of its input alone (`prepare`) is known for the first layer before anything is
read: a table with a row for each token takes the place of a matrix product, unless it is too big.
Sigmoids are taken as sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, with the first half in the weights, so
that all gates of a step go through one tanh.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from lmcli.generation.numpy_models import base
from lmcli.generation.numpy_models.base import Array, ArrayModel, Logits, Reals, Rows, Weights
from lmcli.generation.numpy_models.softmax import embedding_table, output_layer

SHUT = -60.0
"""As the input of a halved sigmoid: tanh(-60) = -1 exactly, and the gate is 0."""


class Layer(abc.ABC):
    """One recurrent layer of K streams."""

    def __init__(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> None:
        self.hidden = hidden

    @abc.abstractmethod
    def prepare(self, x: Reals) -> Reals:
        """All that depends on the layer's input alone. Shapes: (n, inputs) -> (n, columns)."""

    @abc.abstractmethod
    def begin(self, streams: int) -> None:
        """State and scratch arrays for new streams."""

    @abc.abstractmethod
    def state(self) -> list[Array]:
        """All that is carried from step to step, with the streams on axis 0."""

    @abc.abstractmethod
    def step(self, prepared: Reals, is_start: list[int]) -> Reals:
        """One step; the streams in `is_start` begin a document. Shapes: (K, columns) -> (K, H)."""


class Gated(Layer):
    """A layer with W x + b and U h, whose blocks are put in the order that suits a step.

    A member says by `order` which saved block stands where, and how many of the first in that
    order are sigmoids.
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

    def _arranged(self, weight: Reals) -> Reals:
        return np.ascontiguousarray((weight[self.places] * self.scale[:, None]).T)

    @abc.abstractmethod
    def order(self, settings: Any) -> tuple[Sequence[int], int]:
        """Saved blocks in the order wanted; how many of them, from the first, are sigmoids."""

    def prepare(self, x: Reals) -> Reals:
        """W x + b."""
        prepared: Reals = np.dot(x, self.weight)
        prepared += self.bias
        return prepared

    def begin(self, streams: int) -> None:
        """h = 0, and room for U h."""
        self.h = np.zeros((streams, self.hidden), np.float32)
        self.total = np.empty((streams, self.recurrent.shape[1]), np.float32)

    def state(self) -> list[Array]:
        """The hidden vector."""
        return [self.h]


class Recurrent(ArrayModel):
    """Embedding, L recurrent layers, output layer."""

    kind: ClassVar[type[Layer]]
    needs: ClassVar[tuple[str, ...]] = ("layers", "tie")

    def __init__(self, vocabulary: int, settings: Any, tensors: Mapping[str, Array]) -> None:
        weights = Weights(tensors)
        self.start_id = vocabulary
        embed = embedding_table(weights, vocabulary)
        tied = embed[:vocabulary] if settings.tie else None
        self.output = output_layer(weights, vocabulary, tied=tied)
        hidden = self.output.hidden
        self.layers = list(self.stack(weights, embed.shape[1], hidden, settings))
        columns = self.layers[0].prepare(embed[:1]).shape[1]
        self.known = len(embed) * columns <= base.TABLE
        self.rows = Rows(self.layers[0].prepare(embed) if self.known else embed)

    def stack(self, weights: Weights, inputs: int, hidden: int, settings: Any) -> Iterable[Layer]:
        """The layers, from the first to the last."""
        for number in range(settings.layers):
            part = weights.part(f"layers.{number}.")
            yield self.kind(part, hidden if number else inputs, hidden, settings)

    def begin(self, streams: int) -> None:
        """Turn to `streams` new streams, of which nothing has been read."""
        self.rows.begin(streams)
        self.output.begin(streams)
        for layer in self.layers:
            layer.begin(streams)
        self.shown = np.zeros((streams, self.output.hidden), np.float32)

    def state(self) -> list[Array]:
        """The layers' state, and what the last one has shown."""
        return [self.shown, *(part for layer in self.layers for part in layer.state())]

    def read(self, tokens: Sequence[int]) -> None:
        """Read the next token of every stream."""
        start = self.start_id
        is_start = (
            [i for i, token in enumerate(tokens) if token == start] if start in tokens else []
        )
        x = self.rows(tokens)
        known = self.known
        for layer in self.layers:
            x = layer.step(x if known else layer.prepare(x), is_start)
            known = False
        self.shown = x

    def logits(self) -> Logits:
        """What comes behind the tokens read last."""
        return self.output(self.shown)
