"""Several models -> one: the weighted mean of their probabilities.

**In:** the nats of the same tokens under each model; how long a context an n-gram model has found
at each token, where one of them is an n-gram model.
**Out:** a `Mixture`: weights for each such length, fitted by expectation-maximisation; the nats of
tokens, and whole distributions, under it.

    p(w | h) = sum_m weight_m(length(h)) p_m(w | h)

The weights of a length with few tokens lean on those fitted to all: Jelinek & Mercer 1980.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.models.base import LanguageModel
from lmcli.models.ngram.model import NGram

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.integer[Any]]

ITERATIONS = 200
PRIOR = 20.0
"""tokens that the weights fitted to all lengths count for in those of each"""
CLOSE = 1e-7
"""change of a weight at which the fit ends"""


@dataclass(frozen=True)
class Mixture:
    """Weights by the length of the context found; one row where there is no n-gram model."""

    weights: Floats
    """(lengths, M); each row sums to one"""

    @classmethod
    def fit(cls, nats: Floats, lengths: Ids | None = None) -> Mixture:
        """The weights under which the tokens are likeliest. Shapes: nats (M, N), lengths (N,)."""
        whole = _likeliest(nats, None)
        if lengths is None:
            return cls(whole[None])
        rows = [_likeliest(nats[:, lengths == n], whole) for n in range(int(lengths.max()) + 1)]
        return cls(np.stack(rows))

    def rows(self, lengths: Ids | None, tokens: int) -> Floats:
        """The weights at each token. Shapes: -> (N, M)."""
        if lengths is None:
            return np.broadcast_to(self.weights[0], (tokens, self.weights.shape[1]))
        rows: Floats = self.weights[np.minimum(lengths, len(self.weights) - 1)]
        return rows

    def nats(self, nats: Array, lengths: Ids | None = None) -> Floats:
        """-ln p of each token under the mixture. Shapes: (M, N) -> (N,)."""
        given = np.asarray(nats, np.float64)
        return -self.log_probabilities(-given[..., None], lengths)[:, 0]

    def log_probabilities(self, logs: Sequence[Array] | Array, lengths: Ids | None) -> Floats:
        """ln p of all tokens under the mixture. Shapes: (M, N, V) -> (N, V)."""
        given = np.asarray(logs, np.float64)
        with np.errstate(divide="ignore"):
            weights = np.log(self.rows(lengths, given.shape[1]))  # (N, M)
        mixed: Floats = np.logaddexp.reduce(given + weights.T[:, :, None], axis=0)
        return mixed

    def to_json(self) -> list[list[float]]:
        """A list of weights, one a member, for each length from 0 on."""
        return [[float(weight) for weight in row] for row in self.weights]


def _likeliest(nats: Floats, prior: Floats | None) -> Floats:
    """Weights of the members by expectation-maximisation. Shapes: (M, N) -> (M,)."""
    members = len(nats)
    weights = np.full(members, 1 / members) if prior is None else prior
    if not nats.shape[1]:
        return weights
    p = np.exp(nats.min(0) - nats)  # relative to the best member
    added = 0.0 if prior is None else PRIOR * prior
    for _ in range(ITERATIONS):
        shares = weights[:, None] * p
        used = (shares / shares.sum(0)).sum(1) + added
        new = used / used.sum()
        done = np.abs(new - weights).max() < CLOSE
        weights = new
        if done:
            break
    return weights


def found_lengths(model: LanguageModel, ids: Ids) -> Ids | None:
    """How many tokens of context an n-gram model has counted before each id but the first.

    None for other models. Shapes: (N,) -> (N - 1,).
    """
    if not isinstance(model, NGram):
        return None
    lengths = np.zeros(len(ids) - 1, np.int64)
    for ranks in model.table.contexts(ids[None, :-1].astype(np.int64)):
        lengths += ranks[0] >= 0
    return lengths
