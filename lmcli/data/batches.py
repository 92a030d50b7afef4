"""Token ids -> batches for training: parallel streams that carry their state from chunk to chunk.

**In:** one array of ids, documents end to end, each after a start id (in memory or memory-mapped).
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

import numpy as np
import torch
from torch import Tensor

from lmcli.tokenizers.base import Ids

RELEASE_EVERY = 1000
"""steps after which pages of a memory-mapped array that were read are given back"""
PREFETCH = 16
"""chunks gathered at once: during a training, small operations take ten times as long as alone"""
DRAWN = 256
"""steps for which resets are drawn at once"""
IGNORED = -1
"""The target before a start id: where the next document begins is not predicted."""


@dataclass(frozen=True)
class Batch:
    """One chunk of all streams.

    Shapes: inputs, targets, places (B, T); reset_mask (B,), true where a stream forgets what it
    carries.
    """

    inputs: Tensor
    targets: Tensor
    reset_mask: Tensor
    places: Tensor | None = None
    """of the inputs in the whole text, where they are wanted"""


@dataclass(eq=False)
class ContiguousBatches:
    """B parallel streams over a circle of ids, T tokens a step."""

    ids: Ids
    start: int
    batch: int
    truncation: int
    reset_probability: float = 0.0
    seed: int = 0
    places: Ids | None = None
    """of the ids in the whole text, where they are wanted. Shapes: as `ids`"""

    def __post_init__(self) -> None:
        self.stream_length = -(-len(self.ids) // self.batch)
        self.steps_per_epoch = -(-self.stream_length // self.truncation)
        self.begins = self.stream_length * np.arange(self.batch)[:, None]  # (B, 1)
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
        mine = slice(begin, begin + length)
        resets = self.resets(step // DRAWN)[step % DRAWN]
        if chunk == 0:  # the circle has turned: what a stream carries is not what comes before
            resets = torch.ones_like(resets)
        return Batch(inputs[:, mine], targets[:, mine], resets, self._places(epoch, first, length))

    def _places(self, epoch: int, first: int, length: int) -> Tensor | None:
        """Where the inputs of a chunk are in the whole text. Shapes: (B, T)."""
        if self.places is None:
            return None
        places = self.begins + (self.turn(epoch) + first + np.arange(length))
        return torch.from_numpy(self.places.take(places, mode="wrap"))

    def _gathered(self, epoch: int, block: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `PREFETCH` chunks in one go. Shapes: (B, PREFETCH T) both."""
        first = block * PREFETCH * self.truncation
        length = min(PREFETCH * self.truncation, self.stream_length - first)
        places = self.begins + (self.turn(epoch) + first + np.arange(length + 1))
        window = torch.from_numpy(self.ids.take(places, mode="wrap").astype(np.int64))
        targets = window[:, 1:]
        return window[:, :-1], targets.masked_fill(targets == self.start, IGNORED)

    def _turn(self, epoch: int) -> int:
        return int(np.random.default_rng([self.seed, epoch, 0]).integers(len(self.ids)))

    def _resets(self, block: int) -> Tensor:
        """Which streams forget, for `DRAWN` steps at once: to make a generator takes long."""
        draw = np.random.default_rng([self.seed, block, 1]).random((DRAWN, self.batch))
        return torch.from_numpy(draw < self.reset_probability)


def release(ids: Ids) -> None:
    """Let go of the pages of a file that were read; they are read again when they are needed.

    They count as this process's memory otherwise, until all of the file does.
    """
    mapped: object = ids.base
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)
