"""Items under three conditions that differ in what the state can know of the cue.

**In:** a run, blocks of text, items.
**Out:** ln p of the five words of every item: real, amnesic, swapped.

All conditions read the same tokens between cue and target. A block is read once; the state before a
cue is read on from the one saved at the nearest place before it.
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
from lmcli.evaluation.probes.recall.items import RecallItem
from lmcli.evaluation.probes.sampling import NOISE, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, padded, row_bytes, stack, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State

SAVED_EVERY = 32
MEMORY = 1 << 28
"""bytes of states held at once"""

Condition = Literal["real", "amnesic", "swapped"]


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

    def log_odds(self) -> Floats:
        """What the true cue adds to the odds of target against swapped word; 0 is no trace."""
        real, swapped = self.scores["real"], self.scores["swapped"]
        odds = (real[:, 0] - real[:, 1]) - (swapped[:, 0] - swapped[:, 1])
        return zero_noise(odds)


@dataclass(frozen=True)
class _Placed:
    """Where an item lies, in tokens of its block; the start id counts.

    Places are those where the cue begins and has ended, and of the last token before the target.
    """

    block: int
    begin: int
    end: int
    last: int
    swapped: list[int]
    words: list[list[int]]


def try_items(
    subject: ProbedModel, blocks: Sequence[str], items: Sequence[RecallItem], seed: int
) -> RecallScores:
    """All items under all conditions."""
    streams, placed = _place(subject, blocks, items)
    model = subject.model
    rng = np.random.default_rng(seed)
    some = max(8, MEMORY // (6 * row_bytes(model)))
    order = np.argsort([p.block for p in placed], kind="stable")
    scores = {
        c: np.zeros((len(items), len(items[0].words))) for c in ("real", "amnesic", "swapped")
    }
    for begin in range(0, len(order), some):
        rows = order[begin : begin + some]
        group = [placed[r] for r in rows]
        states = _states_before(model, streams, group)
        for condition, values in _conditions(subject, streams, group, states, rng).items():
            scores[condition][rows] = values
    gaps = np.array([p.last - p.end + 1 for p in placed])
    return RecallScores(gaps, scores)  # type: ignore[arg-type]


def _place(
    subject: ProbedModel, blocks: Sequence[str], items: Sequence[RecallItem]
) -> tuple[list[Ids], list[_Placed]]:
    """Blocks as ids after a start id, and where in them the items are."""
    tokenizer = subject.tokenizer
    encoded = [tokenizer.encode_with_ends(b) for b in blocks]
    start = np.array([tokenizer.start])
    streams: list[Ids] = [np.concatenate([start, e.ids]) for e in encoded]
    placed = []
    for item in items:
        ends, text = encoded[item.block].ends, blocks[item.block]
        cue_edge, (_, swapped) = encode_words(tokenizer, text[: item.cue[0]], item.words[:2])
        target_edge, words = encode_words(tokenizer, text[: item.target[0]], item.words)
        begin = 1 + int(np.searchsorted(ends, cue_edge, "right"))
        end = 2 + int(np.searchsorted(ends, item.cue[1], "left"))
        last = int(np.searchsorted(ends, target_edge, "right"))
        placed.append(_Placed(item.block, begin, end, last, swapped, words))
    return streams, placed


@torch.inference_mode()
def _states_before(
    model: LanguageModel, streams: Sequence[Ids], placed: Sequence[_Placed]
) -> State:
    """For each item the state at the last saved place before its cue."""
    blocks = sorted({p.block for p in placed})
    row = {block: number for number, block in enumerate(blocks)}
    tokens = padded([streams[b] for b in blocks], model.start_id)
    due: dict[int, list[int]] = {}
    for number, p in enumerate(placed):
        due.setdefault(p.begin // SAVED_EVERY, []).append(number)
    state = model.initial_state(len(blocks))
    taken: list[State] = []
    whose: list[int] = []
    for place in range(max(due) + 1):
        if place in due:
            taken.append(take(state, [row[placed[n].block] for n in due[place]]))
            whose += due[place]
        begin = place * SAVED_EVERY
        _, state = model.last_logits(tokens[:, begin : begin + SAVED_EVERY], state)
    return take(stack(taken), np.argsort(whose))


def _conditions(
    subject: ProbedModel,
    streams: Sequence[Ids],
    placed: Sequence[_Placed],
    states: State,
    rng: np.random.Generator,
) -> dict[Condition, Floats]:
    """Scores of a group of items. Shapes: -> (N, 5) each."""
    model = subject.model
    scorer = WordScorer(model, subject.tokenizer)
    last = np.array([streams[p.block][p.last] for p in placed])
    words = [p.words for p in placed]
    scores: dict[Condition, Floats] = {}
    for condition in ("real", "swapped", "amnesic"):
        rows = []
        for p in placed:
            ids = streams[p.block]
            before = ids[p.begin // SAVED_EVERY * SAVED_EVERY : p.begin]
            cue = p.swapped if condition == "swapped" else ids[p.begin : p.end]
            between = ids[p.end : p.last]
            rows.append(
                between if condition == "amnesic" else np.concatenate([before, cue, between])
            )
        state = take(states, _donors(placed, rng)) if condition == "amnesic" else states
        after = advance(model, [row.astype(np.int64) for row in rows], state)
        scores[condition] = scorer.scores(last, words, after)
    return scores


def _donors(placed: Sequence[_Placed], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """For each item another one, whose state takes the place of its own.

    It is from another block, where there is one, and not from its very beginning.
    """
    block = np.array([p.block for p in placed])
    depth = np.array([p.begin for p in placed]) // SAVED_EVERY
    donors = np.empty(len(placed), np.int64)
    for i in range(len(placed)):
        others = np.flatnonzero((block != block[i]) & (depth > 0))
        if len(others) == 0:
            others = np.flatnonzero(depth == depth.min())
        donors[i] = rng.choice(others)
    return donors
