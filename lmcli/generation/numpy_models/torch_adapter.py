"""Any torch model with the interface of a NumPy model, for architectures that have none.

**In:** a model; one token per stream and step.
**Out:** logits (K, V).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmcli.arrays import Floats
from lmcli.generation.numpy_models.base import NumpyModel

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

CHUNK = 512
"""Tokens of a long prompt that are read together."""


class TorchAdapter(NumpyModel):
    """One call of the model per token."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def reset(self, streams: int) -> None:
        self._state = self.model.initial_state(streams)

    def read(self, tokens: Sequence[int]) -> None:
        self._read([[token] for token in tokens])

    def read_all(self, tokens: Sequence[int]) -> None:
        for begin in range(0, len(tokens), CHUNK):
            self._read([list(tokens[begin : begin + CHUNK])])

    def _read(self, tokens: list[list[int]]) -> None:
        import torch

        with torch.inference_mode():
            read = torch.tensor(tokens)
            self._logits, self._state = self.model.last_logits(read, self._state)

    def logits(self) -> Floats:
        return self._logits.numpy().astype(np.float64)

    def select(self, streams: Sequence[int]) -> None:
        chosen = list(streams)
        self._state = tuple(part[chosen] for part in self._state)
        self._logits = self._logits[chosen]
