"""What every architecture does: token ids + state -> logits + state.

**In:** tokens (B, T) and a state whose tensors all have the batch on axis 0.
**Out:** logits (B, T, V) and the state after the last token.

Shape letters, in all of lmcli:
    B sequences, T tokens, V vocabulary, E embedding, H hidden, L layers.

The id V (one past the vocabulary) marks the start of a document. When a model reads it, it forgets
everything before it: the state after a start id does not depend on earlier tokens. Documents can
therefore be concatenated into one stream, and no caller has to cut a chunk at a document's start.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models import current_names
from lmcli.settings import Settings

if TYPE_CHECKING:
    from lmcli.models.layers.softmax import AdaptiveOutput

Ids = npt.NDArray[np.integer[Any]]
State = tuple[Tensor, ...]

LOGITS = 1 << 25
"""Numbers in one block of logits, at most (128 MiB)."""
SEVERAL_WORDS = 2_000
"""a vocabulary from which on most tokens are rare"""
ROWS = 32
"""Places of a text that are read side by side when it is scored, if no model knows better."""


class ActivationRecorder:
    """Collects named values at every step while a model reads: gates, cells, hidden vectors."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def __call__(self, name: str, value: Tensor) -> None:
        """Append `value` (B, T', H) to those of `name` along T."""
        self.values.setdefault(name, []).append(value.detach())

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat(self.values[name], dim=1)  # (B, T, H)

    def across_layers(self, name: str) -> Tensor:
        """The values of that name in all layers, concatenated. Shapes: -> (B, T, L H)."""
        keys = (key for key in self.values if key.rpartition(".")[2] == name)
        return torch.cat([self[key] for key in keys], dim=-1)


