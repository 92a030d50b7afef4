"""Many texts made in several processes, where there are cores for them.

**In:** what makes the texts of some seeds (`sample_batch`), and all seeds.
**Out:** the same pieces, those of each text in their order.

A process gets its own share of the texts, whole: they have nothing to do with each other, and
there is nothing to wait for. Who makes which text depends on the number of texts, their length and
the number of cores only, so that the same command makes the same texts, however busy the machine.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from lmcli.errors import LmcliError
from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.generation.sampling import GenerationStats, TextChunk
from lmcli.system import available_cores, sigint_blocked

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from lmcli.models.base import LanguageModel

LEAST_TEXTS = 8
"""texts worth a process: made together they cost little more than one"""
LEAST_TOKENS = 10_000
"""tokens worth the beginning of a process"""
SENT_EVERY = 0.02
"""seconds between two messages"""

Counted = Sequence[GenerationStats] | None
Make = Callable[[Sequence[int], Counted], Iterator[TextChunk]]
"""Makes the texts of these seeds."""
Message = list[tuple[int, str, bool, GenerationStats | None]]
"""Documents, and what a text that ends has counted."""


def spread(
    make: Make, seeds: Sequence[int], processes: int, sampled: Counted = None
) -> Iterator[TextChunk]:
    """The pieces of all texts, one a seed, made by several processes; `sampled` is filled in."""
    if processes == 1:
        yield from make(seeds, sampled)
        return
    cuts = [len(seeds) * part // processes for part in range(processes + 1)]
    makers: list[_Maker] = []
    try:
        for begin, end in pairwise(cuts):
            makers.append(_Maker.begin(make, seeds[begin:end], begin, sampled is not None))
        for number, text, last, counted in _collected(makers):
            if sampled is not None and counted is not None:
                sampled[number].tokens, sampled[number].nats = counted.tokens, counted.nats
            yield number, text, last
    finally:
        for maker in makers:
            maker.end()


def processes_for(model: NumpyModel | LanguageModel, texts: int, length: int) -> int:
    """How many pay for so many texts of so many tokens (0: without end).

    They are copies of this process, which cannot go on with threads of torch or of anybody else.
    """
    alone = "torch" not in sys.modules and threading.active_count() == 1
    if not (isinstance(model, NumpyModel) and alone and sys.platform == "linux"):
        return 1
    return max(1, min(len(available_cores()), texts // LEAST_TEXTS, texts * length // LEAST_TOKENS))


@dataclass
class _Maker:
    """A process that makes texts, seen from here."""

    process: BaseProcess
    messages: Connection
    first: int
    """The number of its first text."""

    @classmethod
    def begin(cls, make: Make, seeds: Sequence[int], first: int, counts: bool) -> _Maker:
        """Start it. What it needs is there already: it is a copy of this process."""
        import multiprocessing  # takes longer than a short text

        context = multiprocessing.get_context("fork")
        messages, sender = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(make, seeds, counts, sender), daemon=True)
        with sigint_blocked():
            process.start()
        sender.close()
        return cls(process, messages, first)

    def end(self) -> None:
        """End it, if it has not."""
        self.process.terminate()
        self.process.join()
        self.messages.close()


def _collected(makers: Sequence[_Maker]) -> Iterator[tuple[int, str, bool, GenerationStats | None]]:
    """What all of them make, as it comes."""
    from multiprocessing.connection import wait

    by_messages = {maker.messages: maker for maker in makers}
    while by_messages:
        for messages in wait(list(by_messages)):
            maker = by_messages[messages]  # type: ignore[index]
            try:
                message: Message | None = maker.messages.recv()
            except EOFError:
                maker.process.join()
                raise LmcliError(
                    f"a process that made texts ended with code {maker.process.exitcode}",
                    "there may be too little memory: try a smaller --count",
                ) from None
            if message is None:
                del by_messages[maker.messages]
            for number, text, last, counted in message or ():
                yield maker.first + number, text, last, counted


@dataclass
class _Outbox:
    """Documents on their way to the parent, joined text by text."""

    sender: Connection
    held: dict[int, list[str]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    sent: float = 0.0

    def put(self, number: int, text: str, last: bool) -> None:
        """Hold a piece."""
        self.held.setdefault(number, []).append(text)
        if last:
            self.ended.add(number)

    def send(self, counted: Counted) -> None:
        """All that is held."""
        message: Message = []
        for number, pieces in self.held.items():
            last = number in self.ended
            counts = counted[number] if counted is not None and last else None
            message.append((number, "".join(pieces), last, counts))
        self.sender.send(message)
        self.held, self.ended, self.sent = {}, set(), time.perf_counter()


def _serve(make: Make, seeds: Sequence[int], counts: bool, sender: Connection) -> None:
    """The other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    counted = [GenerationStats() for _ in seeds] if counts else None
    outbox = _Outbox(sender)
    with suppress(BrokenPipeError):  # nobody listens any more
        for number, text, last in make(seeds, counted):
            outbox.put(number, text, last)
            if time.perf_counter() - outbox.sent > SENT_EVERY:
                outbox.send(counted)
        outbox.send(counted)
        sender.send(None)
