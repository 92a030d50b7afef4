"""What came before, recognised: words of the text that return, or facts a grammar has hidden.

**In:** runs, the text's held-out part; the items of a grammar where they lie beside the text.
**Out:** forced choice by the distance between cue and target: real, and with the memory exchanged.

On a user's text every target stands exactly once before (`items.py`), and is tried with the same
last tokens four times over (`scores.py`): `real`; `amnesic`, the state after the cue exchanged for
one from elsewhere; `swapped`, a foil in the cue's place; `placebo`, another word near the cue
exchanged, which should change nothing. A run *reaches back* as far as the real state beats the
amnesic one and the swap moves the odds, both with lower 95 % limits above zero (`reach.py`).
Khandelwal et al. (2018) and Gulordava et al. (2018) are the models of this.
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
    interval_columns,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects, labels
from lmcli.evaluation.probes.recall.grammar_items import GrammarRecall
from lmcli.evaluation.probes.recall.items import (
    FOILS,
    ORDER,
    ItemMiner,
    RecallItem,
    cut_blocks,
)
from lmcli.evaluation.probes.recall.reach import (
    LEAST_STRETCHES,
    Evidence,
    buckets_of,
    measure,
    measure_placebo,
    reach_of,
    stretches,
)
from lmcli.evaluation.probes.recall.scores import RecallScores, try_items
from lmcli.evaluation.statistics import Estimate, against_best, stretch_variance
from lmcli.evaluation.text_evidence import demo_command, no_reach
from lmcli.models.base import FixedContext
from lmcli.report.result import COUNT, PERCENT, WHOLE_PERCENT, Column, Figure, Metric, text
from lmcli.settings import setting

CHANCE = 1 / (1 + FOILS)
CONTROL = f"{ORDER}-gram"
PLACEBO = "placebo"
DIFFERENT = 0.05
"""p below which two runs differ"""


@dataclass(frozen=True)
class RecallSettings:
    """How many items, and from how much text."""

    items: int = setting(ITEMS_PER_GAP, "items per bucket of distance, at the most", least=1)
    block: int = setting(2000, "tokens in a block; the state is reset at its start", least=16)
    fewest: int = setting(30, "a bucket with fewer items is tested together with the next", least=1)
    least_text: int = setting(100_000, "characters of text below which it is not tried", least=0)


class Recall(Probe):
    """Forced choice between a word that came before and four that did not."""

    name = "recall"
    Settings = RecallSettings
    x = "gap"
    picture = Figure(
        "knows a word again: right out of five, by tokens since it came", (), (),
        PERCENT, "up to N tokens back", CHANCE,
        read=(
            "A word that came N tokens ago is offered beside four that did not come: a point says "
            "how often the model prefers the right one (95 % intervals). The dashed line is chance."
        ),
        caution=(
            "A model may prefer the word because the topic makes it likely, not because it was "
            "kept; the control of lmcli probe recall, which only counts words, shows how much."
        ),
    )  # fmt: skip
    columns = (
        Column("bucket", text("gap")),
        *interval_columns("right", WHOLE_PERCENT),
        Column("count", Metric("of")),
        Column("retained", Metric("retained", 2)),
        Column("gain", Metric("gain", 2, error="gain_half")),
        Column("log_odds", Metric("log-odds", 2, error="log_odds_half")),
        Column("flip_rate", WHOLE_PERCENT, "flips"),
        Column("swaps", COUNT, "of"),
    )
    note = (
        "retained: 1 knows the word, 0 knows nothing; gain: nats lost with a state from elsewhere; "
        "log-odds: nats that the cue adds against a swapped one; flips: chance 50 %; placebo: "
        "another word is swapped"
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
                f"(from {settings.least_text:,} on); {_another_text(data)}"
            )
        return None

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Items of the grammar where there are any, else the words of the text that return."""
        if data.items is not None:
            return GrammarRecall().run(subjects, data, settings, seed)
        found = find_items(subjects, data, settings, seed)
        if not found.items:
            return _nothing(subjects, data)
        asked = [*subjects, found.control()]
        tried = {s.name: try_items(s, found.blocks, found.items, seed) for s in asked}
        gaps = tried[subjects[0].name].gaps
        evidence = {s.name: found.evidence(tried[s.name]) for s in subjects}
        evidence[CONTROL] = found.evidence(tried[CONTROL], gaps)
        return self._result(asked, evidence, data, settings.fewest)

    def _result(
        self, asked: Subjects, evidence: dict[str, Evidence], data: ProbeData, fewest: int
    ) -> ProbeResult:
        """Tables and verdicts; the last of those asked is the control."""
        subjects, names = asked[:-1], labels(asked[:-1])
        rows = {s.name: _rows(s, evidence[s.name], fewest) for s in asked}
        summary = [_summary(s, rows[s.name]) for s in subjects]
        placebos = [
            {"run": f"{PLACEBO}: {names[s.name]}", "arch": PLACEBO, **row}
            for s in subjects
            if (row := measure_placebo(evidence[s.name]))
        ]
        notes = [self.note, *_unmeasured(summary, evidence[subjects[0].name], fewest)]
        tokens = [row["reach"]["tokens"] for row in summary]
        free = [n for s, n in zip(subjects, tokens, strict=True) if not _is_fixed(s)]
        too_little = ""
        if free and not any(tokens):
            swaps = len(evidence[subjects[0].name].gaps)
            too_little = _too_little(data) if None in tokens else no_reach(data.texts, swaps)
        return self.result(
            subjects,
            [*itertools.chain(*rows.values()), *placebos],
            summary,
            notes=[*notes, *filter(None, [too_little])],
            differences=_differences(subjects, evidence),
            too_little=too_little,
        )

    def combine(self, subjects: Subjects, results: Sequence[ProbeResult]) -> ProbeResult:
        """Items of a grammar have columns of their own."""
        by_items = any("kind" in row for result in results for row in result.rows)
        return Probe.combine(GrammarRecall() if by_items else self, subjects, results)

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """The curve of the buckets with enough items."""
        return [self.curve(subjects, [row for row in rows if row.get("measured")] or rows)]

    def verdict(self, row: Row) -> str:
        """How far back the run reaches."""
        tokens = row["reach"]["tokens"]
        if tokens is None:
            return f"{row['model']}: {TOO_LITTLE}"
        reach = f"reaches back at least {tokens:,} tokens" if tokens else "shows no reach"
        return f"{row['model']} {reach}"


