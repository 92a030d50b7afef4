"""What all recurrences share: embedding, a stack of recurrent layers, output layer.

**In:** tokens (B, T); state: per layer one tensor (B, H), for lstm two.
**Out:** logits (B, T, V), state. For large vocabularies embedding and output layer may be adaptive
(softmax.py).

A member supplies one `Layer`; with `block` each has a norm before it and a feed-forward net after
it, on a residual path (block.py). Dropout has one mask per chunk and sequence, the same at every
step (Gal and Ghahramani 2016), which is better for language models; recurrent weights are dropped
for a whole chunk as well, which the kernels do not notice (Merity, Keskar and Socher 2018).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lmcli.errors import UsageError
from lmcli.models.base import ActivationRecorder, NeuralLanguageModel, State, draw
from lmcli.models.layers.block import ResidualBlock
from lmcli.models.layers.softmax import ABOUT, AdaptiveOutput, embedding_layer
from lmcli.settings import setting

CLOSED = -60.0
"""Added to a gate's input it closes the gate: sigmoid(-60) = 9e-27."""
CHRONO_ABOUT = "half of the units start with a memory of 1 to this many steps"
BLOCK_ABOUT = "a norm before each layer, a feed-forward net after it, a residual path"


@dataclass(frozen=True)
class RecurrentSettings:
    """Settings of all recurrent architectures; None is chosen from text and budget."""

    hidden: int | None = setting(None, "width H of a layer", least=1, most=1 << 25)
    embedding: int | None = setting(None, "size E of the input embedding", least=1, most=1 << 25)
    layers: int = setting(1, "number of layers L", least=1, most=1000)
    dropout: float | None = setting(
        None, "dropout between layers and on the output", least=0, most=0.9
    )
    input_dropout: float | None = setting(None, "dropout on the embeddings", least=0, most=0.9)
    block: bool = setting(False, BLOCK_ABOUT)
    tie: bool = setting(False, "share embedding and output weights (needs embedding = hidden)")
    softmax: Literal["full", "adaptive"] | None = setting(None, ABOUT)


@dataclass(frozen=True)
class RecurrentWeightSettings(RecurrentSettings):
    """Settings of the architectures that have recurrent weights."""

    weight_drop: float | None = setting(
        None, "dropout of recurrent weights, drawn anew for each chunk", least=0, most=0.9
    )


