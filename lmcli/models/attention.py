"""Attention: a small causal Transformer over a sliding window of tokens.

**In:** tokens (B, T); state: which of the last W - 1 tokens belong to the current document
(B, W - 1), and per layer their keys and values, both (B, W - 1, N D).
**Out:** logits (B, T, V), state.

    a = LayerNorm(x)
    q, k, v = Q a, K a, V a                                      split into N heads of size D
    x_t = x_t + O [y_t; ...]                                     y_t: layers/local_attention.py
    x_t = x_t + W_2 gelu(W_1 LayerNorm(x_t) + c_1) + c_2

Vaswani et al. (2017), with the norm before each part (Xiong et al. 2020). Positions enter by
distance only: the learned bias starts with the slopes of Press, Smith and Lewis (2022), so a token
is read the same at every position. Keys and values of the previous chunk are carried along without
a gradient (Dai et al. 2019). A layer sees W tokens, so L layers reach back L (W - 1) tokens. At a
document's start all tokens before it are masked from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, NeuralLanguageModel, State, draw
from lmcli.models.layers.local_attention import BLOCK, document_mask, local_attention
from lmcli.models.layers.softmax import ABOUT, AdaptiveOutput, embedding_layer
from lmcli.settings import setting

STEEPEST, FLATTEST = 2.0**-1, 2.0**-8
"""Initial slopes of the bias by distance, from the first head to the last."""


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of the Transformer; None is chosen from text and budget."""

    hidden: int | None = setting(None, "width H of the model", least=1, most=1 << 25)
    layers: int = setting(2, "number of layers L", least=1, most=1000)
    heads: int = setting(
        4, "heads per layer, each of size H / heads rounded up", least=1, most=1024
    )
    window: int = setting(128, "tokens W that a layer sees", least=2, most=4096)
    dropout: float | None = setting(
        None, "dropout on what a layer adds to its input", least=0, most=0.9
    )
    tie: bool = setting(False, "share embedding and output weights")
    softmax: Literal["full", "adaptive"] | None = setting(None, ABOUT)


def slopes(heads: int, window: int) -> Tensor:
    """The initial bias by distance: the first head attends to near tokens, the last to all.

    Shapes: -> (N, W).
    """
    steep = np.geomspace(STEEPEST, FLATTEST, heads)[:, None]
    return torch.tensor(-steep * np.arange(window), dtype=torch.get_default_dtype())


class Block(nn.Module):
    """One layer: attention, then a feed-forward net on each token."""

    def __init__(self, hidden: int, settings: AttentionSettings) -> None:
        super().__init__()
        inner = settings.heads * -(-hidden // settings.heads)  # N D
        self.dropout = settings.dropout or 0.0
        self.norm = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * inner, bias=False)
        self.distance_bias = nn.Parameter(slopes(settings.heads, settings.window))
        self.out_proj = nn.Linear(inner, hidden, bias=False)
        self.ffn_norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        for layer in (self.query_key_value, self.up):
            draw(layer.weight, hidden**-0.5)
        for layer in (self.out_proj, self.down):
            draw(layer.weight, (2 * settings.layers * layer.in_features) ** -0.5)
        for layer in (self.up, self.down):
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read tokens after those in the state.

        Shapes: x (B, T, H), mask (B, T, W - 1 + T), keys and values (B, W - 1, N D)
        -> (B, T, H), and the keys and values of the last W - 1 tokens.
        """
        q, k, v = self.query_key_value(self.norm(x)).chunk(3, dim=-1)  # (B, T, N D)
        attended = local_attention(q, (keys, k), (values, v), self.distance_bias, mask)
        attended = self.out_proj(attended)
        x = x + F.dropout(attended, self.dropout, self.training)
        ffn = self.down(F.gelu(self.up(self.ffn_norm(x))))
        x = x + F.dropout(ffn, self.dropout, self.training)
        return x, _next_cache(keys, k), _next_cache(values, v)


def _next_cache(past: Tensor, present: Tensor) -> Tensor:
    """The last W - 1 tokens of both, as precise as the past.

    Shapes: (B, W - 1, N D), (B, T, N D) -> (B, W - 1, N D).
    """
    kept = present[:, -past.shape[1] :].to(past.dtype)  # W is 2 at least
    return torch.cat([past[:, present.shape[1] :], kept], dim=1)


class Attention(NeuralLanguageModel):
    """Embedding, L layers, output layer."""

    name = "attention"
    Settings = AttentionSettings
    learning_rate = 4e-3

    def __init__(self, vocabulary: int, settings: Any) -> None:
        super().__init__(vocabulary, settings)
        hidden = settings.hidden or 128
        self.inner: int = settings.heads * -(-hidden // settings.heads)
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

    @property
    def state_size(self) -> int:
        """Keys and values of W - 1 tokens in each layer."""
        window: int = self.settings.window
        return 2 * len(self.layers) * (window - 1) * self.inner

    @property
    def context_length(self) -> int:
        """The present token, and W - 1 more for each layer."""
        window: int = self.settings.window
        return len(self.layers) * (window - 1) + 1

    def initial_state(self, batch: int) -> State:
        """No tokens: marks, keys and values are 0."""
        size = batch, self.settings.window - 1
        marks = self.norm.bias.new_zeros(size)
        count = 2 * len(self.layers)
        return marks, *[marks.new_zeros(*size, self.inner) for _ in range(count)]

    def hidden_vectors(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """The normalised output of the last layer, read block by block."""
        blocks = []
        for part in torch.split(tokens, BLOCK, dim=1):
            x, state = self._read_block(part, state, recorder)
            blocks.append(x)
        return self.norm(torch.cat(blocks, dim=1)), state

    def _read_block(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None
    ) -> tuple[Tensor, State]:
        mask, marks = document_mask(state[0], tokens == self.start_id)
        after = [marks]
        x = self.embed(tokens)  # (B, T, H)
        for i, layer in enumerate(self.layers):
            x, *last = layer(x, mask, state[1 + 2 * i], state[2 + 2 * i])
            after.extend(last if mask is None else (part * marks.unsqueeze(-1) for part in last))
            if recorder is not None:
                recorder(f"{i + 1}.hidden" if len(self.layers) > 1 else "hidden", x)
        return x, tuple(after)

    def output_parameters(self) -> tuple[Tensor, Tensor]:
        if self.output_weight is None:
            return self.embed.get_parameter("weight")[:-1], self.output_bias
        return self.output_weight, self.output_bias

    def flops_per_token(self) -> int:
        """Two per weight of a matrix product, and two per key and value of a full window."""
        products = [m for m in self.layers.modules() if isinstance(m, nn.Linear)]
        window: int = 4 * self.settings.window * self.inner * len(self.layers)
        return 2 * sum(m.weight.numel() for m in products) + self.end_flops(self.hidden) + window


Member = Attention
