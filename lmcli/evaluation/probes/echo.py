"""A list said twice: does it come easier the second time?

**In:** runs, held-out text.
**Out:** by the number of tokens between: repeat surprisal, 100 = as hard as the first time.

Ten content words of the text's own vocabulary, list A, g tokens of held-out text, A again:

    repeat surprisal = 100 * median loss of the second list's words 2..10 / that of the first's

Controls vary what was heard first and keep the second list, in the same place: A in another order
(permuted), and ten other words B (novel). So the words that are scored are the same, and

    score = L(A | heard B) - L(A | heard A)

in nats a word is what having heard A saves. Works with any text. Armeni, Honey and Linzen (2022).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.recall.items import FREQUENT
from lmcli.evaluation.probes.sampling import Mean, draw_targets, longest_span, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, documents, token_nll
from lmcli.evaluation.statistics import Floats, block_weights, limits, weighted_medians
from lmcli.registry import TOKENIZERS
from lmcli.report.result import COUNT, Column, Figure, Metric
from lmcli.settings import setting

FIRST = ("same", "permuted", "novel")
"""lists that are heard first"""
LEAST_COUNT = 3


@dataclass(frozen=True)
class EchoSettings:
    """How many lists, how long, how far apart."""

    trials: int = setting(50, "lists", least=2)
    words: int = setting(10, "words in a list", least=2)
    longest: int = setting(512, "tokens between the lists, at the most", least=1)


class Echo(Probe):
    """Verbatim copying."""

    name = "echo"
    Settings = EchoSettings
    x = "gap"
    reach = "copies"
    picture = Figure(
        "a list said twice: loss the second time, 100 = as the first time", (), (),
        Metric("", 0), "tokens between the lists", 100.0, "as the first time",
    )  # fmt: skip
    columns = (
        Column("gap", COUNT, "gap"),
        *interval_columns("second time", Metric("", 1)),
        Column("chance", Metric("after novel", 1)),
        *interval_columns("saved", Metric("", 3), "saved"),
        Column("order", Metric("by order", 3)),
        Column("count", COUNT, "lists"),
    )
    note = (
        "after novel: ten other words were heard first, so nothing is known; saved: nats a word, "
        "after novel words minus after the same; by order: after the same in another order"
    )

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """The same lists and the same places of the text for all runs."""
        words = vocabulary(subjects, data, 2 * settings.words)
        if not words:
            return ProbeResult("echo", [], "the text has too few words for lists")
        curves = [measure(subject, data, words, settings, seed) for subject in subjects]
        summary = [_summary(*pair) for pair in zip(subjects, curves, strict=True)]
        return self.result(subjects, list(itertools.chain(*curves)), summary)

    def verdict(self, row: Row) -> str:
        """How far from the first list the second is still easier."""
        if row["copies"]["tokens"] is None:
            return f"{row['model']} shows no echo"
        return f"{row['model']} echoes a list {row['figure']} later"


def vocabulary(subjects: Subjects, data: ProbeData, fewest: int) -> list[str]:
    """Content words of the text that every run can spell; empty if they are too few."""
    cls = TOKENIZERS.load("word")
    source = data.train or data.held_out
    words = cls.train(source, cls.Settings(min_count=LEAST_COUNT))
    symbols = [words.symbol(i) for i in range(words.size)]
    content = [s for s in symbols if s.isalpha()]
    content = [*content[FREQUENT:], *content[:FREQUENT]]  # frequent ones only for want of others
    content = content[: max(fewest, len(content) - FREQUENT)]
    spelt = [w for w in content if all(_spells(s.tokenizer, w) for s in subjects)]
    return spelt if len(spelt) >= fewest else []


def _spells(tokenizer: Any, word: str) -> bool:
    return tokenizer.unknown not in tokenizer.encode(word)


def draw_lists(words: Sequence[str], settings: Any, seed: int) -> list[list[list[str]]]:
    """Of each trial the list, a derangement of it, and a list of other words."""
    rng, n = np.random.default_rng(seed), settings.words
    trials = []
    for _ in range(settings.trials):
        drawn = [words[i] for i in rng.choice(len(words), 2 * n, replace=False)]
        order = rng.permutation(n)
        while (order == np.arange(n)).any():
            order = rng.permutation(n)
        trials.append([drawn[:n], [drawn[i] for i in order], drawn[n:]])
    return trials


def _encode(subject: ProbedModel, words: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The ids of a list, and for each the number of the word it belongs to."""
    lead = " " if subject.tokenizer.spells else ""
    encoded = subject.tokenizer.encode_with_ends(lead + " ".join(words))
    word_ends = np.cumsum([len(lead) + len(words[0]), *(1 + len(w) for w in words[1:])])
    return encoded.ids.astype(np.int64), np.searchsorted(word_ends, encoded.ends, "left")


