"""Threads that compute for requests: bounded lines of waiting, short slices of work.

**In:** functions, each short; how many requests may wait, and how many seconds one may take.
**Out:** their results, or `BusyError`, which is answered with 503 and Retry-After.

A lane is one thread, so what runs in it needs no locks. Long work is cut into slices: between two
slices of one request those of others run, and a keystroke waits for slices only, never for a text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")
SLICE = 0.01
"""seconds that a slice of work aims at"""


class BusyError(Exception):
    """Too many requests wait, or one has taken too long; it may be tried again."""

    retry_after = 1


class Deadline:
    """When a request has had its time."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def check(self) -> None:
        """BusyError once the time is over."""
        if time.monotonic() > self.end:
            raise BusyError("the request took too long; ask for less")


class Lane:
    """Requests that share a thread by turns: `active` at a time, up to `most` with those in line.

    Each may take so many seconds, the wait included.
    """

    def __init__(self, thread: ThreadPoolExecutor, active: int, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.requests = 0
        self._active = asyncio.Semaphore(active)
        self._thread = thread

    @asynccontextmanager
    async def request(self) -> AsyncIterator[Deadline]:
        """A place in the lane; BusyError where the line is full or the wait too long."""
        if self.requests >= self.most:
            raise BusyError("too many requests at once")
        deadline = Deadline(self.seconds)
        self.requests += 1
        try:
            try:
                await asyncio.wait_for(self._active.acquire(), self.seconds)
            except TimeoutError:
                raise BusyError("too many requests at once") from None
            try:
                yield deadline
            finally:
                self._active.release()
        finally:
            self.requests -= 1

    async def run(self, function: Callable[[], T]) -> T:
        """The result of a function that the thread calls."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def one_thread(name: str) -> ThreadPoolExecutor:
    """A thread that calls one function after another."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"lmcli-{name}")
