"""Long short-term memory: a cell that gates write, keep and read.

**In:** tokens (B, T); state per layer: hidden h and cell c, both (B, H).
**Out:** logits (B, T, V), state.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)     input gate: how much is written
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)     forget gate: the share that stays
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)        candidate: what is written
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)     output gate: how much is read
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

Hochreiter and Schmidhuber (1997); forget gate: Gers, Schmidhuber and Cummins (2000); a forget
bias of 1 so that a new cell keeps what it holds: Jozefowicz, Zaremba and Sutskever (2015). At a
document's start the output is h_t with h_{t-1} = c_{t-1} = 0, so that the first token of a document
is predicted like any other; the state after it is h = c = 0, independent of the past.

Variants, each a setting: `peepholes`, the gates see the cell: + p_i * c_{t-1} in i, + p_f * c_{t-1}
in f, + p_o * c_t in o (Gers and Schmidhuber 2000). `coupled`: f_t = 1 - i_t (Greff et al. 2017).
`forget=false`: f_t = 1, the cell of 1997. `attend=N`: layers/local_attention.py. `chrono`:
biases for memories of all lengths up to a given one (Tallec and Ollivier 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.errors import UsageError
from lmcli.models.base import ActivationRecorder, State, chrono_init_
from lmcli.models.layers.local_attention import OutputAttention
from lmcli.models.layers.recurrent import (
    CHRONO_ABOUT,
    Layer,
    Recurrent,
    RecurrentWeightSettings,
    forget,
)
from lmcli.models.layers.recurrent_kernels import lstm_scan
from lmcli.settings import setting

FEW_ROWS = 8


@dataclass(frozen=True)
class LSTMSettings(RecurrentWeightSettings):
    """Settings of the LSTM."""

    forget_bias: float = setting(1.0, "initial bias of the forget gate", least=-20, most=20)
    chrono: float | None = setting(None, CHRONO_ABOUT, least=3, most=1e9, unset="none")
    peepholes: bool = setting(False, "the gates also read the cell")
    coupled: bool = setting(False, "one gate to write and keep: f = 1 - i")
    forget: bool = setting(True, "have a forget gate; false is the cell of 1997")
    attend: int = setting(
        0, "one attention head over this many outputs before the present one", least=0, most=4096
    )


class LSTMLayer(Layer):
    """Gates in the order i, f, g, o, as in torch's fused kernel; i, g, o without f."""

    gates = 4
    parts = 2
    no_bias: Tensor
    recurrent_peepholes: Tensor | None

    def __init__(self, inputs: int, hidden: int, settings: LSTMSettings) -> None:
        super().__init__(inputs, hidden, settings)
        self.forget_mode = "coupled" if settings.coupled else "gate" if settings.forget else "all"
        self._set_biases(settings)
        if self.forget_mode != "gate":
            for name, parameter in list(self.named_parameters(recurse=False)):
                i, _, *rest = parameter.data.chunk(4)
                setattr(self, name, nn.Parameter(torch.cat([i, *rest])))
        count = len(self.bias) // hidden - 1  # all gates but g
        peepholes = nn.Parameter(torch.zeros(count, hidden)) if settings.peepholes else None
        self.register_parameter("recurrent_peepholes", peepholes)  # (2 or 3, H): i, (f,) o
        self.register_buffer("no_bias", torch.zeros(4 * hidden), persistent=False)

    def _set_biases(self, settings: LSTMSettings) -> None:
        """Of i and f; where i also decides what is kept, it gets the negative of f's."""
        i, f = self.bias.data.chunk(4)[:2]
        f.fill_(settings.forget_bias)
        if self.forget_mode == "coupled":
            i.fill_(-settings.forget_bias)
        chrono_init_(f, settings.chrono, i)

    @property
    def plain(self) -> bool:
        """Whether torch's fused kernel can do it."""
        return self.forget_mode == "gate" and not self.settings.peepholes

    def scan(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """The fastest kernel for this variant."""
        read = self._fused if self.plain else self._scanned
        y, after = read(x, is_start, state)
        if is_start.any():
            places = is_start.nonzero(as_tuple=True)
            y = y.index_put(places, self._first(x[places]).to(y.dtype))
        return y, after

    def _first(self, x: Tensor) -> Tensor:
        """h after one step from h = c = 0. Shapes: (n, E) -> (n, H)."""
        total = F.linear(x, self.input_weight, self.bias)
        i, *_, g, o = total.chunk(total.shape[-1] // self.hidden, dim=-1)
        c = i.sigmoid() * g.tanh()
        if self.recurrent_peepholes is not None:
            o = o + self.recurrent_peepholes[-1] * c
        h: Tensor = o.sigmoid() * c.tanh()
        return h

    def _fused(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """torch's fused LSTM; one more input column, 1 at a document's start, closes i and f."""
        weight: Tensor = self.input_weight
        if is_start.any():
            x = torch.cat([x, is_start.unsqueeze(-1).to(x.dtype)], dim=-1)  # (T, B, E + 1)
            weight = torch.cat([weight, self.closing.unsqueeze(-1)], dim=1)
        weights = [weight, self.dropped_weight(), self.bias, self.no_bias]
        before = [part.unsqueeze(0) for part in state]  # (1, B, H)
        train = self.training and torch.is_grad_enabled()
        y, h, c = torch.lstm(x, before, weights, True, 1, 0.0, train, False, False)
        return y, (h[0], c[0])

    def _scanned(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """`LSTMScan`, on every device."""
        inputs = F.linear(x, self.input_weight, self.bias).to(state[0].dtype)  # (T, B, 4H or 3H)
        stay = (~is_start).unsqueeze(-1).to(inputs.dtype) if is_start.any() else None
        bf16 = torch.is_autocast_enabled(x.device.type)
        peepholes = self.recurrent_peepholes
        y, c = lstm_scan(
            inputs, *state, self.dropped_weight(), peepholes, stay, self.forget_mode, bf16
        )
        return y, (y[-1], c)

    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        h, c = (forget(part, is_start) for part in state)
        total = x @ self.input_weight.t() + h @ self.recurrent_weight.t() + self.bias
        i, *between, g, o = total.chunk(total.shape[-1] // self.hidden, dim=-1)  # (B, H) each
        peepholes = self.recurrent_peepholes
        if peepholes is not None:
            i = i + peepholes[0] * c
            between = [f + peepholes[1] * c for f in between]
        i, g = i.sigmoid(), g.tanh()
        values = {"input": i}
        if self.forget_mode != "all":
            values["forget"] = between[0].sigmoid() if between else 1 - i
        c = values.get("forget", 1.0) * c + i * g
        o = (o if peepholes is None else o + peepholes[-1] * c).sigmoid()
        h = o * c.tanh()
        values |= {"candidate": g, "output": o, "cell": c, "hidden": h}
        return values, (forget(h, is_start), forget(c, is_start))


class LSTM(Recurrent):
    """Long short-term memory."""

    name = "lstm"
    Settings = LSTMSettings
    learning_rate = 1.2e-2
    decay_timescale = 3.5
    Layer = LSTMLayer

    def __init__(self, vocabulary: int, settings: Any) -> None:
        if settings.coupled and not settings.forget:
            problem = "coupled=true needs a forget gate, forget=false removes it"
            raise UsageError(problem, "leave one of them out")
        super().__init__(vocabulary, settings)
        if settings.attend:
            self.layers.append(OutputAttention(self.hidden, settings.attend))

    def initial_state(self, batch: int) -> State:
        """All zeros, and no outputs to attend to."""
        state, last = super().initial_state(batch), self.layers[-1]
        if isinstance(last, OutputAttention):
            return (*state[:-2], *last.initial_state(batch))
        return state

    @property
    def state_size(self) -> int:
        """h and c of each layer, and the outputs that the head attends to."""
        attended: int = self.settings.attend * self.hidden
        return super().state_size + attended

    @property
    def scoring_rows(self) -> int:
        """Few where torch's fused kernel runs on a CPU, which is hardly faster with more.

        A cell can keep something for tens of thousands of tokens; then rows are read many times.
        """
        layer = self.layers[0]
        fused = layer.plain and layer.recurrent_weight.device.type == "cpu"
        return FEW_ROWS if fused else super().scoring_rows

    def retention(self, recorder: ActivationRecorder) -> Tensor | None:
        """The forget gate, or 1 - i; None in the cell of 1997, which keeps all."""
        return recorder.across_layers("forget") if self.settings.forget else None

    def flops_per_token(self) -> int:
        """Two per weight of a matrix product, and two per key and value of the head."""
        attention: int = 4 * self.settings.attend * self.hidden
        return super().flops_per_token() + attention


Member = LSTM