def fillers(streams: Sequence[Ids], longest: int, count: int, seed: int) -> list[Ids]:
    """`count` random stretches of text, each of one document and as long as documents allow."""
    length = min(longest, max(0, longest_span(streams, longest + 2) - 2))
    rng = np.random.default_rng(seed)
    places = draw_targets(streams, count, rng, length)
    if len(places) == 0:
        return [np.empty(0, np.int64)] * count
    drawn = rng.integers(len(places), size=count) if len(places) < count else np.arange(count)
    some = zip(places.document[drawn].tolist(), places.place[drawn].tolist(), strict=True)
    return [streams[d][p - length : p] for d, p in some]


@torch.inference_mode()
def measure(
    subject: ProbedModel, data: ProbeData, words: Sequence[str], settings: Any, seed: int
) -> list[dict[str, Any]]:
    """One row a gap; all first lists are read side by side."""
    model, start = subject.model, np.array([subject.tokenizer.start])
    trials = draw_lists(words, settings, seed)
    streams = documents(subject.tokenizer, data.held_out)
    between = fillers(streams, settings.longest, len(trials), seed) * len(FIRST)
    heard = [_encode(subject, trial[k])[0] for k in range(len(FIRST)) for trial in trials]
    lists = [_encode(subject, trial[0]) for trial in trials]
    opening = [np.concatenate([start, ids]) for ids in heard]
    initial = model.initial_state(len(opening))
    first = _word_nats(token_nll(model, opening[: len(trials)], initial), lists)
    state = advance(model, [ids[:-1] for ids in opening], initial)
    last, read, rows = [ids[-1:] for ids in opening], 0, list[dict[str, Any]]()
    for gap in gaps(len(between[0])):
        pieces = zip(last, between, strict=True)
        passed = [np.concatenate([end, text[read:gap]]) for end, text in pieces]
        state = advance(model, [ids[:-1] for ids in passed], state)
        last, read = [ids[-1:] for ids in passed], gap
        again = zip(last, lists * len(FIRST), strict=True)
        nats = token_nll(model, [np.concatenate([end, ids]) for end, (ids, _) in again], state)
        table = _word_nats(nats, lists * len(FIRST)).reshape(len(FIRST), *first.shape)
        second = dict(zip(FIRST, table, strict=True))
        rows.append(subject.row(gap=gap, **_surprisals(first, second, seed)))
    return rows


def gaps(longest: int) -> list[int]:
    """0, 8, 32, 128, 512, ... up to `longest`.

    >>> gaps(600)
    [0, 8, 32, 128, 512]
    """
    return [0, *(g for g in (8, 32, 128, 512, 2048, 8192, 32768) if g <= longest)]


def _word_nats(
    nats: Sequence[npt.NDArray[Any]], lists: Sequence[tuple[Ids, npt.NDArray[np.int64]]]
) -> Floats:
    """Nats of each word but the first. Shapes: -> (trials, words - 1)."""
    rows = [np.bincount(owner, n)[1:] for n, (_, owner) in zip(nats, lists, strict=True)]
    return np.array(rows, np.float64)


def _surprisals(first: Floats, second: dict[str, Floats], seed: int) -> dict[str, Any]:
    """Repeat surprisal with its interval, the same after other lists, the scores in nats a word.

    Shapes: (trials, words - 1) each.
    """
    trials = np.broadcast_to(np.arange(len(first))[:, None], first.shape)
    weights = block_weights(trials.ravel(), seed)
    base = weighted_medians(first.ravel(), weights)
    low, high = limits(100 * weighted_medians(second["same"].ravel(), weights) / base)
    value = {k: 100 * float(np.median(nats) / np.median(first)) for k, nats in second.items()}
    row = {"value": value["same"], "low": low, "high": high, "count": len(first)}
    row |= {"chance": value["novel"], "permuted": value["permuted"]}
    for name, heard in (("saved", "novel"), ("order", "permuted")):
        paired = zero_noise(second[heard] - second["same"])
        row |= Mean.of(paired, trials, seed).row(name)
    return row


def _summary(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    """The largest gap up to which having heard the list makes it easier."""
    easier, at_least = leading_run(rows, lambda row: row["saved_low"] > 0)
    copies = {"tokens": easier[-1]["gap"] if easier else None, "at_least": at_least}
    return subject.row(copies=copies, figure=reach_words(copies) if easier else "none shown")


Member = Echo
