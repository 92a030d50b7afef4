"""Several processes that train one model: each has its share of the streams.

**In:** what torchrun, or any launcher like it, says in the environment: RANK, WORLD_SIZE,
LOCAL_RANK and where to meet.
**Out:** `Workers`, through which a training reads its rows, averages gradients and agrees on the
time; a worker that is lost is a LostWorkerError for all the others.

Data-parallel training as in DistributedDataParallel (Li et al. 2020), but with one all-reduce of
all gradients after the backward pass: a model here takes and returns a tuple of states, leaves
parameters unused where weights are tied, and the loss is a mean over tokens whose number differs
from worker to worker. So each gradient is weighted by the targets behind it, and W workers take
the step that one would take with the same batch. Only the first worker reads the clock, validates
and writes; what it finds is told to the others, so that all decide alike.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lmcli.data.batches import IGNORED, Batch
from lmcli.errors import LostWorkerError, TrainingError

PATIENCE = timedelta(hours=1)
"""how long a worker waits for one that is alive: the first may be reading a large text"""


class Workers:
    """One process alone: nobody to share with, nobody to ask."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this one decides, writes and speaks."""
        return self.rank == 0

    def place(self, device: str) -> str:
        """The device of this worker."""
        return device

    def begin(self, model: nn.Module, seed: int) -> None:
        """Before the first step: the same weights everywhere, dropout of its own each."""

    def share(self, batch: Batch) -> Batch:
        """Those rows of a batch that this worker reads. Shapes: (B, T) -> (B / W, T)."""
        return batch

    def average(self, model: nn.Module, loss: Tensor, targets: Tensor) -> Tensor:
        """Turn gradients and loss of this worker's targets into those of the whole batch."""
        return loss.detach()

    def agree(self, seconds: float) -> float:
        """The first worker's seconds, told to all once a step, and whether one wants to leave."""
        return seconds

    def leave(self, wanted: bool) -> bool:
        """Ask to stop; whether it is time to: all leave after the same step."""
        return wanted

    def from_first(self, measure: Callable[[], float]) -> float:
        """What the first worker measures, while the others wait."""
        return measure()

    def gather(self, part: Tensor) -> Tensor:
        """The parts of all, one behind the other on axis 0; only the first worker's is whole."""
        return part

    def own(self, whole: Tensor) -> Tensor:
        """This worker's part of what `gather` made; a ValueError if it cannot be dealt out."""
        return whole

    def check_same(self, about: str) -> None:
        """A TrainingError where the workers do not agree about what they are to do."""

    @contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """Within, one worker a machine goes first; the others find what it left in the cache."""
        yield

    def part(self) -> None:
        """At the end: wait for the others, so that none loses contact while it still needs it."""


