"""Several processes that train one model: each has its share of the streams.

**In:** what torchrun, or any launcher like it, says in the environment: RANK, WORLD_SIZE,
LOCAL_RANK and the address of the rendezvous.
**Out:** `SingleProcess` or `ProcessGroup`, through which a training takes its rows, averages
gradients and agrees on the time; a process that is lost is a LostWorkerError for all others.

Data-parallel training as in DistributedDataParallel (Li et al. 2020), but with one all-reduce of
all gradients after the backward pass: a model here takes and returns a tuple of states, leaves
parameters unused where weights are tied, and the loss is a mean over tokens whose number differs
from process to process. So each gradient is weighted by its number of targets, and W processes
take the step that one would take with the same batch. Only the main process (rank 0) reads the
clock, validates and writes; it sends the others its seconds and losses, so that all decide alike.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lmcli.data.batches import IGNORED, Batch
from lmcli.errors import LostWorkerError, TrainingError
from lmcli.system import world_size

PATIENCE = timedelta(hours=1)
"""how long a process waits for one that is alive: the main one may be reading a large text"""
MEETING = timedelta(minutes=5)
"""how long the processes of a launcher may take to find each other"""
RESUME = "lmcli train --resume -o RUN goes on from the last checkpoint"


class SingleProcess:
    """One process alone; the base class of several."""

    size = 1
    is_main = True
    """whether this one decides, writes and reports"""

    def local_device(self, device: str) -> str:
        """The device of this process."""
        return device

    def broadcast_weights(self, model: nn.Module, seed: int) -> None:
        """Before the first step: the same weights everywhere, other dropout masks in each."""

    def shard_batch(self, batch: Batch) -> Batch:
        """Those rows of a batch that this process reads. Shapes: (B, T) -> (B / W, T)."""
        return batch

    def all_reduce_gradients(self, model: nn.Module, loss: Tensor, targets: Tensor) -> Tensor:
        """Turn gradients and loss of this process's targets into those of the whole batch."""
        return loss.detach()

    def sync_clock(self, seconds: float) -> float:
        """The main process's seconds, for all, once a step; also sends requests to stop."""
        return seconds

    def should_stop(self, wanted: bool) -> bool:
        """Request a stop; whether to stop now: all stop after the same step."""
        return wanted

    def broadcast(self, measure: Callable[[], float]) -> float:
        """What the main process measures, while the others wait."""
        return measure()

    def gather(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parts of all, concatenated on axis 0; only the main process gets the whole."""
        return parts

    def shard(self, whole: Tensor) -> Tensor:
        """This process's part of what `gather` made; a ValueError if it cannot be split evenly."""
        return whole

    def check_same(self, describe: Callable[[], str]) -> None:
        """A TrainingError where the processes describe their work differently."""

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Within, one process a machine goes first; the others find its results in the cache."""
        yield

    def finish(self) -> None:
        """At the end: wait for the others, so that none loses contact while it still needs it."""


class ProcessGroup(SingleProcess):
    """One of several processes of torch.distributed."""

    def __init__(self, rank: int, size: int, local: int) -> None:
        """`local` is its number on this machine."""
        self.rank, self.size, self.local = rank, size, local
        self.is_main = rank == 0
        self.stop_requested = self.stopping = False

    def local_device(self, device: str) -> str:
        """A GPU each, in the order of their numbers on this machine."""
        if device == "cpu":
            return device
        if device != "cuda":
            raise TrainingError(f"several workers cannot share '{device}'", "try --device cpu")
        count = torch.cuda.device_count()
        if self.local >= count:
            raise TrainingError(
                f"a GPU for each worker: worker {self.local + 1} of this machine has none, "
                f"there are {count}",
                f"--workers {count}, or --device cpu",
            )
        torch.cuda.set_device(self.local)
        return f"cuda:{self.local}"

    def broadcast_weights(self, model: nn.Module, seed: int) -> None:
        """Weights from the main process; the random numbers of the others start elsewhere."""
        with torch.no_grad(), contact():
            for parameter in model.parameters():
                dist.broadcast(parameter, 0)
        if not self.is_main:
            drawn = np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(drawn[0]))

    def shard_batch(self, batch: Batch) -> Batch:
        places = None if batch.places is None else self.shard(batch.places)
        whole = batch.inputs, batch.targets, batch.reset_mask
        inputs, targets, reset_mask = map(self.shard, whole)
        return Batch(inputs, targets, reset_mask, places)

    def all_reduce_gradients(self, model: nn.Module, loss: Tensor, targets: Tensor) -> Tensor:
        """One all-reduce of everything; `targets` on the CPU, so that counting waits for no GPU."""
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

    def sync_clock(self, seconds: float) -> float:
        """Two numbers over the CPU: no GPU has to be waited for."""
        sent = torch.tensor([seconds * self.is_main, self.stop_requested], dtype=torch.float64)
        with contact():
            dist.all_reduce(sent)
        self.stopping = bool(sent[1] > 0)
        return float(sent[0])

    def should_stop(self, wanted: bool) -> bool:
        """Request now, stop when all have received it."""
        self.stop_requested = wanted
        return self.stopping

    def broadcast(self, measure: Callable[[], float]) -> float:
        value = torch.tensor([measure() if self.is_main else 0.0], dtype=torch.float64)
        with contact():
            dist.broadcast(value, 0)
        return float(value[0])

    def gather(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """As bytes over the CPU, whatever the type."""
        return {name: self._gather(part) for name, part in parts.items()}

    def _gather(self, part: Tensor) -> Tensor:
        part = part.detach().cpu().contiguous()
        raw = part.view(-1).view(torch.uint8)
        parts = [torch.empty_like(raw) for _ in range(self.size)] if self.is_main else None
        with contact():
            dist.gather(raw, parts)
        return torch.cat([p.view(part.dtype).view(part.shape) for p in parts]) if parts else part

    def shard(self, whole: Tensor) -> Tensor:
        each, rest = divmod(len(whole), self.size)
        if rest:
            raise ValueError(f"{len(whole)} rows cannot be shared evenly by {self.size} workers")
        return whole[self.rank * each : (self.rank + 1) * each]

    def check_same(self, describe: Callable[[], str]) -> None:
        digest = hashlib.sha256(describe().encode("utf-8", "surrogatepass")).digest()[:8]
        own = torch.tensor([int.from_bytes(digest, "big", signed=True)])
        checksums = [torch.empty_like(own) for _ in range(self.size)]
        with contact():
            dist.all_gather(checksums, own)
        if any(bool(other != checksums[0]) for other in checksums):
            raise TrainingError(
                "the workers were not given the same text, options and run",
                "start all with one command; text and run must be the same on every machine",
            )

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        if self.local:
            self._barrier()
        yield
        if not self.local:
            self._barrier()

    def finish(self) -> None:
        """A last barrier; to find the others gone is no error any more."""
        with suppress(LostWorkerError):
            self._barrier()

    def _barrier(self) -> None:
        with contact():
            dist.all_reduce(torch.zeros(1))


# ------------------------------------------------------------------ rendezvous


@contextmanager
def joined(
    meeting_file: str | None = None,
    hint: Callable[[], str] = lambda: RESUME,
    meeting: timedelta = MEETING,
) -> Iterator[SingleProcess]:
    """Within, this process is connected to the others that a launcher has started, if any.

    They find each other by the file `meeting_file`, or as the environment says, within the time
    `meeting`. `hint` says what to do when one is lost.
    """
    size = world_size(os.environ)
    if size == 1:
        yield SingleProcess()
        return
    rank = int(os.environ["RANK"])
    _connect(rank, size, meeting_file, meeting)
    try:
        yield ProcessGroup(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
    except LostWorkerError as error:
        raise LostWorkerError(error.problem, hint()) from None
    finally:
        dist.destroy_process_group()


def _connect(rank: int, size: int, file: str | None, meeting: timedelta) -> None:
    from torch.distributed.rendezvous import rendezvous

    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    try:
        if file:
            store = dist.FileStore(file, size)  # type: ignore[attr-defined]  # not in the stubs
        else:  # RANK and WORLD_SIZE may be left from another job: then no other process connects
            store, _, _ = next(rendezvous("env://", rank, size, timeout=meeting))
        dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200].rstrip(". ")
        raise TrainingError(
            f"worker {rank + 1} of {size} cannot reach the others: {reason}",
            "unset RANK and WORLD_SIZE to train with one process; for several, MASTER_ADDR and "
            "MASTER_PORT must be the same and within reach for all",
        ) from None


def describe_wait() -> str:
    """Whom the main process of a launcher waits for, and who says so."""
    size = world_size(os.environ)
    place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return (
        f"worker 1 of {size}, as RANK and WORLD_SIZE say: waits for the others at {place}, "
        f"{MEETING.seconds // 60} min at most; 'unset RANK WORLD_SIZE' to train with one process"
    )


@contextmanager
def contact() -> Iterator[None]:
    """Within, an error of torch.distributed is a LostWorkerError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].partition("\n")[0][:120].rstrip(". ")
        problem = f"lost contact with another worker: {reason[:1].lower()}{reason[1:]}"
        raise LostWorkerError(problem, RESUME) from None
