"""Items under conditions that differ in what the state can know of the cue.

**In:** a run, blocks of text, items.
**Out:** ln p of the five words of every item: real, amnesic, swapped, placebo.

All conditions read the same tokens between cue and target. A block is read once; what comes before
a cue or a target is read on from the state saved at the nearest place before it. All conditions of
many items are read side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from lmcli.evaluation.forced_choice import WordScorer, encode_words
from lmcli.evaluation.probes.data import ProbedModel
from lmcli.evaluation.probes.recall.items import RecallItem, Span
from lmcli.evaluation.probes.sampling import NOISE, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, padded, row_bytes, stack, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State

SAVED_EVERY = 32
MEMORY = 1 << 28
"""bytes of states held at once"""

Condition = Literal["real", "amnesic", "swapped", "placebo"]
CONDITIONS: tuple[Condition, ...] = ("real", "amnesic", "swapped", "placebo")


@dataclass(frozen=True)
class RecallScores:
    """ln p of each item's words, the target first. Shapes: scores (N, 5), gaps (N,) in tokens."""

    gaps: npt.NDArray[np.int64]
    scores: dict[Condition, Floats]

    def right(self, condition: Condition) -> Floats:
        """1 where the target beats all foils, else 0."""
        scores = self.scores[condition]
        won: Floats = (scores[:, 0] > scores[:, 1:].max(1) + NOISE).astype(np.float64)
        return won

    def log_share(self, condition: Condition) -> Floats:
        """u: ln of the target's probability among the five words; -ln 5 is knowing nothing."""
        scores = self.scores[condition]
        top = scores.max(1)
        share: Floats = scores[:, 0] - top - np.log(np.exp(scores - top[:, None]).sum(1))
        return share

    def gain(self) -> Floats:
        """Nats of u that the state at the cue adds; 0 is no trace."""
        return zero_noise(self.log_share("real") - self.log_share("amnesic"))

    def log_odds(self, exchanged: Condition = "swapped") -> Floats:
        """What the true text adds to the odds of target against swapped word; 0 is no trace."""
        real, other = self.scores["real"], self.scores[exchanged]
        return zero_noise((real[:, 0] - real[:, 1]) - (other[:, 0] - other[:, 1]))


@dataclass(frozen=True)
class _Exchange:
    """Other tokens in the place of those from `begin` to `end` of a block."""

    begin: int
    end: int
    ids: list[int]


@dataclass(frozen=True)
class _Placed:
    """Where an item lies, in tokens of its block; the start id counts."""

    block: int
    last: int
    """the place of the last token before the target"""
    cue: _Exchange
    placebo: _Exchange
    words: list[list[int]]


