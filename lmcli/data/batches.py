"""Token ids -> batches for training: parallel streams that carry their state from chunk to chunk.

**In:** one array of ids, documents end to end, each behind a start id (in memory or memory-mapped).
**Out:** Batch(inputs, targets, reset_mask), a pure function of the step number: a resumed run
sees exactly the batches that an unbroken one would have seen.

The array is read as a circle by B streams that lie N/B apart, chunk after chunk of T tokens. Each
epoch turns the circle by another random amount, so that chunks are cut at other places and no
token is left out for being in the last N mod B.
"""

from __future__ import annotations

import functools
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.integer[Any]]

RELEASE_EVERY = 1000
"""steps after which pages of a memory-mapped array that were read are given back"""
PREFETCH = 16
"""chunks gathered at once: beside a training, little things take ten times as long as alone"""
DRAWN = 256
"""steps for which resets are drawn at once"""
IGNORED = -1
"""The target in front of a start id: nobody predicts where the next document begins."""
COUNTED = 1 << 20
"""tokens counted at once: of a memory-mapped array no more need be in memory"""
LOOKED_AT = 1 << 24
"""tokens in which short documents are looked for"""


@dataclass(frozen=True)
class Batch:
    """One chunk of all streams.

    Shapes: inputs, targets (B, T); reset_mask (B,), true where a stream forgets what it carries.
    """

    inputs: Tensor
    targets: Tensor
    reset_mask: Tensor


class ContiguousBatches:
    """B parallel streams over a circle of ids, T tokens a step."""

    def __init__(
        self,
        ids: Ids,
        start: int,
        batch: int,
        truncation: int,
        reset_probability: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.ids = ids
        self.start = start
        self.batch = batch
        self.truncation = truncation
        self.reset_probability = reset_probability
        self.seed = seed
        self.stream_length = -(-len(ids) // batch)
        self.steps_per_epoch = -(-self.stream_length // truncation)
        self.begins = self.stream_length * np.arange(batch)[:, None]  # (B, 1)
        self.turn = functools.lru_cache(maxsize=2)(self._turn)
        self.gathered = functools.lru_cache(maxsize=2)(self._gathered)
        self.resets = functools.lru_cache(maxsize=2)(self._resets)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0 through all epochs."""
        if step % RELEASE_EVERY == 0:
            release(self.ids)
        epoch, chunk = divmod(step, self.steps_per_epoch)
        first = chunk * self.truncation
        length = min(self.truncation, self.stream_length - first)
        inputs, targets = self.gathered(epoch, chunk // PREFETCH)
        begin = chunk % PREFETCH * self.truncation
        return Batch(
            inputs=inputs[:, begin : begin + length],
            targets=targets[:, begin : begin + length],
            reset_mask=self._fresh(step, chunk),
        )

    def _gathered(self, epoch: int, block: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `PREFETCH` chunks in one go. Shapes: (B, PREFETCH T) both."""
        first = block * PREFETCH * self.truncation
        length = min(PREFETCH * self.truncation, self.stream_length - first)
        places = self.begins + (self.turn(epoch) + first + np.arange(length + 1))
        window = torch.from_numpy(self.ids.take(places, mode="wrap").astype(np.int64))
        targets = window[:, 1:]
        return window[:, :-1], targets.masked_fill(targets == self.start, IGNORED)

    def _fresh(self, step: int, chunk: int) -> Tensor:
        if chunk == 0:  # the circle has turned: what a stream carries is not what comes before
            return torch.ones(self.batch, dtype=torch.bool)
        return self.resets(step // DRAWN)[step % DRAWN]

    def _turn(self, epoch: int) -> int:
        return int(np.random.default_rng([self.seed, epoch, 0]).integers(len(self.ids)))

    def _resets(self, block: int) -> Tensor:
        """Which streams forget, for `DRAWN` steps at once: to make a generator takes long."""
        draw = np.random.default_rng([self.seed, block, 1]).random((DRAWN, self.batch))
        return torch.from_numpy(draw < self.reset_probability)


class LengthCurriculum:
    """Batches of the short documents, then of ever longer ones, in the end of the whole text.

    What to remember is learnt from short documents, where it is asked for every few tokens; in
    longer ones it has only to be kept (curriculum learning: Bengio et al. 2009). The bound on the
    length doubles from stage to stage, and each stage gets an equal part of a share of the budget.
    """

    def __init__(self, whole: ContiguousBatches, share: float) -> None:
        lengths = document_lengths(whole.ids, whole.start) if share else np.zeros(0, np.int64)
        ids = np.asarray(whole.ids[: lengths.sum()])
        bounds = stage_bounds(lengths, whole.batch * whole.truncation)
        short = [replace_ids(whole, ids[np.repeat(lengths <= b, lengths)]) for b in bounds]
        self.stages = [*short, whole]
        self.share = share

    def batch(self, step: int, used: float) -> Batch:
        """The batch of a step, when that share of the budget is used.

        Behind a change of stage the streams carry a state from elsewhere up to the next start id,
        as they do at every reset.
        """
        past = used / self.share if self.share else 1.0
        return self.stages[min(int(past * (len(self.stages) - 1)), len(self.stages) - 1)][step]


def replace_ids(streams: ContiguousBatches, ids: Ids) -> ContiguousBatches:
    """The same streams over other ids."""
    return ContiguousBatches(
        ids,
        streams.start,
        streams.batch,
        streams.truncation,
        streams.reset_probability,
        streams.seed,
    )


def count_targets(ids: Ids, start: int) -> int:
    """How many ids are predicted: all but the start ids."""
    parts = (ids[i : i + COUNTED] for i in range(0, len(ids), COUNTED))
    return sum(int(np.count_nonzero(part != start)) for part in parts)


def document_lengths(ids: Ids, start: int) -> npt.NDArray[np.int64]:
    """Tokens of every document, its start id among them; of a big text of the first ones.

    Shapes: (N,) -> (documents,).
    """
    starts = np.flatnonzero(np.asarray(ids[:LOOKED_AT]) == start)
    end = [len(ids)] if len(ids) <= LOOKED_AT else []
    return np.diff(starts, append=np.array(end, np.int64))


def stage_bounds(lengths: npt.NDArray[np.int64], least: int) -> list[int]:
    """Powers of two below the longest document, from where the shorter ones have `least` tokens.

    >>> stage_bounds(np.array([3, 3, 9, 20, 40]), 6)
    [4, 8, 16, 32]
    """
    longest = int(lengths.max(initial=1))
    bounds = [1 << n for n in range(1, longest.bit_length()) if 1 << n < longest]
    return [b for b in bounds if lengths[lengths <= b].sum() >= least]


def release(ids: npt.NDArray[np.integer[Any]]) -> None:
    """Let go of the pages of a file that were read; they come again when they are asked for.

    They count as this process's memory otherwise, until all of the file does.
    """
    mapped: object = ids.base
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)
