"""Many texts made in several processes, where there are cores for them.

**In:** what makes the texts of some seeds (`sample_batch`), and all seeds.
**Out:** the same chunks, those of each text in their order.

A process gets its own share of the texts, whole. Which process makes which text depends only on the
number of texts, their length and the number of cores, so that the same command makes the same
texts, however busy the machine.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from lmcli.errors import LmcliError
from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.generation.sampling import GenerationStats, TextChunk
from lmcli.system import ChildProcesses, Ended, available_cores

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

LEAST_TEXTS = 8
"""texts worth a process: made together they cost little more than one"""
LEAST_TOKENS = 10_000
"""tokens worth the start of a process"""
SEND_INTERVAL = 0.02
"""seconds between two messages"""

Stats = Sequence[GenerationStats] | None
Make = Callable[[Sequence[int], Stats], Iterator[TextChunk]]
"""Makes the texts of these seeds."""
Message = list[tuple[int, str, bool, GenerationStats | None]]
"""Chunks of texts, and the figures of each text so far."""


def spread(
    make: Make, seeds: Sequence[int], processes: int, sampled: Stats = None
) -> Iterator[TextChunk]:
    """The chunks of all texts, one a seed, made by several processes; `sampled` is filled in."""
    if processes == 1:
        yield from make(seeds, sampled)
        return
    bounds = [len(seeds) * share // processes for share in range(processes + 1)]
    with ChildProcesses(None) as children:
        for first, end in pairwise(bounds):
            children.start(first, _make_share, make, seeds[first:end], sampled is not None)
        while children.running:
            for first, event in children.events():
                for number, text, last, stats in _message(event):
                    if sampled is not None and stats is not None:
                        own = sampled[first + number]
                        own.tokens, own.nats = stats.tokens, stats.nats
                    yield first + number, text, last


def _message(event: Message | LmcliError | Ended) -> Message:
    if isinstance(event, LmcliError):
        raise event
    if isinstance(event, Ended) and event.code:
        raise LmcliError(
            f"a process that made texts ended with code {event.code}",
            "there may be too little memory: try a smaller --count",
        )
    return [] if isinstance(event, Ended) else event


def _make_share(
    make: Make, seeds: Sequence[int], counts: bool, send: Callable[[Message], None]
) -> None:
    """A child process: make the texts of these seeds, and send them joined text by text."""
    stats = [GenerationStats() for _ in seeds] if counts else None
    texts: defaultdict[int, str] = defaultdict(str)
    ended: set[int] = set()

    def message() -> Message:
        own = {n: stats[n] for n in texts} if stats else {}
        return [(n, text, n in ended, own.get(n)) for n, text in texts.items()]

    sent = 0.0
    for number, text, last in make(seeds, stats):
        texts[number] += text
        if last:
            ended.add(number)
        if time.perf_counter() - sent > SEND_INTERVAL:
            send(message())
            texts.clear()
            sent = time.perf_counter()
    send(message())


def processes_for(model: NumpyModel | LanguageModel, texts: int, length: int) -> int:
    """How many processes are worth it for N texts of `length` tokens each (0: without end).

    They are forks of this process, which may have no other threads, neither torch's nor others.
    """
    alone = "torch" not in sys.modules and threading.active_count() == 1
    if not (isinstance(model, NumpyModel) and alone and sys.platform == "linux"):
        return 1
    return max(1, min(len(available_cores()), texts // LEAST_TEXTS, texts * length // LEAST_TOKENS))
