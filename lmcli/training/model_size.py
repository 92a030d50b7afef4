"""How big a model would be: an architecture and its settings -> parameters, floats of state.

The model is made on torch's meta device, whose tensors have shapes and no numbers.
"""

from __future__ import annotations

from typing import Any

import torch

from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS


def state_size(arch: str, settings: Any, vocabulary: int) -> int:
    """Floats of state of one sequence; nothing is allocated."""
    return meta_model(arch, settings, vocabulary).state_size


def size(arch: str, settings: Any, vocabulary: int) -> tuple[int, int]:
    """Parameters of the body and in all; nothing is allocated."""
    model = meta_model(arch, settings, vocabulary)
    return model.body_parameters(), model.parameter_count()


def meta_model(arch: str, settings: Any, vocabulary: int) -> LanguageModel:
    """A model without numbers; nothing is allocated."""
    with torch.device("meta"):
        model: LanguageModel = MODELS.load(arch)(vocabulary, settings)
    return model
