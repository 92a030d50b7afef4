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

from lmcli.models.base import ActivationRecorder, FixedContext, NeuralLanguageModel, State
from lmcli.models.layers.softmax import ABOUT, AdaptiveOutput, embedding_layer
from lmcli.settings import setting


@dataclass(frozen=True)
class WindowSettings:
    """Settings of the window; None is chosen from text and budget."""

    window: int = setting(8, "tokens N that are read together", least=1, most=1024)
    hidden: int | None = setting(None, "width H of the hidden layer", least=1, most=1 << 25)
    embedding: int | None = setting(None, "size E of a token's embedding", least=1, most=1 << 25)
    dropout: float | None = setting(None, "dropout on the hidden layer", least=0, most=0.9)
    direct: bool = setting(False, "also connect embeddings and output directly")
    softmax: Literal["full", "adaptive"] | None = setting(None, ABOUT)


class Window(FixedContext, NeuralLanguageModel):
    """Embeddings of the last N tokens, a tanh layer, an output layer."""

    name = "window"
    Settings = WindowSettings
    learning_rate = 5e-3

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__(vocabulary, settings)
        hidden, embedding = settings.hidden or 256, settings.embedding or 64
        self.context, wide = settings.window - 1, settings.window * embedding
        self.embed = embedding_layer(vocabulary, embedding, settings)
        self.hidden = nn.Linear(wide, hidden)
        adaptive = settings.softmax == "adaptive"
        self.output = (AdaptiveOutput if adaptive else nn.Linear)(hidden, vocabulary)
        self.direct = nn.Linear(wide, vocabulary, bias=False) if settings.direct else None

    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        if self.direct is None:
            return NeuralLanguageModel.forward(self, tokens, state, recorder)
        x, h, after = self._read(tokens, state, recorder)
        return (self.output(h) + self.direct(x)).float(), after

    def hidden_vectors(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        _, h, after = self._read(tokens, state, recorder)
        return h, after

    def _read(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None
    ) -> tuple[Tensor, Tensor, State]:
        """Windows and hidden layer. Shapes: tokens (B, T) -> (B, T, N E), (B, T, H), state."""
        read, after = self.with_context(tokens, state)  # (B, N - 1 + T)
        windows = self.forget(read.unfold(1, self.settings.window, 1))  # (B, T, N)
        x = self.embed(windows).flatten(2)  # (B, T, N E)
        h = torch.tanh(self.hidden(x))  # (B, T, H)
        if recorder is not None:
            recorder("hidden", h)
        return x, F.dropout(h, self.settings.dropout or 0.0, self.training), after

    @property
    def state_size(self) -> int:
        """The embeddings of the N - 1 tokens before the present one."""
        return self.context * (self.hidden.in_features // (self.context + 1))

    def flops_per_token(self) -> int:
        """A multiplication and an addition for each weight but the embedding's."""
        layers = (self.hidden, self.direct)
        products: int = sum(2 * layer.weight.numel() for layer in layers if layer is not None)
        return products + self.end_flops(self.hidden.out_features, self.settings.window)


Member = Window