class Layer(ResidualBlock, abc.ABC):
    """One recurrent layer, in a residual block or without, time first inside.

    `gates` blocks share one matrix product; `parts` tensors make its state. `closing`, added to
    the inputs of all blocks, closes the first two.
    """

    gates: ClassVar[int]
    parts: ClassVar[int] = 1
    closing: Tensor

    def __init__(self, inputs: int, hidden: int, settings: Any) -> None:
        super().__init__()
        self.hidden = hidden
        self.settings = settings
        self.input_weight = nn.Parameter(torch.empty(self.gates * hidden, inputs))
        self.recurrent_weight = nn.Parameter(torch.empty(self.gates * hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(self.gates * hidden))
        nn.init.uniform_(self.input_weight, -(hidden**-0.5), hidden**-0.5)
        for block in self.recurrent_weight.data.chunk(self.gates):
            nn.init.orthogonal_(block)
        closing = torch.zeros(self.gates * hidden)
        closing[: 2 * hidden] = CLOSED
        self.register_buffer("closing", closing, persistent=False)
        if settings.block:
            self.add_block(inputs, hidden)

    def forward(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps; the state is reset before steps with `is_start`.

        Shapes: x (T, B, E), is_start (T, B) bool, state `parts` x (B, H) -> (T, B, H), state.
        """
        h, after = self.scan(self.normed(x), is_start, state)
        return self.output(x, h), after

    @abc.abstractmethod
    def scan(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """The recurrence over all steps, with the fast kernel.

        Shapes: x (T, B, E), is_start (T, B) bool, state `parts` x (B, H) -> (T, B, H), state.
        """

    def dropped_weight(self) -> Tensor:
        """The recurrent weights, in training without a share of them (Merity et al. 2018).

        Shapes: -> (G H, H).
        """
        rate = self.settings.weight_drop or 0.0
        return (
            weight_dropout(self.recurrent_weight, rate) if self.training else self.recurrent_weight
        )

    @abc.abstractmethod
    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One step of the recurrence, with every gate by name.

        Shapes: x (B, E), is_start (B,) bool, state `parts` x (B, H) -> values (B, H), state.
        """

    def forward_unrolled(
        self, x: Tensor, is_start: Tensor, state: State, recorder: ActivationRecorder, prefix: str
    ) -> tuple[Tensor, State]:
        """The same as forward, step by step; every gate is recorded."""
        hidden, read = [], self.normed(x)
        for t in range(len(x)):
            values, state = self.step(read[t], is_start[t], state)
            for name, value in values.items():
                recorder(prefix + name, value.unsqueeze(1))
            hidden.append(values["hidden"])
        return self.output(x, torch.stack(hidden)), state


def forget(state: Tensor, is_start: Tensor) -> Tensor:
    """Zero where `is_start`, the state elsewhere. Shapes: (B, H), (B,) -> (B, H)."""
    return state.masked_fill(is_start.unsqueeze(-1), 0.0)


def locked_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout with the same mask at every step. Shapes: (T, B, H) -> (T, B, H)."""
    if not training or rate == 0.0:
        return x
    mask = torch.empty(1, x.shape[1], x.shape[2], dtype=x.dtype, device=x.device)
    return x * mask.bernoulli_(1 - rate).div_(1 - rate)


def weight_dropout(weight: Tensor, rate: float) -> Tensor:
    """Dropout at the nearest multiple of 1/256 to `rate`, by one random byte an entry.

    On a CPU in a quarter of torch's time: 0.9 ms instead of 3.7 for an LSTM of width 256, an update
    of which takes 14 ms (two cores).
    """
    dropped = round(256 * rate)
    if not dropped:
        return weight
    words = torch.empty(-(-weight.numel() // 8), dtype=torch.int64, device=weight.device)
    draws = words.random_(-(2**63), None).view(torch.uint8)[: weight.numel()]
    kept = (draws >= dropped).view_as(weight).to(weight.dtype)
    return weight * kept.mul_(256 / (256 - dropped))


class Recurrent(NeuralLanguageModel):
    """Embedding, L recurrent layers, output layer."""

    Layer: ClassVar[type[Layer]]
    keep_gate: ClassVar[str | None] = None
    """The recorded gate that says which share of the state a step keeps, if there is one."""

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__(vocabulary, settings)
        hidden, embedding = settings.hidden or 256, settings.embedding or 64
        if settings.tie and hidden != embedding:
            problem = f"tie=true needs embedding = hidden, not {embedding} and {hidden}"
            raise UsageError(problem, f"--set embedding={hidden}")
        self.hidden = hidden
        self.embed = embedding_layer(vocabulary, embedding, settings)
        self.layers = nn.ModuleList(
            self.Layer(hidden if i else embedding, hidden, settings) for i in range(settings.layers)
        )
        adaptive = settings.softmax == "adaptive"
        self.output = (AdaptiveOutput if adaptive else nn.Linear)(hidden, vocabulary)
        if not adaptive:
            nn.init.zeros_(self.output.bias)
        if settings.tie:
            draw(self.embed.get_parameter("weight"), hidden**-0.5)

    def initial_state(self, batch: int) -> State:
        """All zeros."""
        count = self.Layer.parts * len(self.layers)
        like = next(self.parameters())
        return tuple(like.new_zeros(batch, self.hidden) for _ in range(count))

    def hidden_vectors(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """The last layer's output, with time first in memory."""
        rate, parts = self.settings.dropout or 0.0, self.Layer.parts
        tokens = tokens.t()  # (T, B)
        is_start = tokens == self.start_id
        x = self.embed(tokens)  # (T, B, E)
        x = locked_dropout(x, self.settings.input_dropout or 0.0, self.training)
        after: list[Tensor] = []
        for i, layer in enumerate(cast("Iterable[Layer]", self.layers)):
            before = state[i * parts : (i + 1) * parts]
            if recorder is None:
                x, new = layer(x, is_start, before)  # (T, B, H)
            else:
                prefix = f"{i + 1}." if len(self.layers) > 1 else ""
                x, new = layer.forward_unrolled(x, is_start, before, recorder, prefix)
            x = locked_dropout(x, rate, self.training)
            after.extend(new)
        return x.transpose(0, 1), tuple(after)

    @property
    def state_size(self) -> int:
        """H for each tensor of each layer's state."""
        layers: int = self.settings.layers
        return self.Layer.parts * layers * self.hidden

    def retention(self, recorder: ActivationRecorder) -> Tensor | None:
        """The values of the keep gate."""
        return None if self.keep_gate is None else recorder.across_layers(self.keep_gate)

    def parameter_count(self) -> int:
        """All trained numbers; tied weights count once."""
        total = super().parameter_count()
        return total - self.hidden * self.vocabulary if self.settings.tie else total

    def flops_per_token(self) -> int:
        """Two per weight of a matrix product."""
        matrices = [p for p in self.layers.parameters() if p.dim() == 2]
        return 2 * sum(p.numel() for p in matrices) + self.end_flops(self.hidden)
