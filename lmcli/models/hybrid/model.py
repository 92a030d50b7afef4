"""An LSTM beside an n-gram: training starts where counting ends.

**In:** tokens (B, T); the LSTM's state, and the last order - 1 tokens (B, order - 1).
**Out:** logits (B, T, V), state.

    mix=log       ln p(w) = W_w h + b_w + a ln p_KN(w | context)  up to a constant,
                  a = 1 + u h + v g
    mix=linear    p(w) = s p_LSTM(w) + (1 - s) p_KN(w | context),   s = sigmoid(u h + v g - 3)

p_KN are the n-gram's probabilities (ngram/kneser_ney.py), from counts of the whole training part;
g says for each length of the context how much of its mass it has counted, 1 - gamma, which is 0
where the context is new. At first u = v = 0 and W is small, so that the model begins as the n-gram.
In training the n-gram does not know the part of the text that it is asked about (cross_fit.py).

mix=log needs p_KN of all V tokens at every place, mix=linear that of the target alone: the first
corrects the n-gram token by token and is better; the second serves large vocabularies, with the
adaptive softmax too. RNN-ME: Mikolov et al. 2011, "Strategies for training large scale neural
network language models"; n-gram as a prior: Li et al. 2022, "Residual learning of neural text
generation with n-gram language model".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.errors import UsageError
from lmcli.models import COUNTS
from lmcli.models.base import (
    ActivationRecorder,
    Ids,
    LanguageModel,
    State,
    chosen_log_probabilities,
)
from lmcli.models.hybrid.cross_fit import CrossFitted, Tables, cross_fit, way_to_mix
from lmcli.models.lstm import LSTM, LSTMSettings
from lmcli.models.ngram.kneser_ney import Floats32, KneserNey
from lmcli.models.ngram.model import NGram, NGramSettings, check_memory
from lmcli.settings import setting
from lmcli.system import available_memory

CHARACTERS = 400
"""a vocabulary below which tokens are characters: with an order of 8 tiny Shakespeare's last 10 %
has 1.441 nats a character after 600 steps, with 6 it has 1.463, with 10 1.440; LSTM alone 1.928"""
FIRST_SHARE = -3.0
"""of the LSTM in a linear mixture, before training: sigmoid(-3) = 5 %"""
LEAST = -1e30
"""ln p of a token that is left out; where both parts have -inf the gradient would be NaN"""
SMALL = 0.1
"""by what the output weights begin smaller than an LSTM's"""


@dataclass(frozen=True)
class HybridSettings(LSTMSettings):
    """Settings of the LSTM, and of the n-gram."""

    order: int | None = setting(
        None, "tokens in the longest n-gram (8 for characters, 5 for words)", least=1, most=32
    )
    mix: Literal["log", "linear"] | None = setting(
        None, "correct ln p of every token, or weigh probabilities (for large vocabularies)"
    )


