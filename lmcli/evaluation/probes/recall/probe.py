"""What came before, recognised: words of the text that return, or facts a grammar has hidden.

**In:** runs, the text's held-out part; the items of a grammar where they lie beside the text.
**Out:** forced choice by the distance between cue and target: real, and with the memory exchanged.

On a user's text every target stands exactly once before (`items.py`), and is tried with the same
last tokens three times over: `real`; `amnesic`, the state after the cue exchanged for one from
elsewhere; `swapped`, a foil in the cue's place. A run *reaches back* as far as the real state beats
the amnesic one and the swap moves the odds, in that bucket and in all smaller ones, with the lower
95 % limits above zero. Khandelwal et al. (2018) and Gulordava et al. (2018) are the models of this.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.evaluation.forced_choice import ITEMS_PER_GAP
from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    bucket_bound,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.recall.grammar_items import GrammarRecall
from lmcli.evaluation.probes.recall.items import (
    FOILS,
    ItemMiner,
    RecallItem,
    choose_items,
    cut_blocks,
)
from lmcli.evaluation.probes.recall.scores import RecallScores, try_items
from lmcli.evaluation.statistics import (
    Floats,
    block_weights,
    limits,
    weighted_means,
    weighted_medians,
    wilson,
)
from lmcli.evaluation.text_evidence import demo_command, no_reach
from lmcli.models.base import FixedContext
from lmcli.report.result import COUNT, PERCENT, Column, Figure, Metric, text
from lmcli.settings import setting

CHANCE = 1 / (1 + FOILS)
SMALLEST = 8
"""upper bound of the first bucket"""
CONTROL = "n-gram of order 4"


@dataclass(frozen=True)
class RecallSettings:
    """How many items, and from how much text."""

    items: int = setting(ITEMS_PER_GAP, "items per bucket of distance, at the most", least=1)
    block: int = setting(2000, "tokens in a block; the state is reset at its start", least=16)
    fewest: int = setting(30, "a bucket with fewer items is merged with its neighbour", least=1)
    least_text: int = setting(100_000, "characters of text below which it is not tried", least=0)


class Recall(Probe):
    """Forced choice between a word that came before and four that did not."""

    name = "recall"
    Settings = RecallSettings
    x = "gap"
    picture = Figure(
        "knows a word again: right out of five, by tokens since it came", (), (),
        PERCENT, "up to N tokens back", CHANCE,
    )  # fmt: skip
    columns = (
        Column("bucket", text("gap")),
        Column("words", Metric("words")),
        *interval_columns("right", PERCENT),
        Column("amnesic", PERCENT, "amnesic"),
        Column("flip_rate", PERCENT, "flips"),
        Column("median_log_odds", Metric("log-odds", 2)),
        Column("count", COUNT),
    )
    note = (
        "amnesic: the state after the cue comes from elsewhere; flips: a swapped cue turns the "
        "odds (chance 50 %)"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """A text of some size and the training part, or items of a grammar."""
        if data.items is not None:
            return GrammarRecall().applies(subject, data, settings)
        if not data.train:
            return "the text it was trained on is not at hand"
        if data.chars < settings.least_text:
            return (
                f"{data.chars:,} characters of text are too few for recall "
                f"(from {settings.least_text:,} on); probe echo works with any text, "
                f"and {demo_command(data.texts)} makes a text that shows memory"
            )
        return None

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Items of the grammar where there are any, else the words of the text that return."""
        if data.items is not None:
            return GrammarRecall().run(subjects, data, settings, seed)
        blocks, items = find_items(subjects, data, settings, seed)
        if not items:
            return _nothing(subjects, data)
        tried = {s.name: try_items(s, blocks, items, seed) for s in subjects}
        curves = [measure(s, tried[s.name], items, settings.fewest, seed) for s in subjects]
        rows = list(itertools.chain(*curves))
        control = _control(items, tried[subjects[0].name], settings.fewest)
        summary = [_summary(*pair) for pair in zip(subjects, curves, strict=True)]
        reaches = [row["reach"]["tokens"] for row in summary]
        free = [r for s, r in zip(subjects, reaches, strict=True) if not _is_fixed(s)]
        too_little = "" if any(reaches) or not free else no_reach(data.texts, len(items))
        return self.result(
            subjects,
            [*rows, *control],
            summary,
            notes=[self.note, *filter(None, [too_little])],
            differences=_differences(subjects, tried, items, seed),
            too_little=too_little,
        )

    def combine(self, subjects: Subjects, results: Sequence[ProbeResult]) -> ProbeResult:
        """Items of a grammar have columns of their own."""
        by_items = any("kind" in row for result in results for row in result.rows)
        return Probe.combine(GrammarRecall() if by_items else self, subjects, results)

    def verdict(self, row: Row) -> str:
        """How far back the run reaches."""
        tokens = row["reach"]["tokens"]
        reach = f"reaches back at least {tokens:,} tokens" if tokens else "shows no reach"
        return f"{row['model']} {reach}"


