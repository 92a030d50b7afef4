"""N-gram counts with interpolated modified Kneser-Ney smoothing: the baseline without training.

**In:** tokens (B, T) and the last order - 1 tokens before them.
**Out:** ln p of every token after each, from counts of one pass over the text.

    p(w | h) = (a(h w) - D(a(h w))) / sum_v a(h v)  +  gamma(h) p(w | h without its first token)

All equations: `kneser_ney`. No token more than order - 1 back can change a prediction, so the
memory is known without measuring it. Chen & Goodman 1998; Heafield et al. 2013 (KenLM).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmcli.errors import TrainingError
from lmcli.models.base import ActivationRecorder, FixedContext, State
from lmcli.models.ngram.kneser_ney import Ids, KneserNey
from lmcli.settings import setting
from lmcli.system import available_memory

NO_TOKENS = np.empty(0, dtype=np.int32)
BYTES_PER_TOKEN = 48
"""of memory, at least, to sort the n-grams of one order: ranks and positions of 64 bits"""


@dataclass(frozen=True)
class NGramSettings:
    """Settings of the counts."""

    order: int | None = setting(
        None, "tokens in the longest n-gram (6 for characters, 5 for words)", least=1, most=32
    )


class NGram(FixedContext):
    """A smoothed table of counts. Before `fit_counts`, every token is equally likely."""

    name = "ngram"
    Settings = NGramSettings
    is_count_based = True

    def __init__(self, vocabulary: int, settings: NGramSettings) -> None:
        super().__init__(vocabulary, settings)
        self.order = settings.order or (6 if vocabulary < 400 else 5)
        self.context = self.order - 1
        self.table = KneserNey.estimate(NO_TOKENS, vocabulary, self.order)

    def fit_counts(self, ids: Ids) -> None:
        """Learn from one stream of ids that contains start ids, in place of earlier counts.

        A stream that is too long for the free memory is a TrainingError.
        """
        check_memory(len(ids) if self.order > 1 else 0, available_memory())
        self.table = KneserNey.estimate(ids, self.vocabulary, self.order)

    def forward(
        self, tokens: Tensor, state: State, recorder: ActivationRecorder | None = None
    ) -> tuple[Tensor, State]:
        """ln p of every token as logits; nothing is recorded.

        Shapes: tokens (B, T) -> logits (B, T, V).
        """
        B, T = tokens.shape
        read, after = self.with_context(tokens, state)
        ids = read.cpu().numpy()
        logits = torch.empty(B, T, self.vocabulary)
        block = max(1, 2**22 // (B * self.vocabulary))  # tokens, to bound the memory
        for t in range(0, T, block):
            some = min(block, T - t)
            p = self.table.distributions(ids[:, t : t + self.order - 1 + some], some)
            logits[:, t : t + some] = torch.from_numpy(np.log(p))  # (B, some, V)
        return logits.to(tokens.device), after

    def log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State, excluded: int | None = None
    ) -> tuple[Tensor, State]:
        """ln p of each target alone, without the other V - 1."""
        read, after = self.with_context(tokens, state)
        wanted = targets.clamp_min(0).cpu().numpy()
        nats = self.table.log_probabilities(read.cpu().numpy(), wanted, excluded)
        chosen = torch.from_numpy(nats).float().to(targets.device)  # (B, T)
        return chosen.masked_fill(targets < 0, 0.0), after

    @property
    def context_length(self) -> int:
        """The order - 1 tokens that an n-gram begins with."""
        return self.context

    def parameter_count(self) -> int:
        """The number of stored n-grams."""
        return self.table.size

    def flops_per_token(self) -> int:
        """One back-off weight for each order."""
        return self.order

    def tensors(self) -> dict[str, Tensor]:
        """The table, as int32 and float32."""
        return {name: torch.from_numpy(array) for name, array in self.table.arrays().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` gave; a missing or misshapen one raises a ValueError."""
        try:
            arrays = {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.table = KneserNey.from_arrays(arrays, self.vocabulary, self.order)


def check_memory(tokens: int, available: int | None) -> None:
    """A TrainingError if counting `tokens` tokens needs more than `available` bytes."""
    needed = tokens * BYTES_PER_TOKEN
    if available is None or needed <= available:
        return
    share = available / needed
    raise TrainingError(
        f"counting {tokens:,} tokens needs {needed / 1e9:,.1f} GB of memory or more, "
        f"and {available / 1e9:,.1f} GB are free",
        f"name a part of the text, at most {share:.0%} of it, or another architecture",
    )
