"""Elman's simple recurrent network: the whole state is rewritten at every step.

**In:** tokens (B, T); state per layer: hidden h (B, H).
**Out:** logits (B, T, V), state.

    h_t = f(W x_t + U h_{t-1} + b)      f = tanh or relu

Elman (1990). U begins orthogonal for tanh and as the identity for relu (Le, Jaitly and Hinton
2015), so that a new network neither shrinks nor grows what it holds. At a document's start
h_{t-1} = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lmcli.models.base import State, draw
from lmcli.models.layers.recurrent import Layer, Recurrent, RecurrentWeightSettings, forget
from lmcli.models.layers.recurrent_kernels import elman_scan
from lmcli.settings import setting


@dataclass(frozen=True)
class RNNSettings(RecurrentWeightSettings):
    """Settings of the simple RNN."""

    activation: Literal["tanh", "relu"] = setting("tanh", "the function f")


class RNNLayer(Layer):
    """One product, one activation."""

    gates = 1

    def __init__(self, inputs: int, hidden: int, settings: RNNSettings) -> None:
        super().__init__(inputs, hidden, settings)
        if settings.activation == "relu":
            nn.init.eye_(self.recurrent_weight)
            draw(self.input_weight, 0.1 * inputs**-0.5)

    def scan(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """`ElmanScan` on every device."""
        keep = (~is_start).unsqueeze(-1).to(state[0].dtype) if is_start.any() else None
        bf16 = torch.is_autocast_enabled(x.device.type)
        activation = self.settings.activation
        weights = self.input_weight, self.dropped_weight(), self.bias
        y = elman_scan(x, state[0], *weights, keep, activation, bf16)
        return y, (y[-1].to(state[0].dtype),)

    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        h = forget(state[0], is_start)
        total = x @ self.input_weight.t() + h @ self.recurrent_weight.t() + self.bias
        h = total.tanh() if self.settings.activation == "tanh" else total.relu()
        return {"hidden": h}, (h,)


class RNN(Recurrent):
    """Simple recurrent network."""

    name = "rnn"
    Settings = RNNSettings
    learning_rate = 3e-3
    Layer = RNNLayer


Member = RNN
