"""Minimal GRU: one gate that trades the past for the new, seen from the input alone.

**In:** tokens (B, T); state per layer: hidden h (B, H).
**Out:** logits (B, T, V), state.

    z_t = sigmoid(W_z u_t + b_z)          write gate (1 = write, the other way round than gru's z)
    n_t = W_n u_t + b_n                   candidate
    h_t = (1 - z_t) * h_{t-1} + z_t * n_t

u_t and what is done with h_t: see minimal.py. Feng et al. (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lmcli.models.base import ActivationRecorder, chrono_init_
from lmcli.models.layers.minimal import MinimalLayer, MinimalSettings
from lmcli.models.layers.recurrent import Recurrent
from lmcli.settings import setting


@dataclass(frozen=True)
class MinGRUSettings(MinimalSettings):
    """Settings of the minimal GRU."""

    write_bias: float = setting(0.0, "bias of the write gate at the beginning", least=-20, most=20)


class MinGRULayer(MinimalLayer):
    """Blocks in the order z, n."""

    blocks = 2

    def __init__(self, inputs: int, hidden: int, settings: MinGRUSettings) -> None:
        super().__init__(inputs, hidden, settings)
        self.bias.data[:hidden] = settings.write_bias
        if settings.chrono is not None:
            half = (hidden + 1) // 2
            biases = self.bias.data[:half]
            chrono_init_(biases, settings.chrono, biases)

    def gates(self, total: Tensor) -> dict[str, Tensor]:
        """Write, keep and candidate."""
        z, n = total.chunk(2, dim=-1)
        return {"write": z.sigmoid(), "keep": (-z).sigmoid(), "candidate": n}


class MinGRU(Recurrent):
    """Minimal gated recurrent unit."""

    name = "mingru"
    Settings = MinGRUSettings
    Layer = MinGRULayer

    def retention(self, tap: ActivationRecorder) -> Tensor | None:
        """1 - z_t, the share of the past that is kept."""
        return tap.across_layers("keep")


Member = MinGRU
