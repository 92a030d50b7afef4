"""What a long piece of work says while it goes on.

**In:** stages of reading, of training, remarks.
**Out:** events for a callback. Nothing is printed here: a command line draws bars, a notebook may
keep the events, the default is to say warnings by Python's own `warnings` and drop the rest.
"""

from __future__ import annotations

import heapq
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

OnProgress = Callable[[Any], object]
"""called with each event; while a model is trained, a true answer asks to stop at the next step"""


@dataclass(frozen=True)
class Message:
    """A remark for the user, lower case and without a full stop."""

    text: str
    level: Literal["note", "warning"] = "note"


@dataclass(frozen=True)
class Stage:
    """How far a long stage is: `done` of `total` of a unit; a total of 0 is not known."""

    name: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Training:
    """How far a training is."""

    name: str
    """of the architecture, or of the row of a comparison"""
    fraction: float
    """of the budget, 0 to 1"""
    loss: float
    """nats a token, on the training part, lately"""
    bits_per_char: float | None
    """on the validation part, None between validations"""
    tokens: int
    seconds: float
    valid: float | None = None
    """validation loss in nats a token, None between validations"""


@dataclass(frozen=True)
class SampleText:
    """A text by a model that is being trained."""

    name: str
    step: int
    text: str


@dataclass(frozen=True)
class Trainings:
    """What is going to be trained, said before the first of them begins."""

    names: Sequence[str]
    side_by_side: int
    seconds: float | None
    """the budget of each; None where it is counted in steps or epochs"""


@dataclass(frozen=True)
class Finished:
    """A training has ended, early or not, and its model is scored."""

    name: str


class TimeLeft:
    """How long some trainings will still take in all, N of them side by side."""

    def __init__(self, plan: Trainings) -> None:
        self.plan = plan
        self.finished: set[str] = set()
        self._begun: dict[str, tuple[float, float]] = {}  # seconds in all, seconds left

    def update(self, event: Training | Finished) -> None:
        """Take notice of an event."""
        if isinstance(event, Finished):
            self.finished |= {event.name} & {*self.plan.names}
            self._begun.pop(event.name, None)
        elif event.fraction > 0 and event.name not in self.finished:
            total = event.seconds / event.fraction
            self._begun[event.name] = total, total - event.seconds

    def seconds(self) -> float | None:
        """None as long as nothing is known about a training that waits."""
        waiting = len({*self.plan.names} - self.finished - {*self._begun})
        totals = [total for total, _ in self._begun.values()]
        each = self.plan.seconds or (sum(totals) / len(totals) if totals else None)
        if waiting and each is None:
            return None
        ends = sorted(left for _, left in self._begun.values())
        ends = [0.0] * (self.plan.side_by_side - len(ends)) + ends
        for _ in range(waiting):
            heapq.heapreplace(ends, ends[0] + (each or 0.0))
        return max(ends)


def warnings_only(event: object) -> None:
    """The default callback: warnings by `warnings.warn`, all else dropped."""
    if isinstance(event, Message) and event.level == "warning":
        warnings.warn(event.text, stacklevel=3)


def without_notes(on_progress: OnProgress) -> OnProgress:
    """A callback that passes on all but the notes."""

    def passed(event: object) -> object:
        is_note = isinstance(event, Message) and event.level == "note"
        return None if is_note else on_progress(event)

    return passed


class SlowdownWatch:
    """Passes events on, and warns when a training has become much slower than it was.

    Speeds are means over windows without a validation.
    """

    WINDOW = 5.0  # seconds
    FACTOR = 2.5
    """a speed this many times below the best one is worth a warning"""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        self.windows: dict[str, Training] = {}
        """the event with which the present window of each training began"""
        self.best: dict[str, float] = {}
        """tokens a second"""
        self.warned: set[str] = set()

    def __call__(self, event: object) -> object:
        """Pass the event on; a warning comes after it."""
        answer = self.on_progress(event)
        if isinstance(event, Training):
            self._look(event)
        return answer

    def _look(self, event: Training) -> None:
        name, began = event.name, self.windows.setdefault(event.name, event)
        seconds, tokens = event.seconds - began.seconds, event.tokens - began.tokens
        if seconds < 0 or tokens < 0 or event.bits_per_char is not None:
            self.windows[name] = event  # another trainer of this name, or a validation
        elif seconds >= self.WINDOW:
            self.windows[name], speed = event, tokens / seconds
            best = self.best[name] = max(speed, self.best.get(name, 0.0))
            slowdown = best / speed if speed else float("inf")
            if slowdown < self.FACTOR:
                self.warned.discard(name)
            elif name not in self.warned:
                self.warned.add(name)
                text = f"{name}: {slowdown:.1f} times slower than before"
                self.on_progress(Message(f"{text}; do other programs use the cores?", "warning"))


class ProgressCounter:
    """Counts what is done in a stage and reports it, at most every tenth of a second."""

    INTERVAL = 0.1  # seconds

    def __init__(self, on_progress: OnProgress = warnings_only) -> None:
        self.stage = ""
        self.done = 0
        self.total = 0
        self.unit = ""
        self._on_progress = on_progress
        self._reported = 0.0

    def begin(self, stage: str, total: int, unit: str = "MB") -> None:
        """A new stage, of `total` characters, bytes or tokens; 0 if their number is not known."""
        self.stage, self.done, self.total, self.unit = stage, 0, total, unit
        self._report(time.monotonic())

    def expect(self, amount: int) -> None:
        """The total grows by `amount`, or shrinks where it is negative."""
        self.total = max(self.done, self.total + amount)

    def note(self, text: str, level: Literal["note", "warning"] = "note") -> None:
        """A remark."""
        self._on_progress(Message(text, level))

    def add(self, amount: int) -> None:
        """More is done."""
        self.done += amount
        now = time.monotonic()
        if now - self._reported >= self.INTERVAL or self.done == self.total:
            self._report(now)

    def _report(self, now: float) -> None:
        self._reported = now
        self._on_progress(Stage(self.stage, self.done, self.total, self.unit))
