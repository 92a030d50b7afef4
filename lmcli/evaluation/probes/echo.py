"""A list said twice: does it come easier the second time?

**In:** runs, held-out text.
**Out:** by the number of tokens between: repeat surprisal, 100 = as hard as the first time.

Ten content words of the text's own vocabulary, g tokens of held-out text, the same ten words again:

    repeat surprisal = 100 * median loss of the second list's words 2..10 / that of the first's

Controls: the second list in another order (permuted), and ten other words (novel), which is what
knowing nothing gives. Works with any text. Armeni, Honey and Linzen (2022).
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
from lmcli.evaluation.state_batches import Ids, advance, documents, token_nll
from lmcli.evaluation.statistics import Floats, block_weights, limits, weighted_medians
from lmcli.registry import TOKENIZERS
from lmcli.report.result import COUNT, Column, Figure, Metric
from lmcli.settings import setting

LISTS = ("repeated", "permuted", "novel")
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
    picture = Figure(
        "a list said twice: loss the second time, 100 = as the first time", (), (),
        Metric("", 0), "tokens between the lists", 100.0,
    )  # fmt: skip
    columns = (
        Column("gap", COUNT, "gap"),
        *interval_columns("second time", Metric("", 1)),
        Column("permuted", Metric("permuted", 1)),
        Column("chance", Metric("novel", 1)),
        Column("count", COUNT, "lists"),
    )
    note = "novel: ten other words instead, which is what knowing nothing gives"

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


def _trials(words: Sequence[str], settings: Any, seed: int) -> list[tuple[list[list[str]], float]]:
    """The three lists of each trial, and where the text between is taken from, 0 to 1."""
    rng = np.random.default_rng(seed)
    trials, n = [], settings.words
    for _ in range(settings.trials):
        drawn = [words[i] for i in rng.choice(len(words), 2 * n, replace=False)]
        permuted = [drawn[(i + 1) % n] for i in rng.permutation(n)]
        trials.append(([drawn[:n], permuted, drawn[n:]], float(rng.random())))
    return trials


def _encode(subject: ProbedModel, words: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The ids of a list, and for each the number of the word it belongs to."""
    lead = " " if subject.tokenizer.spells else ""
    encoded = subject.tokenizer.encode_with_ends(lead + " ".join(words))
    word_ends = np.cumsum([len(lead) + len(words[0]), *(1 + len(w) for w in words[1:])])
    return encoded.ids.astype(np.int64), np.searchsorted(word_ends, encoded.ends, "left")


@torch.inference_mode()
def measure(
    subject: ProbedModel, data: ProbeData, words: Sequence[str], settings: Any, seed: int
) -> list[dict[str, Any]]:
    """One row a gap."""
    model, start = subject.model, np.array([subject.tokenizer.start])
    trials = _trials(words, settings, seed)
    lists = {n: [_encode(subject, t[k]) for t, _ in trials] for k, n in enumerate(LISTS)}
    opening = [np.concatenate([start, ids]) for ids, _ in lists["repeated"]]
    initial = model.initial_state(len(trials))
    first = _word_nats(token_nll(model, opening, initial), lists["repeated"])
    after_first = advance(model, [ids[:-1] for ids in opening], initial)
    stream = np.concatenate([d[1:] for d in documents(subject.tokenizer, data.held_out)])
    rows = []
    for gap in gaps(min(settings.longest, len(stream))):
        places = [int(place * (len(stream) - gap + 1)) for _, place in trials]
        ends = zip(opening, places, strict=True)
        between = [np.concatenate([ids[-1:], stream[p : p + gap]]) for ids, p in ends]
        state = advance(model, [b[:-1] for b in between], after_first)
        second = {}
        for name, some in lists.items():
            pairs = zip(between, some, strict=True)
            again = [np.concatenate([b[-1:], ids]) for b, (ids, _) in pairs]
            second[name] = _word_nats(token_nll(model, again, state), some)
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
    """Repeat surprisal with its interval, those of the controls, what is saved against novel."""
    trials = np.repeat(np.arange(len(first)), first.shape[1])
    weights = block_weights(trials, seed)
    base = weighted_medians(first.ravel(), weights)
    middle = float(np.median(first))
    drawn = {name: 100 * weighted_medians(second[name].ravel(), weights) / base for name in LISTS}
    value = {name: 100 * float(np.median(second[name])) / middle for name in LISTS}
    low, high = limits(drawn["repeated"])
    row = {"value": value["repeated"], "low": low, "high": high, "count": len(first)}
    row |= {"chance": value["novel"], "permuted": value["permuted"]}
    saved_low, saved_high = limits(drawn["novel"] - drawn["repeated"])
    saved = value["novel"] - value["repeated"]
    return row | {"saved": saved, "saved_low": saved_low, "saved_high": saved_high}


def _summary(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    """The largest gap up to which the second list is easier than a novel one."""
    easier, at_least = leading_run(rows, lambda row: row["saved_low"] > 0)
    copies = {"tokens": easier[-1]["gap"] if easier else None, "at_least": at_least}
    return subject.row(copies=copies, figure=reach_words(copies) if easier else "none shown")


Member = Echo
