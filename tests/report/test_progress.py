"""What long work says: stages as they go on, no more often than anybody can read."""

import itertools

import pytest

from lmcli.report import progress
from lmcli.report.progress import Finished, ProgressCounter, Stage, TimeLeft, Training, Trainings


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


def training(name: str, fraction: float, seconds: float) -> Training:
    return Training(name, fraction, 1.0, None, 100, seconds)


def test_the_time_left_is_that_of_all_trainings_side_by_side() -> None:
    left = TimeLeft(Trainings(["a", "b", "c"], 2, 60.0))
    assert left.seconds() == 120  # two, then one
    left.update(training("a", 0.5, 30))
    left.update(training("b", 0.25, 15))
    assert left.seconds() == 30 + 60
    left.update(Finished("a"))  # early: c begins at once
    assert left.seconds() == 60
    left.update(training("a", 0.5, 30))  # late news
    left.update(training("c", 0.5, 30))
    left.update(Finished("b"))
    assert left.seconds() == 30
    left.update(Finished("c"))
    left.update(Finished("n-gram"))
    assert (left.seconds(), left.finished) == (0, {"a", "b", "c"})


def test_without_a_budget_in_minutes_a_training_that_waits_takes_as_long_as_another() -> None:
    left = TimeLeft(Trainings(["a", "b"], 1, None))
    assert left.seconds() is None
    left.update(training("a", 0.5, 20))
    assert left.seconds() == 20 + 40
