"""What long work says: stages as they go on, no more often than anybody can read."""

import itertools

import pytest

from lmcli.report import progress
from lmcli.report.progress import ProgressCounter, Stage


def test_a_counter_reports_the_beginning_the_end_and_ten_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count(step=0.04)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    events: list[Stage] = []
    counter = ProgressCounter(events.append)
    counter.begin("reading", 9)
    for _ in range(9):
        counter.add(1)
    assert events == [Stage("reading", done, 9, "MB") for done in (0, 3, 6, 9)]
    counter.begin("scoring", 0, "M tokens")
    for _ in range(4):
        counter.add(5)
    assert events[4:] == [Stage("scoring", done, 0, "M tokens") for done in (0, 15)]
    assert (counter.stage, counter.done, counter.total) == ("scoring", 20, 0)


def test_without_a_callback_a_counter_only_counts() -> None:
    counter = ProgressCounter()
    counter.begin("reading", 2)
    counter.add(2)
    assert counter.done == 2
