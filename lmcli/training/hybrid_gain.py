"""What an n-gram beside a trained network would gain, in a line, from a measurement of a second.

**In:** the dataset of a training that has ended, and its model.
**Out:** a remark for the user; None where a network alone is about as good, or the text is large.

The n-gram counts the training part; some tokens of the validation part are scored by both. Their
probabilities are mixed with one weight, fitted on one half of the tokens and measured on the other,
and the other way round. The architecture hybrid joins them by more than one weight and trains the
network for it, so that it gains more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmcli.data.dataset import Dataset
from lmcli.evaluation.log_likelihood import Nats, stream_nats
from lmcli.evaluation.mixture import Mixture
from lmcli.models.base import LanguageModel
from lmcli.models.ngram.model import NGram
from lmcli.report.result import NATS

MOST_TOKENS = 1_500_000
"""of a text of which something is said: more take longer to count"""
SCORED = 20_000
"""tokens, at the most"""
LEAST = 100
LEAST_GAIN = 0.01
"""share of the nats a token"""


@dataclass(frozen=True)
class Gain:
    """Validation losses on the same tokens, in nats a token."""

    network: float
    counts: float
    mixed: float

    def sentence(self) -> str | None:
        """What is worth knowing of it."""
        network, counts, mixed = map(NATS.show, (self.network, self.counts, self.mixed))
        if self.counts <= self.network:
            return (
                "the text, or the time, is too small for a network alone: on validation this run "
                f"has {network} nats a token, counting (--arch ngram) {counts}, and --arch hybrid, "
                f"which joins both, would have about {mixed} or less"
            )
        if self.mixed > (1 - LEAST_GAIN) * self.network:
            return None
        return (
            f"--arch hybrid joins the network to an n-gram: on validation about {mixed} nats a "
            f"token or less, this run has {network}"
        )


def measure_gain(dataset: Dataset, model: LanguageModel) -> Gain | None:
    """Both scored on the beginning of the validation part; None where nothing is to be said."""
    train, held_out = dataset.tokenized.train, dataset.valid.stream[:SCORED]
    if model.is_count_based or model.counts_first or len(train) > MOST_TOKENS:
        return None
    predicted = np.asarray(held_out[1:]) != model.start_id
    if predicted.sum() < LEAST:
        return None
    counts = NGram(model.vocabulary, NGram.Settings())
    counts.fit_counts(train)
    network, counted = (stream_nats(m, held_out)[predicted] for m in (model, counts))
    return Gain(float(network.mean()), float(counted.mean()), mixed_nats(network, counted))


def mixed_nats(one: Nats, other: Nats) -> float:
    """Mean nats of a linear mixture, its weight fitted on the other half of the tokens.

    >>> equal = np.full(10, 2.0)
    >>> round(mixed_nats(equal, equal), 6), round(mixed_nats(equal, equal + 50), 3)
    (2.0, 2.0)
    """
    half = len(one) // 2
    nats = np.stack([one, other]).astype(np.float64)  # (2, N)
    first, second = nats[:, :half], nats[:, half:]
    pairs = (first, second), (second, first)
    total = sum(float(Mixture.fit(fitted).nats(measured).sum()) for fitted, measured in pairs)
    return total / len(one)
