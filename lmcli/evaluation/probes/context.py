"""What the past is worth: how much more a token surprises when only its last c tokens are known.

**In:** runs, held-out text.
**Out:** by context length c: mean extra loss, every token compared with itself; KL divergence.

One pass with the state carried gives l_full(t). Then reading restarts every K tokens, in eight
phases, from the start state (`reset`) or from a state saved elsewhere (`donor`):

    delta(c) = mean over t of [l_restart(t) - l_full(t)],   c = t - restart

so the whole curve costs a few passes and not one for each c. KL(full || restart) shows influence
that brings no use. A model that sees n - 1 tokens has delta = 0 exactly for c >= n - 1. The
*effective context* is where the upper limit has come down to 1 % of perplexity (ln 1.01).
Khandelwal, He, Qi and Jurafsky (2018); Dai et al. (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.probes.base import (
    Probe,
    ProbeData,
    ProbedModel,
    ProbeResult,
    bucket_bound,
    bucket_name,
    figure,
    labels,
    leading_run,
    sentence,
    zero_noise,
)
from lmcli.evaluation.probes.restarts import (
    COMPARED,
    divergences,
    donor_nats,
    donors,
    powers,
    read_whole,
    restart_places,
    saved_places,
    span,
    spots,
)
from lmcli.evaluation.state_batches import documents, token_nll
from lmcli.evaluation.statistics import Floats, block_weights, limits
from lmcli.report.result import COUNT, Column, Metric, text
from lmcli.settings import setting

WORTH = math.log(1.01)
"""nats a token; less is taken for no use"""


@dataclass(frozen=True)
class ContextSettings:
    """How much text, and how far back."""

    tokens: int = setting(16_000, "tokens of held-out text that are read, at the most", least=64)
    longest: int = setting(1024, "longest context K, a power of two", least=16, most=65536)


class Context(Probe):
    """The loss of reading from elsewhere."""

    name = "context"
    Settings = ContextSettings

    def run(
        self, subjects: Sequence[ProbedModel], data: ProbeData, settings: Any, seed: int = 0
    ) -> ProbeResult:
        """One curve a run."""
        rows, summary = [], []
        for subject in subjects:
            curve = measure(subject, data.held_out, settings, seed)
            rows += curve
            summary.append(_summary(subject, curve))
        return _result(subjects, rows, summary)


def measure(
    subject: ProbedModel, pieces: Sequence[str], settings: Any, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a bucket of context lengths."""
    streams = documents(subject.tokenizer, pieces, settings.tokens)
    streams = [s for s in streams if len(s) > 2]
    if not streams:
        return []
    longest = span(max(map(len, streams)), settings.longest)
    restarts = restart_places(streams, longest)
    rng = np.random.default_rng(seed)
    saved = saved_places(subject.model, restarts, rng)
    full, states = read_whole(subject.model, streams, restarts, saved)
    rows = [streams[r.row][r.begin : r.begin + longest + 1] for r in restarts]
    own = [full[r.row][r.begin : r.begin + longest] for r in restarts]
    reset = token_nll(subject.model, rows, subject.model.initial_state(len(rows)), spots(longest))
    apart = _table([a - b for a, b in zip(reset, own, strict=True)], longest)
    compared = saved[:COMPARED]
    deltas = {
        "donor": donor_nats(
            subject.model, rows, own, states, donors(restarts, saved, longest, rng)
        ),
        "kl": divergences(subject.model, [rows[k] for k in compared], states),
    }
    blocks = np.array([r.place // longest for r in restarts])
    return _buckets(subject, apart, deltas, blocks, seed)


# ------------------------------------------------------------------ by context length


def _table(values: Sequence[npt.NDArray[Any]], longest: int) -> Floats:
    """Values by context length, nan where there is none. Shapes: -> (rows, K); column c - 1."""
    table = np.full((len(values), longest), np.nan)
    for line, row in zip(table, values, strict=True):
        line[: len(row)] = row
    return zero_noise(table)


def _mean(
    table: Floats, weights: npt.NDArray[np.int64] | None = None
) -> tuple[float, float, float, int]:
    """Mean, 95 % limits, number of finite values. Shapes: table (rows, C), weights (R, rows)."""
    finite = np.isfinite(table)
    sums, counts = np.where(finite, table, 0.0).sum(1), finite.sum(1)
    if counts.sum() == 0:
        return math.nan, math.nan, math.nan, 0
    value = float(sums.sum() / counts.sum())
    if weights is None:
        return value, math.nan, math.nan, int(counts.sum())
    drawn = weights @ counts
    means = np.divide(weights @ sums, drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
    return value, *limits(means), int(counts.sum())


def _buckets(
    subject: ProbedModel,
    apart: Floats,
    others: dict[str, Floats],
    blocks: npt.NDArray[np.int64],
    seed: int,
) -> list[dict[str, Any]]:
    """Means and intervals by bucket."""
    weights = block_weights(blocks, seed)
    lengths = np.arange(1, apart.shape[1] + 1)
    edges = np.array([bucket_bound(int(c)) for c in lengths])
    rows = []
    for number, upper in enumerate(powers(apart.shape[1])):
        mine = edges == upper
        value, low, high, count = _mean(apart[:, mine], weights)
        if count == 0:
            break
        row = subject.row(context=upper, context_from=int(lengths[mine][0]), value=value)
        row |= {"low": low, "high": high, "count": count, "chance": 0.0}
        for name, table in others.items():
            row[name] = _mean(table[:, number : number + 1])[0] if number < table.shape[1] else None
        rows.append(row)
    return rows


def effective_context(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{"tokens": c, "at_least": whether more is of use}.

    c is the upper bound of the last bucket in front of the first whose upper limit is within 1 %.
    """
    held, at_least = leading_run(rows, lambda row: not row["high"] <= WORTH)  # nan: not known
    return {"tokens": held[-1]["context"] if held else 0, "at_least": at_least}


def _summary(subject: ProbedModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = effective_context(rows)
    shown = f"{'at least ' if found['at_least'] else ''}{found['tokens']:,} tokens"
    return subject.row(effective=found, figure=shown if rows else "not measured")


def _result(
    subjects: Sequence[ProbedModel], rows: list[dict[str, Any]], summary: list[dict[str, Any]]
) -> ProbeResult:
    names = labels(subjects)
    picture = figure(
        names, rows, "context", "what forgetting costs: nats a token, by how many tokens are known",
        "up to N tokens known", Metric("nats", 0, "power"), WORTH, "log",
    )  # fmt: skip
    picture = replace(picture, line="1 % of perplexity")
    shown = [
        row
        | {"model": names[row["run"]], "bucket": bucket_name(row["context_from"], row["context"])}
        for row in rows
    ]
    columns = [
        Column("model", text("model")),
        Column("bucket", text("known")),
        Column("value", Metric("costs", 4)),
        Column("low", Metric("from", 4)),
        Column("high", Metric("to", 4)),
        Column("donor", Metric("wrong past", 4)),
        Column("kl", Metric("KL", 4)),
        Column("count", COUNT),
    ]
    verdict = [f"{names[row['run']]} makes use of {row['figure']}" for row in summary]
    note = (
        "costs: extra nats a token after a restart; wrong past: restarted with a state from "
        "elsewhere; the line is 1 % of perplexity"
    )
    return ProbeResult(
        "context", rows, sentence(verdict), summary, columns, shown, [picture], [note]
    )


Member = Context
