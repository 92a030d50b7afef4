"""Neural n-gram: a fixed window of the last tokens through one hidden layer.

**In:** tokens (B, T) and the N - 1 tokens before them, with N the window.
**Out:** logits (B, T, V), state.

    x_t = [C w_{t-N+1}; ...; C w_t]      the embeddings of the last N tokens, concatenated
    h_t = tanh(H x_t + d)
    y_t = U h_t + b  (+ W x_t with `direct`)

Bengio, Ducharme, Vincent & Jauvin (2003), "A neural probabilistic language model". Tokens
before a document's start are read as start ids, so the window there does not depend on the past.
No token more than N - 1 before the last can change a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, State
from lmcli.models.layers.softmax import ABOUT, AdaptiveOutput, NeuralLanguageModel, embedding_layer
from lmcli.settings import setting


@dataclass(frozen=True)
class WindowSettings:
    """Settings of the window; None is chosen from text and budget."""

    window: int = setting(8, "tokens N that are read together", least=1, most=1024)
    hidden: int | None = setting(None, "width H of the hidden layer", least=1)
    embedding: int | None = setting(None, "size E of a token's embedding", least=1)
    dropout: float | None = setting(None, "dropout on the hidden layer", least=0, most=0.9)
    direct: bool = setting(False, "also connect embeddings and output directly")
    softmax: Literal["full", "adaptive"] | None = setting(None, ABOUT)


class Window(NeuralLanguageModel):
    """Embeddings of the last N tokens, a tanh layer, an output layer."""

    name = "window"
    Settings = WindowSettings
    learning_rate = 3e-3

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__(vocabulary, settings)
        hidden, embedding = settings.hidden or 256, settings.embedding or 64
        wide = settings.window * embedding
        self.embed = embedding_layer(vocabulary, embedding, settings)
        self.hidden = nn.Linear(wide, hidden)
        adaptive = settings.softmax == "adaptive"
        self.output = (AdaptiveOutput if adaptive else nn.Linear)(hidden, vocabulary)
        self.direct = nn.Linear(wide, vocabulary, bias=False) if settings.direct else None

    def initial_state(self, batch: int) -> State:
        """Shapes: (B, N - 1), all start ids."""
        size = batch, self.settings.window - 1
        return (torch.full(size, self.start_id, device=self.hidden.weight.device),)

    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens; predict after each.

        Shapes: tokens (B, T), state (B, N - 1) -> logits (B, T, V).
        """
        x, h, after = self._read(tokens, state, recorder)
        if isinstance(self.output, AdaptiveOutput):
            return self.output.logits(h), after
        logits = self.output(h)  # (B, T, V)
        if self.direct is not None:
            logits = logits + self.direct(x)
        return logits.float(), after

    def hidden_vectors(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); the input of the output layer (B, T, H)."""
        _, h, after = self._read(tokens, state, None)
        return h, after

    def _read(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None
    ) -> tuple[Tensor, Tensor, State]:
        """Windows and hidden layer. Shapes: tokens (B, T) -> (B, T, N E), (B, T, H), state."""
        read = torch.cat([state[0], tokens], dim=1)  # (B, N - 1 + T)
        windows = self._forget(read.unfold(1, self.settings.window, 1))  # (B, T, N)
        x = self.embed(windows).flatten(2)  # (B, T, N E)
        h = torch.tanh(self.hidden(x))  # (B, T, H)
        if recorder is not None:
            recorder("hidden", h)
        h = F.dropout(h, self.settings.dropout or 0.0, self.training)
        return x, h, (self._forget(read[:, tokens.shape[1] :]),)

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Only the last N tokens matter. Shapes: tokens (B, T) -> logits (B, V)."""
        earlier = torch.cat([state[0], tokens[:, :-1]], dim=1)
        before = earlier[:, earlier.shape[1] - self.settings.window + 1 :]  # (B, N - 1)
        logits, after = self(tokens[:, -1:], (self._forget(before),))
        return logits[:, -1], after

    def _forget(self, tokens: Tensor) -> Tensor:
        """Start ids in place of every token before one. Shapes: (..., N) -> (..., N)."""
        starts = (tokens == self.start_id).flip(-1).cumsum(-1).flip(-1)  # here or later
        return tokens.masked_fill(starts > 0, self.start_id)

    def body_parameters(self) -> int:
        """All but embedding and output layer."""
        ends = (self.embed, self.output)
        return self.parameter_count() - sum(p.numel() for e in ends for p in e.parameters())

    def flops_per_token(self) -> int:
        """A multiplication and an addition for each weight but the embedding's."""
        layers = (self.hidden, self.direct)
        products = sum(2 * layer.weight.numel() for layer in layers if layer is not None)
        return products + self.end_flops(self.hidden.out_features, self.settings.window)


Member = Window
