"""What mingru and minlstm share: a layer whose gates read the input only, so it needs no loop.

**In:** x (T, B, E), the state h (B, H) before it, where documents start.
**Out:** h (T, B, H), state.

    a_t, b_t = gates and candidate of u_t alone          the member's own equations
    h_t = a_t * h_{t-1} + b_t                            all steps at once (linear_scan.py)

u_t is LayerNorm(x_t), and what follows h_t is the rest of a residual block (block.py): such a cell
has one unless `block=false`, where u_t is x_t.

Feng, Tung, Ahmed, Bengio and Hajimirsadeghi (2024), "Were RNNs all we needed?". Such a gate reads
one token only, so a second layer is needed to write "France" after "in" but not after "from": hence
two layers or more, with a residual path. The candidate is the paper's plain linear map. Its
positive variant serves a scan of logarithms, which linear_scan.py does without, and learnt worse
(mingru on data/france.txt, 1,500 steps, `chrono=128`, right after 100 words: 59 %, linear 99 %).
Gates begin without a bias, as those of the other members do: with `chrono=128` mingru was right
after 100 words in 46 %, without in 100 % (the same text, 1,200 steps, medians of 3 seeds). At a
document's start a_t = 0.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import State
from lmcli.models.layers.linear_scan import linear_scan
from lmcli.models.layers.recurrent import BLOCK_ABOUT, CHRONO_ABOUT, Layer, RecurrentSettings
from lmcli.settings import setting


@dataclass(frozen=True)
class MinimalSettings(RecurrentSettings):
    """Settings of the recurrences without recurrent weights."""

    layers: int = setting(2, "number of layers L", least=1, most=1000)
    block: bool = setting(True, BLOCK_ABOUT)
    chrono: float | None = setting(None, CHRONO_ABOUT, least=3, most=1e9, unset="none")


class MinimalLayer(Layer):
    """Gates and scan."""

    def __init__(self, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__(inputs, hidden, settings)
        del self.recurrent_weight  # the gates do not read the past
        nn.init.uniform_(self.input_weight, -((3 / inputs) ** 0.5), (3 / inputs) ** 0.5)

    @abc.abstractmethod
    def gate_values(self, total: Tensor) -> dict[str, Tensor]:
        """Gates and candidate by name; at least `keep` a, `write` and `candidate`, b = w * c.

        Shapes: total (..., G H) with G gates -> each (..., H).
        """

    def scan(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps at once."""
        total = F.linear(x, self.input_weight, self.bias)  # (T, B, G H)
        gates = self.gate_values(total.to(state[0].dtype))
        keep = gates["keep"]
        if is_start.any():
            keep = keep.masked_fill(is_start.unsqueeze(-1), 0.0)
        added = gates["write"] * gates["candidate"]
        h = linear_scan(keep, added, state[0])
        return h, (h[-1],)

    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        values = self.gate_values(x @ self.input_weight.t() + self.bias)
        values["keep"] = values["keep"].masked_fill(is_start.unsqueeze(-1), 0.0)
        h = values["keep"] * state[0] + values["write"] * values["candidate"]
        return values | {"hidden": h}, (h,)
