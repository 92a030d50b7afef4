"""What long work says: stages as they go on, no more often than anybody can read."""

import itertools

import pytest

from lmcli.report import progress
from lmcli.report.progress import (
    Finished,
    Message,
    ProgressCounter,
    SlowdownWatch,
    Stage,
    TimeLeft,
    Training,
    Trainings,
)


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


def part(name: str, fraction: float, seconds: float) -> Training:
    return Training(name, fraction, 1.0, None, 100, seconds)


def test_the_time_left_is_that_of_all_trainings_side_by_side() -> None:
    left = TimeLeft(Trainings(["a", "b", "c"], 2, 60.0))
    assert left.seconds() == 120  # two, then one
    left.update(part("a", 0.5, 30))
    left.update(part("b", 0.25, 15))
    assert left.seconds() == 30 + 60
    left.update(Finished("a"))  # early: c begins at once
    assert left.seconds() == 60
    left.update(part("a", 0.5, 30))  # late news
    left.update(part("c", 0.5, 30))
    left.update(Finished("b"))
    assert left.seconds() == 30
    left.update(Finished("c"))
    left.update(Finished("n-gram"))
    assert (left.seconds(), left.finished) == (0, {"a", "b", "c"})


def test_without_a_budget_in_minutes_a_training_that_waits_takes_as_long_as_another() -> None:
    left = TimeLeft(Trainings(["a", "b"], 1, None))
    assert left.seconds() is None
    left.update(part("a", 0.5, 20))
    assert left.seconds() == 20 + 40


def training(tokens: int, seconds: float, bits: float | None = None) -> Training:
    return Training("lstm", seconds / 100, 1.0, bits, tokens, seconds)


def test_a_training_that_becomes_much_slower_is_told_once_until_it_recovers() -> None:
    events: list[object] = []
    watch = SlowdownWatch(lambda event: events.append(event) or "answer")
    speeds = [1000] * 3 + [300] * 3 + [900] * 2 + [390]  # tokens a second, in windows of 5 s
    tokens = 0
    for window, speed in enumerate([0, *speeds]):
        tokens += 5 * speed
        assert watch(training(tokens, 5.0 * window)) == "answer"
    said = [(n, event.text) for n, event in enumerate(events) if isinstance(event, Message)]
    question = "do other programs use the cores?"
    assert said == [
        (5, f"lstm: 3.3 times slower than before; {question}"),
        (11, f"lstm: 2.6 times slower than before; {question}"),
    ]


def test_a_validation_or_another_trainer_of_the_same_name_is_no_slowdown() -> None:
    events: list[object] = []
    watch = SlowdownWatch(events.append)
    steps = [(0, 0), (5000, 5), (10_000, 10), (10_500, 18, 2.0), (15_500, 23), (500, 1), (5500, 6)]
    for step in steps:
        watch(training(*step))
    assert not [event for event in events if isinstance(event, Message)]
    watch(training(5600, 12.0))  # 20 tokens a second
    assert isinstance(events[-1], Message)
