"""Attention: a small causal Transformer that looks back over a sliding window of tokens.

**In:** tokens (B, T); state: which of the last W - 1 tokens belong to the current document
(B, W - 1), and per layer their keys and their values, both (B, W - 1, N D).
**Out:** logits (B, T, V), state.

    a = LayerNorm(x)
    q, k, v = Q a, K a, V a                                      split into N heads of size D
    w_{t,s} = softmax_s(q_t . k_s / sqrt(D) + b_{t-s})           over s with 0 <= t - s < W
    x_t = x_t + O [sum_s w_{t,s} v_s; ...]                       the heads end to end
    x_t = x_t + W_2 gelu(W_1 LayerNorm(x_t) + c_1) + c_2

Vaswani et al. (2017), with the norm in front (Xiong et al. 2020). A place is known only by its
distance: one learned number b per head and distance, as in Raffel et al. (2020) but without their
buckets, which begins as the slope of Press, Smith and Lewis (2022). A token is thus read the same
wherever it stands. Keys and values of the chunk before are carried along and not learnt through
(Dai et al. 2019). A layer sees W tokens, so L layers reach back L (W - 1) tokens. At a document's
start all tokens before it are masked out for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, State, draw
from lmcli.models.layers.softmax import ABOUT, AdaptiveOutput, NeuralLanguageModel, embedding_layer
from lmcli.settings import setting

BLOCK = 256
"""A longer chunk is read in pieces of so many tokens: the scores need room for T (W + T)."""
STEEPEST, FLATTEST = 2.0**-1, 2.0**-8
"""Slopes of the distance bias at the beginning, from the first head to the last."""


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the Transformer; None is chosen from text and budget."""

    hidden: int | None = setting(None, "width H of the model", least=1)
    layers: int = setting(2, "how many layers L", least=1)
    heads: int = setting(4, "heads a layer, each of size H / heads rounded up", least=1)
    window: int = setting(128, "how many tokens W a layer sees at once", least=2, most=4096)
    dropout: float | None = setting(
        None, "dropout on what a layer adds to its input", least=0, most=0.9
    )
    tie: bool = setting(False, "share embedding and output weights")
    softmax: Literal["full", "adaptive"] | None = setting(None, ABOUT)


def documents(marks: Tensor, is_start: Tensor) -> tuple[Tensor | None, Tensor]:
    """Which of the tokens in sight each token may see, and which of the last are still to be seen.

    A token sees those of its own document. None: nothing is hidden.
    Shapes: marks (B, W - 1) of 0 and 1, is_start (B, T) bool
    -> hidden (B, T, W - 1 + T) bool, marks (B, W - 1).
    """
    count = is_start.cumsum(1)  # (B, T)
    number = torch.cat([marks.to(count.dtype) - 1, count], dim=1)  # -1: of no document
    after = (number[:, is_start.shape[1] :] == count[:, -1:]).float()  # (B, W - 1)
    if bool(marks.all()) and not is_start.any():
        return None, after
    return number.unsqueeze(1) != count.unsqueeze(2), after


def by_distance(bias: Tensor, steps: int) -> Tensor:
    """The bias of every pair of a token and one in sight of it; -inf outside the window.

    Shapes: bias (N, W) by distance -> (N, T, W - 1 + T).
    """
    nearest_last = F.pad(bias.flip(-1), (steps - 1, steps - 1), value=-math.inf)
    sight = bias.shape[-1] - 1 + steps
    return nearest_last.unfold(-1, sight, 1).flip(-2)  # (N, T, W - 1 + T)