def find_items(
    subjects: Subjects, data: ProbeData, settings: Any, seed: int
) -> tuple[list[str], list[RecallItem]]:
    """The same items for all; words that a run cannot spell are left out."""
    miner = ItemMiner(data.train)
    tokenizers = [s.tokenizer for s in subjects]
    blocks = cut_blocks(data.held_out, [*tokenizers, miner.words], settings.block)
    rng = np.random.default_rng(seed)
    every = [c for number, b in enumerate(blocks) for c in miner.candidates(number, b)]
    items = miner.items(every, rng)
    words = {word for item in items for word in item.words}
    spelt = {word: all(_spells(t, word) for t in tokenizers) for word in words}
    fair = [item for item in items if all(spelt[word] for word in item.words)]
    return blocks, choose_items(fair, settings.items, rng)


def _is_fixed(subject: ProbedModel) -> bool:
    """Whether it reaches no further than its context in any text."""
    return isinstance(subject.model, FixedContext)


def _spells(tokenizer: Any, word: str) -> bool:
    ids = tokenizer.encode(word)
    return tokenizer.unknown not in ids and (tokenizer.spells or len(ids) == 1)


# ------------------------------------------------------------------ one run by bucket


@dataclass(frozen=True)
class Bucket:
    """Items whose gaps are from `low` to `high` tokens."""

    low: int
    high: int
    items: np.ndarray[Any, Any]


def buckets_of(gaps: np.ndarray[Any, Any], fewest: int) -> list[Bucket]:
    """Powers of two; one with too few items joins the next, the last one the one before."""
    edges = np.array([bucket_bound(max(SMALLEST, int(g))) for g in gaps])
    buckets: list[Bucket] = []
    low, waiting = 1, np.empty(0, np.int64)
    for high in sorted(set(edges.tolist())):
        waiting = np.concatenate([waiting, np.flatnonzero(edges == high)])
        if len(waiting) >= fewest:
            buckets.append(Bucket(low, high, waiting))
            low, waiting = high + 1, np.empty(0, np.int64)
    if len(waiting):
        last = buckets.pop() if buckets else Bucket(1, 1, np.empty(0, np.int64))
        both = np.concatenate([last.items, waiting])
        buckets.append(Bucket(last.low, int(edges.max()), both))
    return buckets