def try_items(
    subject: ProbedModel, blocks: Sequence[str], items: Sequence[RecallItem], seed: int
) -> RecallScores:
    """All items under all conditions; without a placebo, that condition is the real one."""
    streams, placed = _place(subject, blocks, items)
    model = subject.model
    scorer = WordScorer(model, subject.tokenizer)
    rng = np.random.default_rng(seed)
    some = max(8, MEMORY // (12 * row_bytes(model)))
    order = np.argsort([p.block for p in placed], kind="stable")
    scores = {c: np.zeros((len(items), len(items[0].words))) for c in CONDITIONS}
    for begin in range(0, len(order), some):
        rows = order[begin : begin + some]
        group = [placed[r] for r in rows]
        last, after = _states_after(model, streams, group, rng)
        words = [p.words for p in group]
        table = scorer.scores(np.tile(last, len(CONDITIONS)), words * len(CONDITIONS), after)
        for condition, part in zip(CONDITIONS, np.split(table, len(CONDITIONS)), strict=True):
            scores[condition][rows] = part
    return RecallScores(np.array([p.last - p.cue.end + 1 for p in placed]), scores)


def _place(
    subject: ProbedModel, blocks: Sequence[str], items: Sequence[RecallItem]
) -> tuple[list[Ids], list[_Placed]]:
    """Blocks as ids after a start id, and where in them the items are."""
    tokenizer = subject.tokenizer
    encoded = [tokenizer.encode_with_ends(b) for b in blocks]
    start = np.array([tokenizer.start])
    streams: list[Ids] = [np.concatenate([start, e.ids]) for e in encoded]

    def exchange(block: int, span: Span, word: str) -> _Exchange:
        """Another word in the place of the one that stands there."""
        ends, text = encoded[block].ends, blocks[block]
        own = text[slice(*span)]
        edge, (_, ids) = encode_words(tokenizer, text[: span[0]], (own, word))
        begin = 1 + int(np.searchsorted(ends, edge, "right"))
        return _Exchange(begin, 2 + int(np.searchsorted(ends, span[1], "left")), ids)

    placed = []
    for item in items:
        ends, text = encoded[item.block].ends, blocks[item.block]
        cue = exchange(item.block, item.cue, item.words[1])
        other = item.placebo
        placebo = exchange(item.block, other.span, other.word) if other else None
        edge, words = encode_words(tokenizer, text[: item.target[0]], item.words)
        last = int(np.searchsorted(ends, edge, "right"))
        nothing = _Exchange(last, last, [])
        placed.append(_Placed(item.block, last, cue, placebo or nothing, words))
    return streams, placed


def _states_after(
    model: LanguageModel,
    streams: Sequence[Ids],
    placed: Sequence[_Placed],
    rng: np.random.Generator,
) -> tuple[Ids, State]:
    """The last token before each target, and the states before it under all CONDITIONS."""
    places = [[p.last, p.cue.begin, p.placebo.begin] for p in placed]
    saved = _saved_states(model, streams, [p.block for p in placed], np.array(places).T)
    real, cue, placebo = saved
    states = {"real": real, "swapped": cue, "placebo": placebo}
    states["amnesic"] = take(cue, _donors(placed, rng))
    rows: dict[str, list[Ids]] = {c: [] for c in CONDITIONS}
    for p in placed:
        ids = streams[p.block]
        rows["real"].append(ids[_saved_before(p.last) : p.last])
        rows["amnesic"].append(ids[p.cue.end : p.last])
        for condition, other in (("swapped", p.cue), ("placebo", p.placebo)):
            before = ids[_saved_before(other.begin) : other.begin]
            rows[condition].append(np.concatenate([before, other.ids, ids[other.end : p.last]]))
    read = [row.astype(np.int64) for c in CONDITIONS for row in rows[c]]
    after = advance(model, read, stack([states[c] for c in CONDITIONS]))
    return np.array([streams[p.block][p.last] for p in placed]), after


def _saved_before(place: int) -> int:
    return place // SAVED_EVERY * SAVED_EVERY


@torch.inference_mode()
def _saved_states(
    model: LanguageModel,
    streams: Sequence[Ids],
    blocks: Sequence[int],
    places: npt.NDArray[np.int64],
) -> list[State]:
    """The states at the last saved place before each of some places of each item's block.

    Shapes: places (kinds, N) -> a state of N rows for each kind.
    """
    numbers = sorted(set(blocks))
    row = np.searchsorted(numbers, blocks)
    tokens = padded([streams[b] for b in numbers], model.start_id)
    due: dict[int, list[int]] = {}
    for number, place in enumerate((places // SAVED_EVERY).ravel().tolist()):
        due.setdefault(place, []).append(number)
    state = model.initial_state(len(numbers))
    taken: list[State] = []
    whose: list[int] = []
    for chunk in range(max(due) + 1):
        if chunk in due:
            taken.append(take(state, row[np.array(due[chunk]) % len(blocks)]))
            whose += due[chunk]
        begin = chunk * SAVED_EVERY
        _, state = model.last_logits(tokens[:, begin : begin + SAVED_EVERY], state)
    return [take(stack(taken), part) for part in np.split(np.argsort(np.array(whose)), len(places))]


def _donors(placed: Sequence[_Placed], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each item another one, whose state takes the place of its own.

    It is from another block, where there is one, and not from its very beginning.
    """
    block = np.array([p.block for p in placed])
    depth = np.array([p.cue.begin for p in placed]) // SAVED_EVERY
    donors = np.empty(len(placed), np.int64)
    for i in range(len(placed)):
        others = np.flatnonzero((block != block[i]) & (depth > 0))
        if len(others) == 0:
            others = np.flatnonzero(depth == depth.min())
        donors[i] = rng.choice(others)
    return donors
