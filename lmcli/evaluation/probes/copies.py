"""Associative recall in a text: a word that followed another before, when the other returns.

**In:** runs, held-out text, the training part.
**Out:** by gap: G, what such a word costs more when the state after its first mention is exchanged
for that of another place; and the same for words that return after another word.

    G = mean [l(x_t) with a foreign state after x_j - l(x_t)]          x_j = x_t, nothing between

A *copy* is an x_t whose pair (x_(t-1), x_t) stands at j too; a *control* one whose x_(t-1) differs
from x_(j-1), and whose pair did not come before in its block. Both pairs come at most twice in the
training part, so that no count of pairs knows them, and controls are as frequent words at the same
gaps. What copies have beyond controls is association: of which word came after which. G is exactly
0 beyond the window of an n-gram. Arora et al. (2023), "Zoology", find in such pairs most of what
attention has beyond other architectures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.forced_choice import WordScorer, encode_words, first_unknown
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
from lmcli.evaluation.probes.recall.items import FREQUENT, PER_TYPE, ItemMiner, cut_blocks
from lmcli.evaluation.probes.sampling import Places, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, row_bytes, stack, take
from lmcli.evaluation.statistics import STRETCHES, Floats, student_t
from lmcli.models.base import LanguageModel, State
from lmcli.report.result import COUNT, Column, Figure, Metric, text
from lmcli.settings import setting

SEEN = 2
"""times that a pair comes in the training part, at the most"""
SMALLEST = 8
"""upper bound of the first bucket"""
DONORS = 32
"""places whose states are taken for foreign ones"""
LEAST_STRETCHES = 8
"""of the held-out text; from fewer no interval is given"""
MEMORY = 1 << 27
"""bytes of states held at once"""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CopiesSettings:
    """How many words, and from how much text."""

    items: int = setting(64, "copies per bucket of distance, and as many controls", least=1)
    block: int = setting(4096, "tokens in a block; the state is reset at its start", least=16)
    fewest: int = setting(20, "a bucket with fewer copies is joined to the next", least=2)


class Copies(Probe):
    """What a foreign state costs a word that is due to come again, by gap."""

    name = "copies"
    Settings = CopiesSettings
    x = "gap"
    reach = "copies"
    picture = Figure(
        "word after word: nats that the memory of a pair is worth when it returns", (), (),
        Metric("nats", 3), "up to N tokens back",
    )  # fmt: skip
    columns = (
        Column("bucket", text("gap")),
        Column("words", Metric("words")),
        *interval_columns("G", Metric("", 3)),
        Column("control", Metric("control", 3)),
        *interval_columns("beyond", Metric("", 3), "association"),
        Column("count", COUNT, "copies"),
        Column("controls", COUNT, "controls"),
    )
    note = (
        "G: nats that a word costs more with a foreign state after its first mention; control: the "
        "same where another word stands before it; beyond: the difference"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only with the training part, in which pairs are counted."""
        return None if data.train else "the training text, which copies counts, is not at hand"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """The same words and foreign places for all runs."""
        found = find_copies(subjects, data, settings, seed)
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for subject in subjects:
            own = measure(subject, found, settings.fewest) if found.items else []
            rows += own
            summary.append(_summary(subject, own))
        if not rows:
            copies = sum(item.copies for item in found.items)
            said = f"too few rare pairs of words return to tell: {copies}"
            return ProbeResult(self.name, [], said)
        return self.result(subjects, rows, summary)

    def verdict(self, row: Row) -> str:
        """How far back the run knows what came after what."""
        if row["copies"]["tokens"] is None:
            return f"{row['model']}: not measured"
        if not row["copies"]["tokens"]:
            return f"{row['model']} shows no memory of which word came after which"
        return f"{row['model']} knows which word came after which {reach_words(row['copies'])} back"


# ------------------------------------------------------------------ words that return


@dataclass(frozen=True)
class Repeat:
    """A word that stands before in its block, the last time `between` words back."""

    block: int
    cue: int
    """offset in the block's text of the end of the first mention"""
    target: int
    """that of the beginning of the second"""
    word: str
    between: int
    octave: int
    """of the word's frequency in the training part"""
    copies: bool
    """whether the word before is the same both times"""

    @property
    def distance(self) -> int:
        """Bucket, in characters, which is fair to all tokenizers."""
        return bucket_bound(self.target - self.cue)


@dataclass(frozen=True)
class Found:
    """Items, and the places whose states are foreign to them."""

    blocks: Sequence[str]
    items: Sequence[Repeat]
    stretch: Places
    """of the held-out text, for each item"""
    donors: Sequence[tuple[int, float]]
    """block, and the share of it that is read"""
    which: Places
    """the donor of each item"""


