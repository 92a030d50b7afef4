"""From hidden vectors to the next token: a full softmax, or an adaptive one for many words.

**In:** hidden vectors (..., H); for the loss and for scoring the targets (...) as well.
**Out:** logits (..., V), or ln p of the targets (...) alone.

The words are split by frequency into a shortlist S and clusters C_1 .. C_K, each three times as
large as all words before it:

    p(w | h) = softmax(A h + a)_w                                  for w in S
    p(w | h) = softmax(A h + a)_k softmax(D_k P_k h)_w             for w in C_k

The first softmax is over S and the K clusters; P_k projects h to fewer dimensions, the rarer the
words, the fewer. Both factors sum to one, so the probabilities are exact; clusters without a target
cost no work. Grave, Joulin, Cisse, Grangier and Jegou (2017), "Efficient softmax approximation for
GPUs", as in torch. The embedding is split in the same way: rare words have narrow vectors, widened
by a product (Baevski and Auli 2019, "Adaptive input representations for neural language modeling").

Ids should be ordered by falling frequency, as the word tokenizer's are. In another order the
probabilities are still exact, but slower to compute and harder to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.errors import UsageError
from lmcli.models.base import LOGITS, draw

ABOUT = "output layer; adaptive: for large vocabularies, with narrow embeddings of rare words"

FACTOR = 4
SHORTEST = 500
"""Least words in the shortlist: a shorter one costs more in clusters than it saves."""
NARROWEST = 16
"""Width of the vectors of the rarest words, unless H or E is smaller."""


def cutoffs(vocabulary: int) -> list[int]:
    """Where shortlist and clusters end, without the last one.

    >>> cutoffs(100_000), cutoffs(10_000)
    ([1562, 6250, 25000], [625, 2500])
    """
    ends = [max(1, vocabulary // FACTOR)]
    while ends[0] >= FACTOR * SHORTEST:
        ends.insert(0, ends[0] // FACTOR)
    return ends


def div_value(width: int, clusters: int) -> float:
    """The factor by which the vectors of each cluster are narrower than those before it."""
    return math.exp(max(0.0, math.log(width / NARROWEST)) / clusters)


class AdaptiveOutput(nn.AdaptiveLogSoftmaxWithLoss):
    """Shortlist and clusters of words, for hidden vectors of size H."""

    def __init__(self, hidden: int, vocabulary: int) -> None:
        cuts = cutoffs(vocabulary)
        super().__init__(hidden, vocabulary, cuts, div_value(hidden, len(cuts)), head_bias=True)
        nn.init.zeros_(self.head.bias)
        self._excluded: int | None = None
        for layer in (self.head, *self.tail):
            layer.register_forward_hook(self._at_full_precision)

    def logits(self, x: Tensor) -> Tensor:
        """ln p of every word. Shapes: (..., H) -> (..., V) in float32."""
        rows = x.reshape(-1, self.in_features).to(self.head.weight.dtype)
        return self.log_prob(rows).float().view(*x.shape[:-1], self.n_classes)

    def log_probabilities(self, x: Tensor, targets: Tensor, excluded: int | None = None) -> Tensor:
        """ln p of the targets, 0 where one is -1; with `excluded`, given that it is not that word.

        Shapes: (..., H), (...) -> (...) in float32.
        """
        if excluded is not None and excluded >= self.shortlist_size:  # of a cluster: twice the work
            nats, other = (
                self.log_probabilities(x, t) for t in (targets, torch.full_like(targets, excluded))
            )
            nats = (nats - torch.log1p(-other.exp())).masked_fill(targets == excluded, -torch.inf)
            return nats.masked_fill(targets < 0, 0.0)
        self._excluded = excluded
        try:
            return self._log_probabilities(x, targets)
        finally:
            self._excluded = None

    def _log_probabilities(self, x: Tensor, targets: Tensor) -> Tensor:
        wanted = targets >= 0
        rows, ids = x[wanted].to(self.head.weight.dtype), targets[wanted]
        count = len(ids)
        if torch.is_grad_enabled():  # one more row per cluster, so that each has a gradient
            firsts = ids.new_tensor(self.cutoffs[:-1])
            rows = torch.cat([rows, rows.new_zeros(len(firsts), self.in_features)])
            ids = torch.cat([ids, firsts])
        biggest = max(self.head_size, *(high - low for low, high in pairwise(self.cutoffs)))
        parts = (torch.split(part, max(1, LOGITS // biggest)) for part in (rows, ids))
        nats = torch.cat([self(*part).output for part in zip(*parts, strict=True)])[:count]
        return nats.new_zeros(targets.shape).masked_scatter(wanted, nats).float()

    def _at_full_precision(self, layer: nn.Module, _: Any, product: Tensor) -> Tensor:
        """The product of autocast in the precision that softmax and sums need."""
        logits = product.to(self.head.weight.dtype)
        if layer is self.head and self._excluded is not None:
            logits[..., self._excluded] = -torch.inf
        return logits

    def flops(self) -> int:
        """For the target alone, on average under Zipf's law: p(rank r) ~ 1 / r."""
        total = 2.0 * self.head.weight.numel()
        for share, layers in zip(shares(self.cutoffs), self.tail, strict=True):
            total += share * 2 * sum(p.numel() for p in layers.parameters())
        return round(total)