def draw(weight: Tensor, deviation: float) -> None:
    """Fill from a normal distribution.

    A tensor on the device `meta` has no values; torch would load torch.compile to fill it, which
    takes a second.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=deviation)


def chrono_init_(
    forget_bias: Tensor, longest: float | None, input_bias: Tensor | None = None
) -> None:
    """Initialise gate biases of half of the units for memories of 1 to `longest` steps.

    ln u, u uniform in 1 .. longest - 1, and the negative for input gates: Tallec and Ollivier
    (2018), "Can recurrent neural networks warp time?" Nothing is done for None or on `meta`.
    """
    if longest is None or forget_bias.is_meta:
        return
    half = (len(forget_bias) + 1) // 2
    forget_bias[:half].uniform_(1, longest - 1).log_()
    if input_bias is not None:
        input_bias[:half] = -forget_bias[:half]


def chosen_log_probabilities(
    logits: Tensor, targets: Tensor, excluded: int | None = None
) -> Tensor:
    """ln p of the targets, as in `LanguageModel.log_probabilities`; writes into the logits.

    Shapes: (B, T, V), (B, T) -> (B, T).
    """
    if excluded is not None:
        logits[..., excluded] = -torch.inf
    chosen = targets.clamp_min(0).unsqueeze(-1)  # (B, T, 1)
    nats = logits.gather(-1, chosen).squeeze(-1) - logits.logsumexp(-1)
    return nats.masked_fill(targets < 0, 0.0)


class LanguageModel(nn.Module, abc.ABC):
    """One call for every architecture, state in and out."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    is_count_based: ClassVar[bool] = False
    """Whether the model learns by counting (`fit_counts`) instead of by gradient descent."""
    counts_first: ClassVar[bool] = False
    """Whether it counts the training part (`fit_counts`), and then learns by gradient descent."""
    learning_rate: ClassVar[float] = 4e-3
    """The default peak rate on characters at the parameters of an LSTM of width 256, in a training
    of 20 seconds; longer ones get less (training/defaults.py)."""
    decay_timescale: ClassVar[float] = math.inf
    """In how many passes, at least, over a text that is read often the default weight decay, at the
    peak rate, takes a weight to 1/e (Wang and Aitchison 2024); inf: the usual decay is better."""

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.start_id: int = vocabulary
        """The id that begins a document: one past the vocabulary."""
        self.settings = settings

    @abc.abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of `batch` sequences before their first token."""

    @abc.abstractmethod
    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens; predict after each.

        Shapes: tokens (B, T) -> logits (B, T, V) in nats up to a constant, float32.
        """

    def log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """ln p(target | all before it), in nats; 0 for a target of -1.

        With `excluded`, an id: given also that the target is another one, -inf if it is not.
        Shapes: tokens, targets (B, T) -> (B, T) in float32.
        """
        logits, state = self(tokens, state)
        return chosen_log_probabilities(logits, targets, excluded), state

    def all_log_probabilities(
        self, tokens: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """The same of every token after each. Shapes: tokens (B, T) -> (B, T, V) in float32."""
        logits, state = self(tokens, state)
        if excluded is not None:
            logits[..., excluded] = -torch.inf
        return logits.log_softmax(-1).float(), state

    def loss(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """The training loss: mean nats over targets that are not -1.

        Shapes: tokens, targets (B, T) -> (), state.
        """
        logits, state = self(tokens, state)
        flat = logits.transpose(0, 1).reshape(-1, logits.shape[-1])  # (T B, V)
        return F.cross_entropy(flat, targets.t().reshape(-1), ignore_index=-1), state

    def training_loss(
        self, tokens: Tensor, targets: Tensor, state: State, places: Tensor
    ) -> tuple[Tensor, State]:
        """The loss on tokens whose places in the training part are known (where `counts_first`).

        Shapes: tokens, targets, places (B, T) -> (), state.
        """
        return self.loss(tokens, targets, state)

    @property
    def scoring_width(self) -> int:
        """Numbers held per token in `log_probabilities`; callers choose their block size by it."""
        return self.vocabulary

    @property
    def scoring_rows(self) -> int:
        """Places of a text that are read side by side to score it exactly.

        Each is read again until its state is that of the first reading: of fewer, less is.
        """
        return ROWS

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens; predict after the last one only, which many models can do at less cost.

        Shapes: tokens (B, T) -> logits (B, V).
        """
        block = tokens.shape[1]
        if not torch.is_grad_enabled():  # with gradients all steps are kept anyway
            block = max(1, LOGITS // (len(tokens) * self.vocabulary))
        for part in torch.split(tokens, block, dim=1):
            logits, state = self(part, state)
        return logits[:, -1], state

    @property
    def state_size(self) -> int:
        """Floats of one sequence that are carried from token to token; `--match state` makes these
        equal.

        The hidden vectors and cells of a recurrence; keys, values or embeddings of a window, which
        is a memory of tokens; 0 for counts.
        """
        return sum(part.numel() for part in self.initial_state(1) if part.is_floating_point())

    @property
    def context_length(self) -> int | None:
        """The tokens, the present one included, that can change a prediction; None: no limit."""
        return None

    def retention(self, recorder: ActivationRecorder) -> Tensor | None:
        """The share of each unit that a step keeps, from the gates that a forward pass recorded.

        None for models without such a gate. Shapes: -> (B, T, units), from 0 to 1.
        """
        return None

    def fit_counts(self, ids: Ids) -> None:
        """Count one stream of ids that contains start ids (`is_count_based`, `counts_first`)."""
        raise TypeError(f"{self.name} learns by gradient descent")

    def token_tables(self) -> list[Tensor]:
        """Weights that begin or end with the tokens: those of the embedding and the output."""
        return []

    def begin_with_frequencies(self, counts: Tensor) -> None:
        """Predict each token as often as it was counted, before anything else is learnt; of many
        words nothing. Shapes: (V,).
        """

    def share_counts(self, other: Any) -> None:
        """Take the counts of another model of this kind, which has counted the same stream."""
        raise TypeError(f"{self.name} has no counts")

    def body_parameters(self) -> int:
        """Parameters without embedding and output layer; `--match params` makes these equal."""
        return self.parameter_count()

    def parameter_count(self) -> int:
        """All trained numbers."""
        return sum(p.numel() for p in self.parameters())

    @abc.abstractmethod
    def flops_per_token(self) -> int:
        """Floating point operations to read one token and predict the next (forward pass only)."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are saved."""
        return {k: v.detach().contiguous() for k, v in self.state_dict().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` gave; a missing or misshapen one raises a ValueError."""
        try:
            self.load_state_dict(current_names(tensors), strict=True)
        except RuntimeError as error:
            raise ValueError(str(error)) from None


class FixedContext(LanguageModel):
    """A model that reads the last `context` tokens before the present one, and none before."""

    context: int

    @property
    def context_length(self) -> int:
        """The context and the present token."""
        return self.context + 1

    def initial_state(self, batch: int) -> State:
        """Shapes: (B, context), all start ids."""
        device = next((p.device for p in self.parameters()), None)
        return (torch.full((batch, self.context), self.start_id, device=device),)

    def with_context(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The tokens after their context, and the state after them.

        Shapes: tokens (B, T), state (B, context) -> (B, context + T), (B, context).
        """
        read = torch.cat([state[0].to(tokens.device), tokens.long()], dim=1)
        return read, (self.forget(read[:, tokens.shape[1] :]),)

    def forget(self, tokens: Tensor) -> Tensor:
        """Start ids in place of every token before one. Shapes: (..., N) -> (..., N)."""
        starts = (tokens == self.start_id).flip(-1).cumsum(-1).flip(-1)  # here or later
        return tokens.masked_fill(starts > 0, self.start_id)

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Only the last token and its context matter. Shapes: tokens (B, T) -> logits (B, V)."""
        _, before = self.with_context(tokens[:, :-1], state)
        logits, after = self(tokens[:, -1:], before)
        return logits[:, -1], after


class NeuralLanguageModel(LanguageModel):
    """A model whose first layer is `embed` and whose last is `output`, full or adaptive."""

    embed: Any
    output: Any

    @property
    def adaptive(self) -> AdaptiveOutput | None:
        """The output layer, None if it is not adaptive."""
        return self.output if self.settings.softmax == "adaptive" else None

    @abc.abstractmethod
    def hidden_vectors(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """The input of the output layer. Shapes: tokens (B, T) -> (B, T, H), state."""

    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        x, state = self.hidden_vectors(tokens, state, recorder)
        return self.predict(x), state

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); logits (B, V) after the last."""
        x, state = self.hidden_vectors(tokens, state)
        return self.predict(x[:, -1].contiguous()), state

    def predict(self, x: Tensor) -> Tensor:
        """The output layer, in the order of memory. Shapes: (B, T, H) or (B, H) -> (..., V)."""
        if not x.is_contiguous():  # time is first in memory
            return self.predict(x.transpose(0, 1)).transpose(0, 1)
        if self.adaptive is not None:
            return self.adaptive.logits(x)
        return F.linear(x, *self.output_parameters()).float()

    def output_parameters(self) -> tuple[Tensor, Tensor]:
        """Weights and bias of a full output layer. Shapes: (V, H), (V,)."""
        tied = getattr(self.settings, "tie", False)
        weight = self.embed.weight[: self.vocabulary] if tied else self.output.weight
        return weight, self.output.bias

    def begin_with_frequencies(self, counts: Tensor) -> None:
        """By the bias of a full output layer (Meister et al. 2023). Shapes: (V,).

        Tiny Shakespeare, LSTM, validation nats/char with a bias of 0 and so: 1.640 and 1.514 after
        600 steps (means of three seeds), 1.431 and 1.364 after 2,600. Not of many words: Moby Dick
        by word 5.78 and 5.87 after 3,000.
        """
        if len(counts) < SEVERAL_WORDS and self.adaptive is None:
            logs = (counts + 1.0).log()  # a token that was not counted is not impossible
            with torch.no_grad():
                self.output_parameters()[1].copy_(logs - logs.logsumexp(0))

    def token_tables(self) -> list[Tensor]:
        """All matrices of `embed` and of the output layer."""
        named = ((n, p) for n, p in self.named_parameters() if p.dim() == 2)
        return [p for n, p in named if n.startswith(("embed.", "output.", "output_weight"))]

    @property
    def scoring_width(self) -> int:
        """V, or the shortlist: clusters are read in blocks of bounded size."""
        return super().scoring_width if self.adaptive is None else self.adaptive.head_size

    def log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """The adaptive layer needs no logits (B, T, V)."""
        if self.adaptive is None:
            return super().log_probabilities(tokens, targets, state, excluded)
        x, state = self.hidden_vectors(tokens, state)
        return self.adaptive.log_probabilities(x, targets, excluded), state

    def loss(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        if self.adaptive is None:
            return super().loss(tokens, targets, state)
        logs, state = self.log_probabilities(tokens, targets, state)
        return -logs.sum() / (targets >= 0).sum(), state

    def body_parameters(self) -> int:
        body = (
            p for name, p in self.named_parameters() if not name.startswith(("embed.", "output"))
        )
        return sum(p.numel() for p in body)

    def end_flops(self, hidden: int, vectors: int = 1) -> int:
        """Of embedding and output layer, for `vectors` embedded tokens and one hidden vector."""
        if self.adaptive is None:
            return 2 * hidden * self.vocabulary
        embedding: int = self.embed.flops()
        return self.adaptive.flops() + vectors * embedding