def measure(
    subject: ProbedModel, tried: RecallScores, items: Sequence[RecallItem], fewest: int, seed: int
) -> list[dict[str, Any]]:
    """One row a bucket."""
    rows = []
    blocks = np.array([item.block for item in items])
    words = np.array([item.between for item in items])
    echo = np.array([item.echo for item in items])
    for bucket in buckets_of(tried.gaps, fewest):
        i = bucket.items
        weights = block_weights(blocks[i], seed)
        real, amnesic = tried.right("real")[i], tried.right("amnesic")[i]
        odds = tried.log_odds()[i]
        low, high = wilson(int(real.sum()), len(i))
        gain_low, gain_high = limits(weighted_means(real - amnesic, weights))
        flips = np.where(odds == 0, 0.5, odds > 0)
        odds_low, odds_high = limits(weighted_medians(odds, weights))
        flip_low, flip_high = limits(weighted_means(flips, weights))
        row = subject.row(gap=bucket.high, gap_from=bucket.low, value=float(real.mean()))
        row |= {"low": low, "high": high, "count": len(i), "chance": CHANCE}
        row |= {"amnesic": float(amnesic.mean()), "gain": float((real - amnesic).mean())}
        row |= {"gain_low": gain_low, "gain_high": gain_high, "flip_rate": float(flips.mean())}
        row |= {"flip_low": flip_low, "flip_high": flip_high, "flip_chance": 0.5}
        row |= {"median_log_odds": float(np.median(odds)), "usable": float((odds > 0.1).mean())}
        row |= {"log_odds_low": odds_low, "log_odds_high": odds_high}
        row |= {"words": float(np.median(words[i])), "echo": float(echo[i].mean())}
        rows.append(row | {"longest": int(tried.gaps[i].max())})
    return rows


def reach_of(rows: Rows) -> dict[str, Any]:
    """How far back a run remembers: {"tokens": R, "at_least": whether more could not be tried}.

    R is the upper bound of the largest bucket in which, and in all smaller ones, memory shows.
    """
    ordered = sorted(rows, key=lambda r: int(r["gap"]))
    near, in_all = leading_run(ordered, lambda r: r["gain_low"] > 0 and r["log_odds_low"] > 0)
    tokens = min(near[-1]["gap"], near[-1]["longest"]) if near else 0
    return {"tokens": tokens, "at_least": bool(near) and in_all}


def _summary(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    reach = reach_of(rows)
    words = [r["words"] for r in rows if r["gap"] <= max(reach["tokens"], SMALLEST)]
    shown = reach_words(reach) if reach["tokens"] else "none shown"
    return subject.row(reach=reach, words=max(words, default=None), figure=shown)


# ------------------------------------------------------------------ several runs


def _control(items: Sequence[RecallItem], tried: RecallScores, fewest: int) -> list[dict[str, Any]]:
    """What an n-gram gets that sees no more than three words back: 20 % by construction."""
    right = np.array([item.ngram_right for item in items])
    rows = []
    for bucket in buckets_of(tried.gaps, fewest):
        mine = right[bucket.items]
        low, high = wilson(int(mine.sum()), len(mine))
        row = {"run": CONTROL, "arch": "control", "gap": bucket.high, "gap_from": bucket.low}
        row |= {"value": float(mine.mean()), "low": low, "high": high}
        rows.append(row | {"count": len(mine), "chance": CHANCE})
    return rows


def _differences(
    subjects: Subjects,
    tried: dict[str, RecallScores],
    items: Sequence[RecallItem],
    seed: int,
) -> list[dict[str, Any]]:
    """Each run against the best one: what memory adds to forced choice, over all items."""
    gains: dict[str, Floats] = {
        s.name: tried[s.name].right("real") - tried[s.name].right("amnesic") for s in subjects
    }
    best = max(gains, key=lambda name: gains[name].mean())
    weights = block_weights(np.array([item.block for item in items]), seed)
    rows = []
    for name in (n for n in gains if n != best):
        apart = gains[name] - gains[best]
        low, high = limits(weighted_means(apart, weights))
        verdict = "worse" if high < 0 else "better" if low > 0 else "no detectable difference"
        row = {"a": name, "b": best, "gain": float(apart.mean()), "low": low, "high": high}
        rows.append(row | {"verdict": verdict})
    return rows


def _nothing(subjects: Subjects, data: ProbeData) -> ProbeResult:
    note = (
        "no word of the held-out text returns with fair rivals; probe echo works with any text, "
        f"and {demo_command(data.texts)} makes a text that shows memory"
    )
    none = {"tokens": 0, "at_least": False}
    summary = [s.row(reach=none, words=None, figure="not measured") for s in subjects]
    middle = Recall().middle(subjects, summary)
    return ProbeResult("recall", [], note, summary, notes=[note], too_little=note, middle=middle)