def shares(bounds: Sequence[int]) -> list[float]:
    """The share of a text in each cluster of words by Zipf's law.

    >>> [round(share, 3) for share in shares([9, 99, 999])]
    [0.333, 0.333]
    """
    whole = math.log(bounds[-1] + 1)
    return [math.log((high + 1) / (low + 1)) / whole for low, high in pairwise(bounds)]


class AdaptiveEmbedding(nn.Module):
    """Vectors of size E; those of rare words are stored narrow and widened by a product."""

    def __init__(self, vocabulary: int, size: int) -> None:
        super().__init__()
        cuts = cutoffs(vocabulary)
        self.size, self.bounds = size, [0, *cuts, vocabulary + 1]  # with the start id
        self.tables = nn.ModuleList()
        for k, (low, high) in enumerate(pairwise(self.bounds)):
            narrow = int(size // div_value(size, len(cuts)) ** k)
            table = nn.Sequential(Embedding(high - low, narrow))
            if k:
                widen = nn.Linear(narrow, size, bias=False)
                draw(widen.weight, narrow**-0.5)
                table.append(widen)
            self.tables.append(table)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (...) -> (..., E)."""
        ids = tokens.flatten()
        like = next(self.parameters())
        x = like.new_zeros(len(ids), self.size)
        for table, (low, high) in zip(self.tables, pairwise(self.bounds), strict=True):
            rows = ((ids >= low) & (ids < high)).nonzero().squeeze(1)
            x = x.index_copy(0, rows, table(ids[rows] - low).to(like.dtype))
        return x.view(*tokens.shape, self.size)

    def flops(self) -> int:
        """For widening one vector, on average as above."""
        layers = [m for m in self.modules() if isinstance(m, nn.Linear)]
        cost = zip(shares(self.bounds[1:]), layers, strict=True)
        return round(sum(2 * share * layer.weight.numel() for share, layer in cost))


class Embedding(nn.Embedding):
    """torch's embedding, with a gradient that is six times as fast on a CPU."""

    def reset_parameters(self) -> None:
        """From the normal distribution."""
        draw(self.weight, 1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (...) -> (..., E)."""
        if self.weight.device.type != "cpu":
            return super().forward(tokens)
        return _look_up(self.weight, tokens)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.size = weight.shape
        return F.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        return gradient.new_zeros(ctx.size).index_add_(0, tokens.reshape(-1), rows), None


_look_up: Callable[..., Tensor] = _Lookup.apply


def embedding_layer(vocabulary: int, size: int, settings: Any) -> nn.Module:
    """Vectors for V words and the start id, for the `softmax` of the settings."""
    if settings.softmax != "adaptive":
        return Embedding(vocabulary + 1, size)
    for name in ("tie", "direct"):
        if getattr(settings, name, False):
            raise UsageError(f"{name}=true needs a full softmax", "--set softmax=full")
    return AdaptiveEmbedding(vocabulary, size)