class Hybrid(LSTM):
    """An LSTM that corrects an n-gram. Before `fit_counts` the n-gram holds all tokens alike."""

    name = "hybrid"
    Settings = HybridSettings
    learning_rate = 5e-3
    counts_first = True

    def __init__(self, vocabulary: int, settings: HybridSettings) -> None:
        super().__init__(vocabulary, settings)
        adaptive = settings.softmax == "adaptive"
        if adaptive and settings.mix == "log":
            problem = "mix=log needs a full softmax"
            raise UsageError(problem, "--set softmax=full or --set mix=linear")
        self.mix = way_to_mix(settings.mix, adaptive, vocabulary)
        order = settings.order or (8 if vocabulary < CHARACTERS else 5)
        self.ngram = NGram(vocabulary, NGramSettings(order))
        self.gate = nn.Linear(self.hidden + self.ngram.context, 1)
        self.cross_fitted: CrossFitted | None = None
        self._use(self.ngram.table)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 1.0 if self.mix == "log" else FIRST_SHARE)
        if self.mix == "log" and not settings.tie and not self.output.weight.is_meta:
            self.output.weight.data.mul_(SMALL)

    # ---------------------------------------------------------------- counts

    def fit_counts(self, ids: Ids) -> None:
        """Count the training part, and again without each fold.

        A stream that is too long for the free memory is a TrainingError.
        """
        check_memory(len(ids) if self.ngram.order > 1 else 0, available_memory())
        self.ngram.table, self.cross_fitted = cross_fit(ids, self.vocabulary, self.ngram.order)
        self._use(self.ngram.table)

    def begin_with_frequencies(self, counts: Tensor) -> None:
        """Only in a linear mixture: with mix=log the model begins as the n-gram."""
        if self.mix == "linear":
            super().begin_with_frequencies(counts)

    def share_counts(self, other: LanguageModel) -> None:
        """Take the counts of another model of this kind, which has counted the same stream."""
        if not isinstance(other, Hybrid):
            raise TypeError(f"{other.name} has no counts to share")
        self.ngram.table, self.cross_fitted = other.ngram.table, other.cross_fitted
        self._use(self.ngram.table)

    def _use(self, table: KneserNey) -> None:
        self.tables = Tables.of(table)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, and the n-gram's table."""
        counts = {COUNTS + name: tensor for name, tensor in self.ngram.tensors().items()}
        return super().tensors() | counts

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` gave; a missing or misshapen one raises a ValueError."""
        counts = {n.removeprefix(COUNTS): t for n, t in tensors.items() if n.startswith(COUNTS)}
        self.ngram.load_tensors(counts)
        self._use(self.ngram.table)
        super().load_tensors({n: t for n, t in tensors.items() if not n.startswith(COUNTS)})

    def parameter_count(self) -> int:
        """All trained numbers, and the stored n-grams."""
        return super().parameter_count() + self.ngram.parameter_count()

    # ---------------------------------------------------------------- reading

    def initial_state(self, batch: int) -> State:
        """The LSTM's, and start ids."""
        (context,) = self.ngram.initial_state(batch)
        return (*super().initial_state(batch), context.to(self.gate.weight.device))

    def hidden_vectors(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """Those of the LSTM; the last part of the state is the n-gram's context."""
        x, after = super().hidden_vectors(tokens, state[:-1], recorder)
        _, context = self.ngram.with_context(tokens, state[-1:])
        return x, (*after, *context)

    def contexts(self, tokens: Tensor, state: State) -> Contexts:
        """What the n-gram looks up after each token, in the order of (B, T)."""
        read, _ = self.ngram.with_context(tokens, state[-1:])
        ranks = self.ngram.table.contexts(read.cpu().numpy())
        last = [rank[:, -tokens.shape[1] :].reshape(-1) for rank in ranks]
        return Contexts(self.tables, last, np.zeros(tokens.numel(), np.int64), tokens.device)

    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        x, after = self.hidden_vectors(tokens, state, recorder)
        return self.combined(x, self.contexts(tokens, state)), after

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); logits (B, V) after the last."""
        x, after = self.hidden_vectors(tokens, state)
        contexts = self.contexts(tokens, state).every(tokens.shape[1])
        return self.combined(x[:, -1:], contexts)[:, -1], after

    def combined(self, x: Tensor, contexts: Contexts, excluded: int | None = None) -> Tensor:
        """Logits of both; a linear mixture leaves an `excluded` token out of each.

        Shapes: (B, T, H) -> (B, T, V).
        """
        logits = self.predict(x)
        counted = contexts.log_probabilities().view(logits.shape)
        gate = self.gated(x, contexts)  # (B, T, 1)
        if self.mix == "log":
            return torch.addcmul(logits, gate, counted)
        if excluded is not None:
            left_out = torch.tensor([excluded], device=x.device)
            logits, counted = (p.index_fill(-1, left_out, LEAST) for p in (logits, counted))
            counted = counted.log_softmax(-1)
        return torch.logaddexp(
            F.logsigmoid(gate) + logits.log_softmax(-1), F.logsigmoid(-gate) + counted
        )

    def gated(self, x: Tensor, contexts: Contexts) -> Tensor:
        """What weighs the n-gram, before a sigmoid where there is one. Shapes: -> (B, T, 1)."""
        known = contexts.known().view(*x.shape[:-1], self.ngram.context)
        with torch.autocast(x.device.type, enabled=False):  # a rounded weight would be felt
            gate: Tensor = self.gate(torch.cat([x.float(), known], dim=-1))
        return gate

    # ---------------------------------------------------------------- scoring, learning

    def log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """A linear mixture needs no logits (B, T, V)."""
        if self.mix == "log":
            logits, after = self(tokens, state)
            return chosen_log_probabilities(logits, targets, excluded), after
        x, after = self.hidden_vectors(tokens, state)
        nats = self.mixed(x, targets, self.contexts(tokens, state), excluded)
        if excluded is not None:
            nats = nats.masked_fill(targets == excluded, -torch.inf)
        return nats.masked_fill(targets < 0, 0.0), after

    def all_log_probabilities(
        self, tokens: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """A linear mixture leaves an `excluded` token out of both its parts."""
        if self.mix == "log" or excluded is None:
            return super().all_log_probabilities(tokens, state, excluded)
        x, after = self.hidden_vectors(tokens, state)
        logs = self.combined(x, self.contexts(tokens, state), excluded)
        return logs.index_fill(-1, torch.tensor([excluded], device=x.device), -torch.inf), after

    def mixed(
        self, x: Tensor, targets: Tensor, contexts: Contexts, excluded: int | None = None
    ) -> Tensor:
        """ln p of the targets in a linear mixture. Shapes: (B, T, H), (B, T) -> (B, T).

        An `excluded` token is left out of both distributions before they are mixed, so that what a
        net says of it changes nothing.
        """
        parts = []
        for score in (partial(self.scored_by_net, x), contexts.log_probabilities_of):
            nats = score(targets.clamp_min(0))
            if excluded is not None:
                nats = nats - torch.log1p(-score(torch.full_like(targets, excluded)).exp())
            parts.append(nats)
        gate = self.gated(x, contexts).squeeze(-1)
        return torch.logaddexp(F.logsigmoid(gate) + parts[0], F.logsigmoid(-gate) + parts[1])

    def scored_by_net(self, x: Tensor, targets: Tensor) -> Tensor:
        """ln p of the targets by the LSTM alone. Shapes: (B, T, H), (B, T) -> (B, T)."""
        if self.adaptive is not None:
            return self.adaptive.log_probabilities(x, targets)
        return chosen_log_probabilities(self.predict(x), targets)

    def loss(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        x, after = self.hidden_vectors(tokens, state)
        return self._loss(x, targets, self.contexts(tokens, state)), after

    def training_loss(
        self, tokens: Tensor, targets: Tensor, state: State, places: Tensor
    ) -> tuple[Tensor, State]:
        """The loss beside an n-gram that has not counted this part of the text."""
        if self.cross_fitted is None:
            return self.loss(tokens, targets, state)
        x, after = self.hidden_vectors(tokens, state)
        ranks, fold = self.cross_fitted.at(places.reshape(-1).cpu().numpy())
        contexts = Contexts(self.cross_fitted.tables, ranks, fold, tokens.device)
        return self._loss(x, targets, contexts), after

    def _loss(self, x: Tensor, targets: Tensor, contexts: Contexts) -> Tensor:
        if self.mix == "log":
            logits = self.combined(x, contexts)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        nats = self.mixed(x, targets, contexts).masked_fill(targets < 0, 0.0)
        return -nats.sum() / (targets >= 0).sum()

    @property
    def scoring_width(self) -> int:
        """V, or that of the LSTM where the mixture is linear."""
        return self.vocabulary if self.mix == "log" else super().scoring_width

    def flops_per_token(self) -> int:
        """The LSTM's, the gate's, and a back-off weight for each order."""
        return super().flops_per_token() + 2 * self.gate.in_features + self.ngram.order


class Contexts:
    """The contexts of some places, in tables that may differ from place to place."""

    def __init__(self, tables: Tables, ranks: list[Ids], fold: Ids, device: torch.device) -> None:
        self.tables, self.ranks, self.fold, self.device = tables, ranks, fold, device

    @cached_property
    def weights(self) -> Floats32:
        """Back-off weights. Shapes: -> (rows, order - 1)."""
        return self.tables.weights(self.ranks, self.fold)

    def every(self, step: int) -> Contexts:
        """Those of each `step`-th place, from the first on that has as many before it."""
        ranks = [rank[step - 1 :: step] for rank in self.ranks]
        return Contexts(self.tables, ranks, self.fold[step - 1 :: step], self.device)

    def known(self) -> Tensor:
        """The share of mass of each context that was counted after it. Shapes: (rows, order - 1)"""
        return torch.from_numpy(1 - self.weights).to(self.device)

    def log_probabilities(self) -> Tensor:
        """ln p of every token. Shapes: -> (rows, V)."""
        p = self.tables.distributions(self.ranks, self.fold, self.weights)
        return torch.from_numpy(p).log_().to(self.device)

    def log_probabilities_of(self, targets: Tensor) -> Tensor:
        """ln p of a token at each place. Shapes: (B, T) -> (B, T)."""
        wanted = targets.reshape(-1).cpu().numpy()
        p = self.tables.of_targets(self.ranks, self.fold, self.weights, wanted)
        return torch.from_numpy(p).log_().view(targets.shape).to(self.device)
