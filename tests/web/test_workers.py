"""Lanes: turns, lines that are bounded, time that is bounded."""

import asyncio
import time

import pytest

from lmcli.web.workers import BusyError, Deadline, Lane, one_thread


def test_requests_take_turns_and_those_beyond_the_line_are_refused():
    thread, order = one_thread("test"), []
    lane = Lane(thread, active=2, most=3, seconds=10)

    async def ask(name):
        async with lane.request():
            for turn in range(2):
                await lane.run(lambda turn=turn: order.append((name, turn)))

    async def all_at_once():
        return await asyncio.gather(*(ask(n) for n in range(5)), return_exceptions=True)

    found = asyncio.run(all_at_once())
    assert found[:3] == [None] * 3
    assert all(isinstance(one, BusyError) for one in found[3:])
    assert order[:4] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert lane.requests == 0
    thread.shutdown()


def test_a_wait_that_is_too_long_is_refused_and_frees_its_place():
    thread = one_thread("test")
    lane = Lane(thread, active=1, most=2, seconds=0.05)

    async def hold():
        async with lane.request():
            await asyncio.sleep(0.2)

    async def both():
        return await asyncio.gather(hold(), hold(), return_exceptions=True)

    first, second = asyncio.run(both())
    assert first is None
    assert isinstance(second, BusyError)
    assert lane.requests == 0
    thread.shutdown()


def test_a_deadline_ends():
    deadline = Deadline(0.001)
    time.sleep(0.002)
    with pytest.raises(BusyError):
        deadline.check()
    Deadline(10).check()
