"""What every architecture does: token ids + state -> logits + state.

**In:** tokens (B, T) and a state whose tensors all have the batch on axis 0.
**Out:** logits (B, T, V) and the state after the last token.

Shape letters, used all over lmcli:
    B sequences, T tokens, V vocabulary, E embedding, H hidden, L layers.

The id V (one past the vocabulary) marks the start of a document. Every model forgets all that
came before when it reads it: the state behind a start id is the same whatever went before.
Documents can therefore be laid end to end in one stream, and no caller needs to cut a chunk at a
document's start.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.settings import Settings

State = tuple[Tensor, ...]

LOGITS = 1 << 25
"""Numbers in one block of logits, at the most (128 MiB)."""


class ActivationRecorder:
    """Collects named values of every step while a model reads: gates, cells, hidden vectors."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def __call__(self, name: str, value: Tensor) -> None:
        """Note `value` (B, T', H) under `name`; later calls continue along T."""
        self.values.setdefault(name, []).append(value.detach())

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat(self.values[name], dim=1)  # (B, T, H)

    def across_layers(self, name: str) -> Tensor:
        """The values of that name of all layers, side by side. Shapes: -> (B, T, L H)."""
        whole = [key for key in self.values if key.rpartition(".")[2] == name]
        return torch.cat([self[key] for key in whole], dim=-1)


def draw(weight: Tensor, deviation: float) -> None:
    """Fill from a normal distribution.

    A tensor on the device `meta` has a size and nothing to fill; torch would load torch.compile
    for it, which takes a second.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=deviation)


def chrono_init_(keeping: Tensor, longest: float, writing: Tensor | None = None) -> None:
    """Fill the biases of gates that keep for 1 to so many steps; those that write get the opposite.

    ln u, u uniform in 1 .. longest - 1: Tallec and Ollivier (2018), "Can recurrent neural networks
    warp time?" On `meta` as above.
    """
    if keeping.is_meta:
        return
    keeping.uniform_(1, longest - 1).log_()
    if writing is not None:
        writing.copy_(-keeping)


class LanguageModel(nn.Module, abc.ABC):
    """One call for every architecture, state in and out."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    counts: ClassVar[bool] = False
    """True where the model learns by counting (`count`) and not by gradient descent."""

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.settings = settings

    @property
    def start_id(self) -> int:
        """The id that begins a document: one past the vocabulary."""
        return self.vocabulary

    @abc.abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of `batch` sequences of which nothing has been read."""

    @abc.abstractmethod
    def forward(
        self, tokens: Tensor, state: State, tap: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens; predict after each.

        Shapes: tokens (B, T) -> logits (B, T, V) in nats up to a constant, float32.
        """

    def log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """ln p(target | all before it), in nats; a target of -1 counts 0.

        Shapes: tokens, targets (B, T) -> (B, T) in float32.
        """
        logits, state = self(tokens, state)
        chosen = targets.clamp_min(0).unsqueeze(-1)  # (B, T, 1)
        nats = logits.gather(-1, chosen).squeeze(-1) - logits.logsumexp(-1)  # (B, T)
        return nats.masked_fill(targets < 0, 0.0), state

    def loss(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """What training lowers: the mean nats over targets that are not -1.

        Shapes: tokens, targets (B, T) -> (), state.
        """
        logits, state = self(tokens, state)
        flat = logits.transpose(0, 1).reshape(-1, logits.shape[-1])  # (T B, V)
        return F.cross_entropy(flat, targets.t().reshape(-1), ignore_index=-1), state

    @property
    def scoring_width(self) -> int:
        """Numbers held for each token that `log_probabilities` reads; sizes a caller's blocks."""
        return self.vocabulary

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens; predict after the last one only. Members that can, save the others' cost.

        Shapes: tokens (B, T) -> logits (B, V).
        """
        most = tokens.shape[1]
        if not torch.is_grad_enabled():  # else all steps are kept anyway
            most = max(1, LOGITS // (len(tokens) * self.vocabulary))
        for part in torch.split(tokens, most, dim=1):
            logits, state = self(part, state)
        return logits[:, -1], state

    def retention(self, tap: ActivationRecorder) -> Tensor | None:
        """How much of each unit a step keeps, from what a forward pass has shown to `tap`.

        None where no gate says so. Shapes: -> (B, T, units), from 0 to 1.
        """
        return None

    def count(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        """Learn by counting one stream of ids with start ids in it (where `counts` is true)."""
        raise TypeError(f"{self.name} learns by gradient descent")

    def body_parameters(self) -> int:
        """Parameters beside embedding and output layer; `--match params` makes these equal."""
        return self.parameter_count()

    def parameter_count(self) -> int:
        """All trained numbers."""
        return sum(p.numel() for p in self.parameters())

    @abc.abstractmethod
    def flops_per_token(self) -> int:
        """Floating point operations to read one token and predict the next (forward pass only)."""

    def tensors(self) -> dict[str, Tensor]:
        """What is saved of the model."""
        return {k: v.detach().contiguous() for k, v in self.state_dict().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave; a missing or misshapen one raises a ValueError."""
        try:
            self.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