TOO_LITTLE = "too little text to tell"


@dataclass(frozen=True)
class FoundItems:
    """The same items for all runs, and what they come from."""

    blocks: Sequence[str]
    items: Sequence[RecallItem]
    miner: ItemMiner

    def control(self) -> ProbedModel:
        """The n-gram that the items were chosen by, scored like a run."""
        ngram = self.miner.ngram
        return ProbedModel(CONTROL, "control", ngram, self.miner.words, lambda: ngram)

    def evidence(self, tried: RecallScores, gaps: Any = None) -> Evidence:
        """What the items show of a run; `gaps` in another one's tokens."""
        items = self.items
        begins = np.concatenate([[0], np.cumsum([len(block) for block in self.blocks])])
        places = np.array([begins[item.block] + item.target[0] for item in items])
        without = np.array([item.placebo is None for item in items])
        return Evidence(
            gaps=tried.gaps if gaps is None else gaps,
            stretch=stretches(places, int(begins[-1])),
            balanced=np.array([item.balanced for item in items]),
            right=tried.right("real"),
            amnesic_right=tried.right("amnesic"),
            u=tried.log_share("real"),
            gain=tried.gain(),
            log_odds=tried.log_odds(),
            placebo=np.where(without, np.nan, tried.log_odds("placebo")),
            words=np.array([item.between for item in items]),
            echo=np.array([item.echo for item in items]),
        )


