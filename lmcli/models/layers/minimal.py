"""What mingru and minlstm share: a layer whose gates see the input only, and hence need no loop.

**In:** x (T, B, E), the state h (B, H) before it, where documents start.
**Out:** what the layer passes on (T, B, H), state.

    u_t = LayerNorm(x_t)
    a_t, b_t = gates and candidate of u_t alone          the member's own equations
    h_t = a_t * h_{t-1} + b_t                            all steps at once (linear_scan.py)
    y_t = x_t + O h_t                                    only O h_t where E is not H
    x'_t = y_t + W_2 gelu(W_1 LayerNorm(y_t) + c_1) + c_2

Feng, Tung, Ahmed, Bengio and Hajimirsadeghi (2024), "Were RNNs all we needed?". Such a gate knows
one token only, so it takes a second layer to write "France" behind "in" and not behind "from":
hence two layers or more, with a residual path. The candidate is the paper's plain one, a linear
map: their positive one is there for a scan of logarithms, which linear_scan.py does without, and
learnt worse. Measured once, with mingru on data/france.txt, 1,500 steps, right at a gap of 10 / 100
words: positive candidate and all write gates biased by -1: 7 / 7 %, which is chance; positive and
`chrono=128`: 100 / 59 %; linear and `chrono=128`: 100 / 99 %. At a document's start a_t = 0.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, State, draw
from lmcli.models.layers.linear_scan import LinearScan
from lmcli.models.layers.recurrent import Layer, RecurrentSettings
from lmcli.settings import setting


@dataclass(frozen=True)
class MinimalSettings(RecurrentSettings):
    """Settings of the recurrences without recurrent weights."""

    layers: int = setting(2, "how many layers L", least=1)
    chrono: float | None = setting(
        128.0, "half of the units begin with a memory of 1 to so many steps", least=3, unset="none"
    )


class MinimalLayer(Layer):
    """Gates, scan, a product over the units and a feed-forward net, with a residual path."""

    def __init__(self, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(inputs, hidden, settings)
        del self.recurrent_weight  # the gates do not see the past
        nn.init.uniform_(self.input_weight, -((3 / inputs) ** 0.5), (3 / inputs) ** 0.5)
        self.norm = nn.LayerNorm(inputs)
        self.merge = nn.Linear(hidden, hidden, bias=False)
        self.residual = inputs == hidden
        self.between = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)
        for layer in (self.merge, self.up, self.down):
            draw(layer.weight, layer.in_features**-0.5)
        for layer in (self.up, self.down):
            nn.init.zeros_(layer.bias)

    @abc.abstractmethod
    def gates(self, total: Tensor) -> dict[str, Tensor]:
        """Gates and candidate by name; at least `keep` a, `write` and `candidate`, b = w * c.

        Shapes: total (..., blocks * H) -> each (..., H).
        """

    def forward(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps at once."""
        total = F.linear(self.norm(x), self.input_weight, self.bias)  # (T, B, blocks * H)
        gates = self.gates(total.to(state[0].dtype))
        keep = gates["keep"]
        if is_start.any():
            keep = keep.masked_fill(is_start.unsqueeze(-1), 0.0)
        added = gates["write"] * gates["candidate"]
        h: Tensor = LinearScan.apply(keep, added, state[0])  # type: ignore[no-untyped-call]
        return self.pass_on(x, h), (h[-1],)

    def pass_on(self, x: Tensor, h: Tensor) -> Tensor:
        """What the next layer gets of h. Shapes: (..., E), (..., H) -> (..., H)."""
        y: Tensor = self.merge(h)
        if self.residual:
            y = x + y
        thought: Tensor = self.down(F.gelu(self.up(self.between(y))))
        return y + thought

    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One step by the equations above."""
        values = self.gates(self.norm(x) @ self.input_weight.t() + self.bias)
        values["keep"] = values["keep"].masked_fill(is_start.unsqueeze(-1), 0.0)
        h = values["keep"] * state[0] + values["write"] * values["candidate"]
        return values | {"hidden": h}, (h,)

    def forward_unrolled(
        self, x: Tensor, is_start: Tensor, state: State, tap: ActivationRecorder, prefix: str
    ) -> tuple[Tensor, State]:
        """The same as forward, step by step, showing every gate to `tap`."""
        h = []
        for t in range(len(x)):
            values, state = self.step(x[t], is_start[t], state)
            for name, value in values.items():
                tap(prefix + name, value.unsqueeze(1))
            h.append(state[0])
        return self.pass_on(x, torch.stack(h)), state