def look(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
    """Every token's mean of the values in its window, weighted by how well the keys fit.

    Shapes: query (B, T, N D), key and value (B, W - 1 + T, N D), bias (N, W),
    hidden (B, T, W - 1 + T) or None -> (B, T, N D).
    """
    heads = len(bias)
    batch, _, inner = query.shape
    size = inner // heads  # D
    q, k, v = (x.view(batch, -1, heads, size).transpose(1, 2) for x in (query, key, value))
    scores = (q * size**-0.5) @ k.transpose(-1, -2)  # (B, N, T, W - 1 + T)
    scores = scores + by_distance(bias, query.shape[1])
    if hidden is not None:
        scores = scores.masked_fill(hidden.unsqueeze(1), -math.inf)
    found: Tensor = scores.softmax(-1).to(v.dtype) @ v  # (B, N, T, D)
    return found.transpose(1, 2).flatten(2)


def slopes(heads: int, window: int) -> Tensor:
    """A new distance bias: from a head that looks near to one that looks everywhere.

    Shapes: -> (N, W).
    """
    steep = np.geomspace(STEEPEST, FLATTEST, heads)[:, None]
    return torch.tensor(-steep * np.arange(window), dtype=torch.get_default_dtype())


class Block(nn.Module):
    """One layer: attention, then a feed-forward net for each token alone."""

    def __init__(self, hidden: int, settings: AttentionSettings) -> None:
        super().__init__()
        inner = settings.heads * -(-hidden // settings.heads)  # N D
        self.dropout = settings.dropout or 0.0
        self.norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * inner, bias=False)
        self.distance_bias = nn.Parameter(slopes(settings.heads, settings.window))
        self.merge = nn.Linear(inner, hidden, bias=False)
        self.between = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        for layer in (self.query_key_value, self.up):
            draw(layer.weight, hidden**-0.5)
        for layer in (self.merge, self.down):
            draw(layer.weight, (2 * settings.layers * layer.in_features) ** -0.5)
        for layer in (self.up, self.down):
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, hidden: Tensor | None, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read tokens behind those in the state.

        Shapes: x (B, T, H), hidden (B, T, W - 1 + T), keys and values (B, W - 1, N D)
        -> (B, T, H), and the keys and values of the last W - 1 tokens.
        """
        q, k, v = self.query_key_value(self.norm(x)).chunk(3, dim=-1)  # (B, T, N D)
        keys = torch.cat([keys.to(k.dtype), k], dim=1)  # (B, W - 1 + T, N D)
        values = torch.cat([values.to(v.dtype), v], dim=1)
        seen = self.merge(look(q, keys, values, self.distance_bias, hidden))
        x = x + F.dropout(seen, self.dropout, self.training)
        thought = self.down(F.gelu(self.up(self.between(x))))
        x = x + F.dropout(thought, self.dropout, self.training)
        return x, keys[:, x.shape[1] :], values[:, x.shape[1] :]


class Attention(NeuralLanguageModel):
    """Embedding, L layers, output layer."""

    name = "attention"
    Settings = AttentionSettings

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__(vocabulary, settings)
        hidden = settings.hidden or 128
        self.inner = settings.heads * -(-hidden // settings.heads)
        self.hidden = hidden
        self.embed = embedding_layer(vocabulary, hidden, settings)
        self.layers = nn.ModuleList(Block(hidden, settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(hidden)
        self.output_weight: nn.Parameter | None = None
        if settings.softmax == "adaptive":
            self.output = AdaptiveOutput(hidden, vocabulary)
            return
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        if settings.tie:
            draw(self.embed.get_parameter("weight"), hidden**-0.5)
        else:
            self.output_weight = nn.Parameter(torch.empty(vocabulary, hidden))
            draw(self.output_weight, hidden**-0.5)

    def initial_state(self, batch: int) -> State:
        """Nothing to be seen: no marks, zeros for keys and values."""
        size = batch, self.settings.window - 1
        marks = self.norm.bias.new_zeros(size)
        count = 2 * len(self.layers)
        return marks, *[marks.new_zeros(*size, self.inner) for _ in range(count)]

    def forward(
        self, tokens: Tensor, state: State, tap: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens (B, T); logits (B, T, V)."""
        x, state = self._read(tokens, state, tap)  # (B, T, H)
        return self._predict(x), state

    def last_logits(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); logits (B, V) after the last."""
        x, state = self._read(tokens, state, None)
        return self._predict(x[:, -1]), state

    def hidden_vectors(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T); what the last layer has of them, normed (B, T, H)."""
        x, state = self._read(tokens, state, None)
        return self.norm(x), state

    def _read(
        self, tokens: Tensor, state: State, tap: ActivationRecorder | None
    ) -> tuple[Tensor, State]:
        """What the last layer has of tokens (B, T), piece by piece. Shapes: -> (B, T, H)."""
        read = []
        for part in torch.split(tokens, BLOCK, dim=1):
            x, state = self._read_piece(part, state, tap)
            read.append(x)
        return torch.cat(read, dim=1), state

    def _read_piece(
        self, tokens: Tensor, state: State, tap: ActivationRecorder | None
    ) -> tuple[Tensor, State]:
        hidden, marks = documents(state[0], tokens == self.start_id)
        after = [marks]
        x = self.embed(tokens)  # (B, T, H)
        for i, layer in enumerate(self.layers):
            x, *last = layer(x, hidden, state[1 + 2 * i], state[2 + 2 * i])
            after.extend(part.float() * marks.unsqueeze(-1) for part in last)
            if tap is not None:
                tap(f"{i + 1}.hidden" if len(self.layers) > 1 else "hidden", x)
        return x, tuple(after)

    def _predict(self, x: Tensor) -> Tensor:
        """The output layer. Shapes: (..., H) -> (..., V)."""
        if self.adaptive is not None:
            return self.adaptive.logits(self.norm(x))
        weight: Tensor | None = self.output_weight
        if weight is None:
            weight = self.embed.get_parameter("weight")[:-1]
        return F.linear(self.norm(x), weight, self.output_bias).float()

    def body_parameters(self) -> int:
        """All but embedding and output layer."""
        body = (*self.layers.parameters(), *self.norm.parameters())
        return sum(p.numel() for p in body)

    def flops_per_token(self) -> int:
        """Two for each weight of a matrix product, and for keys and values of a full window."""
        products = [m for m in self.layers.modules() if isinstance(m, nn.Linear)]
        window: int = 4 * self.settings.window * self.inner * len(self.layers)
        return 2 * sum(m.weight.numel() for m in products) + self.end_flops(self.hidden) + window


Member = Attention