def find_items(subjects: Subjects, data: ProbeData, settings: Any, seed: int) -> FoundItems:
    """Items of the held-out text; words that a run cannot spell are left out."""
    miner = ItemMiner(data.train)
    tokenizers = [s.tokenizer for s in subjects]
    blocks = cut_blocks(data.held_out, [*tokenizers, miner.words], settings.block)
    spelt: dict[str, bool] = {}

    def fits(word: str) -> bool:
        if word not in spelt:
            spelt[word] = all(_spells(t, word) for t in tokenizers)
        return spelt[word]

    rng = np.random.default_rng(seed)
    return FoundItems(blocks, miner.mine(blocks, settings.items, fits, rng), miner)


def _is_fixed(subject: ProbedModel) -> bool:
    """Whether it reaches no further than its context in any text."""
    return isinstance(subject.model, FixedContext)


def _spells(tokenizer: Any, word: str) -> bool:
    ids = tokenizer.encode(word)
    return tokenizer.unknown not in ids and (tokenizer.spells or len(ids) == 1)


# ------------------------------------------------------------------ rows


def _rows(subject: ProbedModel, evidence: Evidence, fewest: int) -> list[dict[str, Any]]:
    """One row a bucket."""
    buckets = buckets_of(evidence.gaps, fewest)
    return [subject.row(**measure(evidence, bucket, CHANCE)) for bucket in buckets]


def _summary(subject: ProbedModel, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reach; how far it was measured; the words that lie between at the reach."""
    reach, shown = reach_of(rows), "none shown"
    tested = [row for row in rows if row["measured"]]
    reached = [row for row in tested if row["shortest"] <= (reach["tokens"] or 0)]
    if reach["tokens"] is None:
        shown = "too little text"
    elif reach["tokens"]:
        shown = reach_words({**reach, "at_least": True})
    words = reached[-1]["words"] if reached else None
    measured = tested[-1]["longest"] if tested else None
    return subject.row(reach=reach, words=words, measured_to=measured, figure=shown)


def _unmeasured(summary: Sequence[Row], evidence: Evidence, fewest: int) -> list[str]:
    """A line on gaps at which there are too few items."""
    measured = summary[0]["measured_to"]
    if measured is None or evidence.gaps.max() <= measured:
        return []
    return [f"beyond {measured:,} tokens fewer than {fewest} words return: not measured"]


def _too_little(data: ProbeData) -> str:
    return f"{TOO_LITTLE} how far back a run reaches; {_another_text(data)}"


def _another_text(data: ProbeData) -> str:
    command = demo_command(data.texts)
    return f"probe echo works with any text, and {command} makes a text that shows memory"


def _differences(subjects: Subjects, evidence: dict[str, Evidence]) -> list[dict[str, Any]]:
    """Each run against the best one: what memory adds to the target, over all items."""
    gains = {s.name: evidence[s.name].gain for s in subjects}
    best = max(gains, key=lambda name: gains[name].mean())
    others = [name for name in gains if name != best]
    _, number = np.unique(evidence[best].stretch, return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    if not others or len(sizes) < LEAST_STRETCHES:
        return []
    apart = np.stack([gains[name] - gains[best] for name in others])
    sums = np.stack([np.bincount(number, row).astype(np.float64) for row in apart])
    degrees = np.array(len(sizes) - 1.0)
    estimate = Estimate.of(apart.mean(1), [(stretch_variance(sums, sizes), degrees)])
    holm = against_best(estimate.p())
    rows = []
    for i, name in enumerate(others):
        one = Estimate(estimate.value[i], estimate.error[i], estimate.degrees[i])
        mean, half = float(one.value), one.half_width()
        row = {"a": name, "b": best, "gain": mean, "low": mean - half, "high": mean + half}
        verdict = "worse" if holm[i] < DIFFERENT else "no detectable difference"
        rows.append(row | {"p_holm": float(holm[i]), "verdict": verdict})
    return rows


def _nothing(subjects: Subjects, data: ProbeData) -> ProbeResult:
    note = f"no content word of the held-out text returns; {_another_text(data)}"
    none = {"tokens": None, "at_least": False}
    summary = [s.row(reach=none, words=None, figure="not measured") for s in subjects]
    middle = Recall().middle(subjects, summary)
    return ProbeResult("recall", [], note, summary, notes=[note], too_little=note, middle=middle)
