"""Embedding and output layer in NumPy.

**In:** tensors with the names of models/layers/softmax.py, for a full or an adaptive softmax.
**Out:** the table of embeddings (V + 1, E); logits (K, V).
"""

from __future__ import annotations

import numpy as np

from lmcli.generation.numpy_models.base import Floats, Floats32, Weights


def embedding_table(weights: Weights, vocabulary: int) -> Floats32:
    """Vectors of all tokens and the start id, narrow ones widened. Shapes: -> (V + 1, E).

    Tensors that do not fit raise a ValueError, here and below.
    """
    tables = weights.numbered("embed.tables.")
    if not tables:
        return weights("embed.weight", vocabulary + 1, None)
    rows = [tables[0]("0.weight", None, None)]
    for table in tables[1:]:
        short = table("0.weight", None, None)
        rows.append(short @ table.transposed("1.weight", rows[0].shape[1], short.shape[1]))
    whole = np.concatenate(rows)
    if len(whole) != vocabulary + 1:
        raise ValueError(f"the tensors embed.tables have {len(whole)} rows")
    return whole


def output_layer(
    weights: Weights, vocabulary: int, hidden: int | None = None, tied: Floats32 | None = None
) -> FullOutput | AdaptiveOutput:
    """The saved layer, for vectors of size `hidden` (None: any size).

    `tied` (V, H) replaces its weights. Shapes: (K, H) -> logits (K, V) in float64.
    """
    clusters = weights.numbered("output.tail.")
    if clusters:
        return AdaptiveOutput(weights.part("output.head."), clusters, vocabulary, hidden)
    weight = weights("output.weight", vocabulary, hidden) if tied is None else tied
    return FullOutput(np.ascontiguousarray(weight.T), weights("output.bias", vocabulary))


class FullOutput:
    """One product."""

    def __init__(self, weight: Floats32, bias: Floats32) -> None:
        self.weight = weight  # (H, V)
        self.hidden = len(weight)
        self.bias = bias.astype(np.float64)

    def __call__(self, hidden: Floats32) -> Floats:
        """h W + b."""
        logits: Floats = np.dot(hidden, self.weight) + self.bias
        return logits


class AdaptiveOutput:
    """Shortlist and clusters; equations in models/layers/softmax.py."""

    def __init__(
        self, head: Weights, clusters: list[Weights], vocabulary: int, hidden: int | None
    ) -> None:
        self.head = head.transposed("weight", None, hidden)  # (H, S + clusters)
        self.hidden, columns = self.head.shape
        self.bias = head("bias", columns).astype(np.float64)
        self.shortlist = columns - len(clusters)
        self.clusters = []
        edge = self.shortlist
        for tail in clusters:
            narrow = tail.transposed("0.weight", None, self.hidden)  # (H, n)
            words = tail.transposed("1.weight", None, narrow.shape[1])  # (n, words)
            self.clusters.append((edge, edge + words.shape[1], narrow, words))
            edge += words.shape[1]
        if edge != vocabulary:
            raise ValueError(f"the tensors output.tail predict {edge} tokens")

    def __call__(self, hidden: Floats32) -> Floats:
        """ln p; the probability of a cluster is shared among its words."""
        head = _normed(hidden @ self.head + self.bias)  # (K, S + clusters)
        logits = np.empty((len(hidden), self.clusters[-1][1]))
        logits[:, : self.shortlist] = head[:, : self.shortlist]
        for number, (low, high, narrow, words) in enumerate(self.clusters, self.shortlist):
            logits[:, low:high] = hidden @ narrow @ words
            _normed(logits[:, low:high])
            logits[:, low:high] += head[:, number, None]
        return logits


def _normed(logits: Floats) -> Floats:
    """Logits as ln p, in place. Shapes: (K, n)."""
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return logits
