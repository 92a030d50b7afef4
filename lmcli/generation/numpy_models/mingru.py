"""Minimal GRU, one token at a time; equations in models/mingru.py."""

from __future__ import annotations

from lmcli.generation.numpy_models.base import Floats32
from lmcli.generation.numpy_models.minimal import MinimalLayer, sigmoid
from lmcli.generation.numpy_models.recurrent import Recurrent


class MinGRULayer(MinimalLayer):
    """Gates in the order z, n."""

    gates = 2

    def gate_values(self, total: Floats32) -> tuple[Floats32, Floats32]:
        """1 - z, and z * n."""
        z, n = total[:, : self.hidden], total[:, self.hidden :]
        return sigmoid(-z), sigmoid(z) * n


class MinGRU(Recurrent):
    """Minimal gated recurrent unit."""

    name = "mingru"
    kind = MinGRULayer


Member = MinGRU