class Group(Workers):
    """One of several processes of torch.distributed."""

    def __init__(self, rank: int, size: int, local: int) -> None:
        self.rank = rank
        self.size = size
        self.local = local
        """its number on this machine"""
        self.wants_to_leave = False
        self.leaving = False

    def place(self, device: str) -> str:
        """A GPU each, in the order of their numbers on this machine."""
        if device == "cpu":
            return device
        if device != "cuda":
            raise TrainingError(f"several workers cannot share '{device}'", "try --device cpu")
        there = torch.cuda.device_count()
        if self.local >= there:
            raise TrainingError(
                f"a GPU for each worker: worker {self.local + 1} of this machine has none, "
                f"there are {there}",
                f"--workers {there}, or --device cpu",
            )
        torch.cuda.set_device(self.local)
        return f"cuda:{self.local}"

    def begin(self, model: nn.Module, seed: int) -> None:
        """Weights from the first worker; the random numbers of the others start elsewhere."""
        with torch.no_grad(), contact():
            for parameter in model.parameters():
                dist.broadcast(parameter, 0)
        if not self.first:
            drawn = np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(drawn[0]))

    def share(self, batch: Batch) -> Batch:
        """Rows r B/W to (r + 1) B/W."""
        return Batch(self.own(batch.inputs), self.own(batch.targets), self.own(batch.reset_mask))

    def average(self, model: nn.Module, loss: Tensor, targets: Tensor) -> Tensor:
        """One all-reduce of everything; `targets` on the CPU, so that counting waits for nobody."""
        count = int((targets != IGNORED).sum())
        trained = [p for p in model.parameters() if p.grad is not None]
        parts = [p.grad.reshape(-1) for p in trained if p.grad is not None]
        one = loss.new_ones(1, dtype=torch.float32)
        flat = torch.cat([*parts, loss.detach().float().reshape(1), one])
        if count:
            flat *= count
        else:  # a mean over nothing is NaN, and NaN times nothing as well
            flat.zero_()
        with contact():
            dist.all_reduce(flat)
        flat /= flat[-1].clone()
        sizes = [p.numel() for p in trained]
        for parameter, mean in zip(trained, torch.split(flat[:-2], sizes), strict=True):
            parameter.grad = mean.view_as(parameter)
        return flat[-2]

    def agree(self, seconds: float) -> float:
        """Two numbers over the CPU: no GPU has to be waited for."""
        told = torch.tensor([seconds * self.first, float(self.wants_to_leave)], dtype=torch.float64)
        with contact():
            dist.all_reduce(told)
        self.leaving = bool(told[1] > 0)
        return float(told[0])

    def leave(self, wanted: bool) -> bool:
        """Ask now, leave when all have heard it."""
        self.wants_to_leave = wanted
        return self.leaving

    def from_first(self, measure: Callable[[], float]) -> float:
        """Measured once and told."""
        value = torch.tensor([measure() if self.first else 0.0], dtype=torch.float64)
        with contact():
            dist.broadcast(value, 0)
        return float(value[0])

    def gather(self, part: Tensor) -> Tensor:
        """As bytes over the CPU, whatever the type."""
        part = part.detach().cpu().contiguous()
        raw = part.view(-1).view(torch.uint8)
        parts = [torch.empty_like(raw) for _ in range(self.size)] if self.first else None
        with contact():
            dist.gather(raw, parts)
        return torch.cat([p.view(part.dtype).view(part.shape) for p in parts]) if parts else part

    def own(self, whole: Tensor) -> Tensor:
        """Equal parts of axis 0."""
        each, rest = divmod(len(whole), self.size)
        if rest:
            raise ValueError(f"{len(whole)} rows cannot be dealt out to {self.size} workers")
        return whole[self.rank * each : (self.rank + 1) * each]

    def check_same(self, about: str) -> None:
        """Checksums are compared."""
        digest = hashlib.sha256(about.encode("utf-8", "surrogatepass")).digest()[:8]
        mine = torch.tensor([int.from_bytes(digest, "big", signed=True)])
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        with contact():
            dist.all_gather(all_of_them, mine)
        if any(bool(other != all_of_them[0]) for other in all_of_them):
            raise TrainingError(
                "the workers were not given the same text, options and run",
                "start all with one command; text and run must be the same on every machine",
            )

    @contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """A barrier on either side."""
        if self.local:
            self._meet()
        yield
        if not self.local:
            self._meet()

    def part(self) -> None:
        """A last meeting; to find the others gone is no error any more."""
        with suppress(LostWorkerError):
            self._meet()

    def _meet(self) -> None:
        with contact():
            dist.all_reduce(torch.zeros(1))


# ------------------------------------------------------------------ meeting


def expected(environment: Mapping[str, str]) -> int:
    """How many workers a launcher has started, this one included.

    >>> expected({"WORLD_SIZE": "4", "RANK": "1"}), expected({})
    (4, 1)
    """
    if "RANK" not in environment:
        return 1
    size = environment.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


@contextmanager
def joined(meeting: str | None = None) -> Iterator[Workers]:
    """Meet the other workers, if a launcher has started any; within, they work together.

    They meet in the file `meeting`, or where the environment says.
    """
    size = expected(os.environ)
    if size == 1:
        yield Workers()
        return
    rank = int(os.environ["RANK"])
    _meet_all(rank, size, meeting)
    try:
        yield Group(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def _meet_all(rank: int, size: int, meeting: str | None) -> None:
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    try:
        if meeting:
            store = dist.FileStore(meeting, size)  # type: ignore[attr-defined]
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
            )
        else:
            dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise TrainingError(
            f"worker {rank + 1} of {size} cannot meet the others: {reason}",
            "MASTER_ADDR and MASTER_PORT must be the same and within reach for all",
        ) from None


@contextmanager
def contact() -> Iterator[None]:
    """What torch.distributed says of a worker that is gone, as a LostWorkerError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].partition("\n")[0][:120].rstrip(". ")
        raise LostWorkerError(
            f"lost contact with another worker: {reason[:1].lower()}{reason[1:]}",
            "lmcli train --resume -o RUN goes on from the last checkpoint",
        ) from None
