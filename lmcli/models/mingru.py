"""Minimal GRU: one gate, computed from the input alone, trades the past for the new.

**In:** tokens (B, T); state per layer: hidden h (B, H).
**Out:** logits (B, T, V), state.

    z_t = sigmoid(W_z u_t + b_z)          write gate (1 = write, the other way round than gru's z)
    n_t = W_n u_t + b_n                   candidate
    h_t = (1 - z_t) * h_{t-1} + z_t * n_t

u_t: layers/minimal.py. Feng et al. (2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lmcli.models.base import chrono_init_
from lmcli.models.layers.minimal import MinimalLayer, MinimalSettings
from lmcli.models.layers.recurrent import Recurrent
from lmcli.settings import setting


@dataclass(frozen=True)
class MinGRUSettings(MinimalSettings):
    """Settings of the minimal GRU."""

    write_bias: float = setting(0.0, "initial bias of the write gate", least=-20, most=20)


class MinGRULayer(MinimalLayer):
    """Gates in the order z, n."""

    gates = 2

    def __init__(self, inputs: int, hidden: int, settings: MinGRUSettings) -> None:
        super().__init__(inputs, hidden, settings)
        self.bias.data[:hidden] = settings.write_bias
        write_bias = self.bias.data[:hidden]
        chrono_init_(write_bias, settings.chrono, write_bias)

    def gate_values(self, total: Tensor) -> dict[str, Tensor]:
        """Write, keep and candidate."""
        z, n = total.chunk(2, dim=-1)
        return {"write": z.sigmoid(), "keep": (-z).sigmoid(), "candidate": n}


class MinGRU(Recurrent):
    """Minimal gated recurrent unit."""

    name = "mingru"
    Settings = MinGRUSettings
    Layer = MinGRULayer
    keep_gate = "keep"


Member = MinGRU
