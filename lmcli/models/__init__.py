"""The architectures, one file each: token ids + state -> logits + state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

COUNTS = "ngram."
"""What the names of tensors begin with that hold counts, in weights of a net that has some."""
RENAMED = {".merge.": ".out_proj.", ".between.": ".ffn_norm."}
"""Parts of tensor names in weights that older versions have saved, and what they are now."""


def current_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """Saved tensors under the names that the models have now.

    >>> current_names({"layers.0.merge.weight": 1, "output.bias": 2})
    {'layers.0.out_proj.weight': 1, 'output.bias': 2}
    """
    current = {}
    for name, tensor in tensors.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        current[name] = tensor
    return current