def find_copies(subjects: Subjects, data: ProbeData, settings: Any, seed: int) -> Found:
    """Copies and controls that all runs can spell."""
    miner = ItemMiner(data.train)
    tokenizers = [s.tokenizer for s in subjects]
    blocks = cut_blocks(data.held_out, [*tokenizers, miner.words], settings.block)
    rng = np.random.default_rng(seed)
    ids = encode_documents(miner.words, data.train).astype(np.int64)
    pairs, counts = np.unique(_pair(miner, ids[:-1], ids[1:]), return_counts=True)
    known = set(pairs[counts > SEEN].tolist())
    asked = miner.alphabetic.copy()
    asked[np.argsort(-miner.log_count, kind="stable")[:FREQUENT]] = False
    every = [
        item
        for number, block in enumerate(blocks)
        for item in repeats(miner, asked, known, number, block)
    ]
    words = {item.word for item in every}
    spelt = {w for w in words if not any(first_unknown(t, [w]) for t in tokenizers)}
    items = choose([item for item in every if item.word in spelt], settings.items, rng)
    firsts = np.cumsum([0, *map(len, blocks)])
    places = np.array([firsts[item.block] + item.target for item in items], np.int64)
    if not items:
        return Found(blocks, [], places, [], places)
    donors = [(int(rng.integers(len(blocks))), 0.5 + rng.random() / 2) for _ in range(DONORS)]
    where = np.array([block for block, _ in donors])
    which = np.empty(len(items), np.int64)
    for i, item in enumerate(items):
        others = np.flatnonzero(where != item.block)
        which[i] = rng.choice(others if len(others) else DONORS)
    return Found(blocks, items, places * STRETCHES // max(1, firsts[-1]), donors, which)


def _pair(miner: ItemMiner, first: Any, second: Any) -> Any:
    """The number of a pair of words."""
    return first * (miner.words.size + 1) + second


def repeats(
    miner: ItemMiner, asked: Flags, known: set[int], number: int, block: str
) -> Iterator[Repeat]:
    """The copies and controls of a block among the words that are asked; pairs known are none."""
    encoded = miner.words.encode_with_ends(block)
    ids, ends = encoded.ids.tolist(), encoded.ends.tolist()
    last = dict[int, int]()  # the last place of each word
    seen = set[int]()
    for t, word in enumerate(ids):
        pair = _pair(miner, ids[t - 1], word) if t else -1
        j = last.get(word, t)
        copies = j > 0 and ids[j - 1] == ids[t - 1]
        if t - j > 1 and asked[word] and pair not in known and (copies or pair not in seen):
            symbol, octave = miner.symbols[word], int(miner.log_count[word])
            begin, between = ends[t] - len(symbol), t - j - 1
            yield Repeat(number, ends[j], begin, symbol, between, octave, copies)
        last[word] = t
        seen.add(pair)


def choose(items: Sequence[Repeat], most: int, rng: np.random.Generator) -> list[Repeat]:
    """At most `most` copies a bucket, three of a word in each; controls of the same frequencies."""
    order = [items[i] for i in rng.permutation(len(items)).tolist()]
    chosen, types, buckets = list[Repeat](), Counter[tuple[bool, int, str]](), Counter[int]()
    wanted = Counter[tuple[int, int]]()
    for item in [*(i for i in order if i.copies), *(i for i in order if not i.copies)]:
        kind, same = (item.distance, item.octave), (item.copies, item.distance, item.word)
        fits = buckets[item.distance] < most if item.copies else wanted[kind] > 0
        if fits and types[same] < PER_TYPE:
            chosen.append(item)
            types[same] += 1
            wanted[kind] += 1 if item.copies else -1
            buckets[item.distance] += item.copies
    return chosen


# ------------------------------------------------------------------ gains


@dataclass(frozen=True)
class _Placed:
    """Where an item lies, in tokens of its block; the start id counts."""

    after: int
    """the first token after the first mention"""
    last: int
    """the token before the second"""
    word: list[int]


def gains(subject: ProbedModel, found: Found) -> tuple[Floats, Places]:
    """What a foreign state costs each item, and its gap in tokens. Shapes: -> (N,), (N,)."""
    model, tokenizer = subject.model, subject.tokenizer
    encoded = [tokenizer.encode_with_ends(block) for block in found.blocks]
    streams = [np.append(tokenizer.start, e.ids).astype(np.int64) for e in encoded]
    placed = []
    for item in found.items:
        ends = encoded[item.block].ends
        left = found.blocks[item.block][: item.target]
        edge, (word,) = encode_words(tokenizer, left, [item.word])
        after = 2 + int(np.searchsorted(ends, item.cue, "left"))
        placed.append(_Placed(after, int(np.searchsorted(ends, edge, "right")), word))
    read = [streams[block][: int(share * len(streams[block]))] for block, share in found.donors]
    foreign = advance(model, read, model.initial_state(len(read)))
    scorer = WordScorer(model, tokenizer)
    gained = np.empty(len(placed))
    blocks, lasts = [i.block for i in found.items], [p.last for p in placed]
    for some, real in states_before(model, streams, blocks, lasts):
        between = [streams[blocks[i]][placed[i].after : lasts[i]] for i in some]
        other = advance(model, between, take(foreign, found.which[some]))
        last = np.array([streams[blocks[i]][lasts[i]] for i in some])
        words = [[placed[i].word] for i in some] * 2
        scores = scorer.scores(np.tile(last, 2), words, stack([real, other]))[:, 0]
        gained[some] = np.subtract(*np.split(scores, 2))
    return zero_noise(gained), np.array([p.last - p.after + 1 for p in placed])


def states_before(
    model: LanguageModel, streams: Sequence[Ids], rows: Sequence[int], places: Sequence[int]
) -> Iterator[tuple[list[int], State]]:
    """Numbers of some of the places, each in its row, with the states before them.

    All rows are read side by side, from one of their places to the next.
    """
    due: list[list[int]] = [[] for _ in streams]
    for number in np.argsort(places, kind="stable").tolist():
        due[rows[number]].append(number)
    most = max(len(streams), MEMORY // row_bytes(model))
    state, at = model.initial_state(len(streams)), [0] * len(streams)
    some, taken = list[int](), list[State]()
    for turn in range(max(map(len, due))):
        now = [row for row, numbers in enumerate(due) if len(numbers) > turn]
        to = at.copy()
        for row in now:
            to[row] = places[due[row][turn]]
        state = advance(model, [s[a:b] for s, a, b in zip(streams, at, to, strict=True)], state)
        at = to
        some += [due[row][turn] for row in now]
        taken.append(take(state, now))
        if len(some) + len(streams) > most:
            yield some, stack(taken)
            some, taken = [], []
    if some:
        yield some, stack(taken)


# ------------------------------------------------------------------ by gap


def measure(subject: ProbedModel, found: Found, fewest: int) -> list[dict[str, Any]]:
    """One row a bucket of gaps, the nearest first; none for what is left over at the far end."""
    gained, gaps = gains(subject, found)
    copies = np.array([item.copies for item in found.items])
    words = np.array([item.between for item in found.items])
    edges = np.array([bucket_bound(max(SMALLEST, gap)) for gap in gaps.tolist()])
    rows, low = list[dict[str, Any]](), 1
    for high in sorted(set(edges.tolist())):
        here = (low <= gaps) & (gaps <= high)
        own, control = here & copies, here & ~copies
        if own.sum() < fewest or len(set(found.stretch[own].tolist())) < LEAST_STRETCHES:
            continue  # joined to the next
        row = subject.row(gap=high, gap_from=low, chance=0.0, count=int(own.sum()))
        row |= {"controls": int(control.sum()), "words": float(np.median(words[own]))}
        row |= _limits("value", gained, found.stretch, own) | _limits(
            "control", gained, found.stretch, control
        )
        row |= _limits("association", gained, found.stretch, own, control)
        rows.append(row | {"shortest": int(gaps[own].min())})
        low = high + 1
    return rows


def _limits(
    name: str, values: Floats, stretch: Places, own: Flags, control: Flags | None = None
) -> dict[str, float | None]:
    """Mean, less that of a control, with its t interval from a jackknife over stretches."""

    def estimate(some: Flags) -> float:
        there = [values[some & part] for part in (own, control) if part is not None]
        means = [float(v.mean()) if len(v) else math.nan for v in there]
        return means[0] - sum(means[1:])

    every = np.ones(len(values), np.bool_)
    used = own if control is None else own | control
    numbers = np.unique(stretch[used]).tolist()
    left_out = np.array([estimate(stretch != number) for number in numbers])
    mean, half = estimate(every), math.nan
    if len(numbers) >= LEAST_STRETCHES:
        spread = float(left_out.std()) * math.sqrt(len(numbers) - 1)
        half = student_t(0.95, len(numbers) - 1) * spread
    prefix = "" if name == "value" else f"{name}_"
    found = {name: mean, f"{prefix}low": mean - half, f"{prefix}high": mean + half}
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _shows(row: Row) -> bool:
    return row["low"] > 0 and (row["association_low"] or 0.0) > 0


def _summary(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    """The smallest gap in the last bucket of those in which pairs are remembered."""
    known, in_all = leading_run(rows, _shows)
    tokens = known[-1]["shortest"] if known else 0 if rows else None
    reach = {"tokens": tokens, "at_least": bool(known) and in_all}
    figure = reach_words(reach) if known else "none shown" if rows else "not measured"
    return subject.row(copies=reach, figure=figure)


Member = Copies
