"""Minimal LSTM, one token at a time; equations in models/minlstm.py."""

from __future__ import annotations

import numpy as np

from lmcli.generation.numpy_models.base import Floats32
from lmcli.generation.numpy_models.minimal import MinimalLayer, sigmoid
from lmcli.generation.numpy_models.recurrent import Recurrent


class MinLSTMLayer(MinimalLayer):
    """Gates in the order f, i, n."""

    gates = 3

    def gate_values(self, total: Floats32) -> tuple[Floats32, Floats32]:
        """The share that is kept, and the share written times n."""
        f, i, n = (total[:, b * self.hidden : (b + 1) * self.hidden] for b in range(3))
        log_ratio = np.logaddexp(0, -i) - np.logaddexp(0, -f)  # ln f - ln i
        return sigmoid(log_ratio), sigmoid(-log_ratio) * n


class MinLSTM(Recurrent):
    """Minimal long short-term memory."""

    name = "minlstm"
    kind = MinLSTMLayer


Member = MinLSTM
