"""Several models read the same text; the next token is drawn from their mean probabilities.

**In:** NumPy models, or torch models in their adapter, over one vocabulary; weights by the length
of the context that an n-gram model among them has found.
**Out:** a NumPy model. An `excluded` id has no share in any member's probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcli.generation.numpy_models.base import (
    Floats,
    NumpyModel,
    TorchAdapter,
    open_numpy_model,
)
from lmcli.generation.numpy_models.ngram import NGram

if TYPE_CHECKING:
    from lmcli.run import Run


@dataclass(frozen=True)
class Mixed:
    """Runs that share a tokenizer, the first of which gives the prompt's warnings; their weights.

    Shapes: weights (lengths, M).
    """

    runs: Sequence[Run]
    weights: Floats
    excluded: int | None = None

    def open(self) -> MixedModel:
        """One model; members without a NumPy model are read by torch."""
        members = [open_numpy_model(run) or TorchAdapter(run.model()) for run in self.runs]
        return MixedModel(members, self.weights, self.excluded)


class MixedModel(NumpyModel):
    """The weighted mean of the members. Shapes: weights (lengths, M)."""

    def __init__(
        self, members: Sequence[NumpyModel], weights: Floats, excluded: int | None = None
    ) -> None:
        self.members, self.weights, self.excluded = members, weights, excluded
        self._counted = next((m for m in members if isinstance(m, NGram)), None)

    def reset(self, streams: int) -> None:
        for member in self.members:
            member.reset(streams)

    def read(self, tokens: Sequence[int]) -> None:
        for member in self.members:
            member.read(tokens)

    def read_all(self, tokens: Sequence[int]) -> None:
        for member in self.members:
            member.read_all(tokens)

    def select(self, streams: Sequence[int]) -> None:
        for member in self.members:
            member.select(streams)

    def snapshot(self) -> list[Any]:
        return [member.snapshot() for member in self.members]

    def restore(self, snapshot: Sequence[Any]) -> None:
        for member, own in zip(self.members, snapshot, strict=True):
            member.restore(own)

    def logits(self) -> Floats:
        logs = np.stack([self._log_probabilities(member) for member in self.members])  # (M, K, V)
        found = np.zeros(logs.shape[1], np.intp)
        if self._counted is not None:
            found = (self._counted.ranks >= 0).sum(1)
        weights = self.weights[np.minimum(found, len(self.weights) - 1)]  # (K, M)
        with np.errstate(divide="ignore"):
            mixed: Floats = np.logaddexp.reduce(logs + np.log(weights.T)[:, :, None], axis=0)
        return mixed

    def _log_probabilities(self, member: NumpyModel) -> Floats:
        logits = member.logits()
        if self.excluded is not None:
            logits[:, self.excluded] = -np.inf
        logits -= logits.max(1, keepdims=True)
        logs: Floats = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return logs
