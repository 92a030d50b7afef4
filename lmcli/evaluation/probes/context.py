"""What the past is worth: how much more a token surprises when only its last c tokens are known.

**In:** runs, held-out text.
**Out:** by context length c: mean extra loss, every token compared with itself; KL divergence; the
effective context with its interval.

One pass with the state carried gives l_full(t). Then reading restarts in many places, from the
start state (`reset`) or from a state saved elsewhere (`donor`):

    delta(c) = mean over t of [l_restart(t) - l_full(t)],   c = t - restart

so the whole curve costs a few passes and not one for each c. KL(full || restart) shows influence
that brings no use. A model that sees n - 1 tokens has delta = 0 exactly for c >= n - 1. The
*effective context* is the smallest c at which the isotonic (non-increasing) fit of delta is at most
1 % of perplexity per word, whatever the tokens are. Khandelwal, He, Qi and Jurafsky (2018); Dai et
al. (2019); Barlow et al. (1972) for isotonic regression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    bucket_bound,
    interval_columns,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.restarts import choose_excerpts, read_restarts
from lmcli.evaluation.probes.sampling import (
    FEWEST_STRETCHES,
    Mean,
    Places,
    draw_blocks,
    longest_span,
    powers,
    stretches,
)
from lmcli.evaluation.state_batches import documents
from lmcli.evaluation.statistics import Counts, Floats
from lmcli.report.result import COUNT, Column, Figure, Metric, text
from lmcli.settings import setting

WORTH = math.log(1.01)
"""nats a word; less is taken for no use"""
WORDS = Metric("words", 1)


@dataclass(frozen=True)
class ContextSettings:
    """How much text, and how far back."""

    tokens: int = setting(48_000, "tokens of held-out text that are read, at the most", least=64)
    longest: int = setting(1024, "longest context K, a power of two", least=16, most=65536)


class Context(Probe):
    """The loss of reading from elsewhere."""

    name = "context"
    Settings = ContextSettings
    x = "context"
    reach = "effective"
    picture = Figure(
        "what forgetting costs: nats a word, by how many tokens are known", (), (),
        Metric("nats", 0, "power"), "up to N tokens known", WORTH, "1 % of perplexity", "log",
        read=(
            "Lower is less forgetting: a point says how many nats a word costs more when the model "
            "has read only the last N tokens (intervals: 95 %). Where a line falls below the "
            "dashed one, reading further back changes perplexity by less than 1 %."
        ),
        caution=(
            "A line that ends early may mean that the text rewards no longer memory, not that the "
            "model could have none; see what the text rewards."
        ),
    )  # fmt: skip
    columns = (
        Column("bucket", text("known")),
        Column("words", WORDS),
        *interval_columns("costs", Metric("", 4)),
        Column("donor", Metric("wrong past", 4)),
        Column("kl", Metric("KL", 4)),
        Column("count", COUNT),
    )
    note = (
        "known: tokens, the most of them also in words; costs: extra nats a token after a restart; "
        "wrong past: restarted with a state from elsewhere; the line is 1 % of perplexity per word"
    )

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """One curve a run."""
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for subject in subjects:
            own, effective = measure(subject, data.held_out, settings, seed)
            if own:
                rows += own
                summary.append(subject.row(effective=effective, figure=_in_words(effective)))
        if not rows:
            return ProbeResult("context", [], "the held-out text is too short")
        return self.result(subjects, rows, summary)

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """In nats a word, so that one threshold holds for all tokens; words below the ticks."""
        per_word = [
            row | {n: row[n] * row["tokens_per_word"] for n in ("value", "low", "high")}
            for row in map(dict, rows)
        ]
        figure = self.curve(subjects, per_word)
        ratios = [row["tokens_per_word"] for row in rows]
        if max(ratios) > 1.05 * min(ratios):
            return [figure]
        lengths = [int(tick) / float(np.mean(ratios)) for tick in figure.ticks]
        words = [f"{length:.{1 if length < 10 else 0}f}" for length in lengths]
        return [replace(figure, second_ticks=words, second_label="words")]

    def verdict(self, row: Row) -> str:
        """How many tokens are of use."""
        return f"{row['model']} makes use of {row['figure']}"


def measure(
    subject: ProbedModel, texts: Sequence[str], settings: Any, seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row a bucket of context lengths, and the effective context; nothing of a short text."""
    streams = [s for s in documents(subject.tokenizer, texts) if len(s) > 2]
    total = sum(map(len, streams))
    longest = max(8, bucket_bound(1 + longest_span(streams, 2 * settings.longest)) // 4)
    excerpts = choose_excerpts(streams, longest, settings.tokens)
    if not excerpts:
        return [], {}
    restarted = read_restarts(subject.model, excerpts, longest, np.random.default_rng(seed))
    blocks = stretches(restarted.targets, total)
    per_word = (total - len(streams)) / max(1, sum(len(text.split()) for text in texts))
    effective = effective_context(restarted.delta, blocks, WORTH / per_word, seed)
    effective |= {"words": effective["tokens"] / per_word}
    delta, others = restarted.delta, {"donor": restarted.donor, "kl": restarted.divergence}
    edges = np.array([bucket_bound(c + 1) for c in range(longest)])
    rows = []
    for number, upper in enumerate(powers(longest)):
        inside = np.flatnonzero(edges == upper)
        mean = Mean.of(delta[:, inside], blocks[:, inside], seed)
        if mean.count == 0:
            break
        row = subject.row(context=upper, context_from=int(inside[0]) + 1, **mean.row())
        row |= {"count": mean.count, "chance": 0.0}
        row |= {"words": upper / per_word, "tokens_per_word": per_word}
        for name, table in others.items():
            there = table[:, number] if number < table.shape[1] else table[:0, 0]
            there = there[np.isfinite(there)]
            row[name] = float(there.mean()) if len(there) else None
        rows.append(row)
    return rows, effective


def effective_context(delta: Floats, blocks: Places, threshold: float, seed: int) -> dict[str, Any]:
    """The smallest c at which the isotonic fit is at most `threshold`, with its 95 % limits.

    `at_least` and `high_at_least` say that it is more than the longest c. The limits come from
    drawing stretches of the text again; None for fewer than 8. Shapes: delta, blocks (N, C).
    """
    finite, width = np.isfinite(delta), delta.shape[1]
    _, number = np.unique(blocks, return_inverse=True)
    count = int(number.max()) + 1
    key = (number.reshape(delta.shape) * width + np.arange(width))[finite]
    excess = np.bincount(key, delta[finite] - threshold, count * width).reshape(count, width)
    last = 1 + int(np.flatnonzero(finite.any(0))[-1])
    tokens = int(crossings(excess.sum(0)))
    found = {"tokens": min(tokens, last), "at_least": tokens > last, "low": None, "high": None}
    if count < FEWEST_STRETCHES:
        return found | {"high_at_least": False}
    drawn = crossings(draw_blocks(count, seed).astype(np.float64) @ excess)
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest").tolist()
    limits = {"low": min(low, last), "high": min(high, last), "high_at_least": high > last}
    return found | limits


def crossings(excess: Floats) -> Counts:
    """The smallest c at which the isotonic fit of a curve is not above a threshold.

    `excess` is the sum of (value - threshold) at c = 1, 2, ...: where the fit is above the
    threshold, this is summed over the prefix of which the sum is largest. Shapes: (..., C) -> (...)
    """
    sums = np.cumsum(excess, axis=-1)
    first: Counts = np.where(sums.max(-1) > 0, sums.argmax(-1) + 2, 1)
    return first


def _in_words(effective: Row) -> str:
    """The effective context as a sentence has it."""
    shown = f"{reach_words(effective)} ({WORDS.show(effective['words'])} words"
    if effective["low"] is None:
        return f"{shown}; too little text for an interval)"
    return f"{shown}; 95 %: {effective['low']:,} to {effective['high']:,} tokens)"


Member = Context
