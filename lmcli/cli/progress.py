"""What a long command shows while it works, and how it is stopped.

**In:** the events of `lmcli.report.progress`; Ctrl-C, SIGTERM, SIGHUP.
**Out:** bars on stderr that vanish when done and never reach a pipe; remarks and warnings; an
answer to each event: whether to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from lmcli.cli.console import console, note, warn
from lmcli.report.progress import (
    Finished,
    Message,
    SampleText,
    Stage,
    TimeLeft,
    Training,
    Trainings,
)

STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
"""Ctrl-C; what asks a process to end; what it gets when its terminal is closed"""


class Stop:
    """Whether the user wants to stop; set by the signals of `STOPPING`."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Within, a signal asks to stop at the next step; a second Ctrl-C stops at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    ignored = {s for s in STOPPING if signal.getsignal(s) == signal.SIG_IGN}  # as nohup does
    before = {s: signal.signal(s, ask) for s in STOPPING if s not in ignored}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PATIENCE = 1.0
"""seconds of silence before a bar shows that something long is going on; 0 where that is sure"""
ALL = "all"
"""the bar of all trainings together"""


class ProgressDisplay:
    """The callback of a command: draws bars, says remarks and warnings, answers whether to stop.

    If `stoppable`, Ctrl-C and SIGTERM stop a training at its next step, once it has begun. In a
    stage after the trainings, which no longer asks whether to stop, they end the command at once.
    """

    def __init__(self, shown: bool, stoppable: bool = False) -> None:
        self.shown = shown
        self.draws = shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.stoppable = stoppable
        self.stop = Stop()
        self.began = time.monotonic()
        self.patience = 0.0 if stoppable else PATIENCE
        self.time_left: TimeLeft | None = None
        self.trained_from = self.began
        self.tasks: dict[str, Any] = {}
        self.bits: dict[str, str] = {}
        self.context, self.stopping = ExitStack(), ExitStack()

    def __enter__(self) -> ProgressDisplay:
        if self.draws:
            from lmcli.cli.training_bars import TrainingBars

            self.bars = TrainingBars(console(stderr=True))
            self.context.enter_context(self.bars)
        return self

    def __exit__(self, *error: Any) -> None:
        self.stopping.close()
        self.context.__exit__(*error)

    def __call__(self, event: object) -> bool:
        """Show an event."""
        if self.stoppable and isinstance(event, Training | Trainings):
            self.stop, self.stoppable = self.stopping.enter_context(graceful_stop()), False
        elif isinstance(event, Stage) and not self.stop:
            self.stopping.close()
        if isinstance(event, Message):
            if event.level == "warning":
                warn(event.text)
            elif self.shown:
                note(event.text)
        elif self.draws:
            self._draw(event)
        return bool(self.stop)

    def _move(
        self, key: str, done: float, total: float | None, status: str, name: str = ""
    ) -> None:
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(name or key, total=total, status="")
        task, description = self.tasks[key], name or key
        self.bars.update(task, description=description, completed=done, total=total, status=status)

    def _draw(self, event: object) -> None:
        """Move the bars."""
        if isinstance(event, Stage):
            if time.monotonic() - self.began >= self.patience:
                self._move("stage", event.done, event.total or None, _millions(event), event.name)
            return
        if "stage" in self.tasks:
            self.bars.remove_task(self.tasks.pop("stage"))
        if isinstance(event, Trainings) and len(event.names) > 1:
            self.time_left, self.trained_from = TimeLeft(event), time.monotonic()
            self._move(ALL, 0.0, 1.0, "")
        elif isinstance(event, Training):
            self._move(event.name, event.fraction, 1.0, self._status(event))
            if not self.time_left:
                self.bars.add_to_curve(event)
        elif isinstance(event, SampleText):
            self.bars.print_sample(event)
        elif isinstance(event, Finished) and event.name in self.tasks:
            self._move(event.name, 1.0, 1.0, f"{self.bits.get(event.name, '')}  done".strip())
        if self.time_left and isinstance(event, Training | Finished):
            self.time_left.update(event)
            self._move_all(self.time_left)

    def _move_all(self, time_left: TimeLeft) -> None:
        """The bar of all trainings: the share of the time that is over."""
        left, over = time_left.seconds(), time.monotonic() - self.trained_from
        status = f"{len(time_left.finished)} of {len(time_left.plan.names)} done"
        status += f"  {_minutes(left)} left in all" if left else ""
        self._move(ALL, 0.0 if left is None else over / max(1e-9, over + left), 1.0, status)

    def _status(self, event: Training) -> str:
        speed = event.tokens / event.seconds if event.seconds else 0.0
        left = event.seconds / event.fraction - event.seconds if event.fraction else 0.0
        if event.bits_per_char is not None:
            self.bits[event.name] = f"bits/char {event.bits_per_char:.3f}"
        bits = [self.bits[event.name]] if event.name in self.bits else []
        speeds = [f"{speed / 1000:.0f}k tok/s", f"{_minutes(left)} left"]
        return "  ".join([f"loss {event.loss:.3f}", *bits, *speeds])


def _millions(stage: Stage) -> str:
    """How much of a long stage is done; nothing where it is less than a million of its unit.

    >>> _millions(Stage("scoring", 340_000, 1_250_000, "M tokens"))
    '0.3 of 1.2 M tokens'
    >>> _millions(Stage("fetching", 2_000_000, 0, "MB")), _millions(Stage("scoring", 5, 9, "MB"))
    ('2.0 MB', '')
    """
    most = max(stage.done, stage.total)
    if most < 1e6:
        return ""
    decimals = 1 if most < 1e7 else 0
    total = f" of {stage.total / 1e6:,.{decimals}f}" if stage.total else ""
    return f"{stage.done / 1e6:,.{decimals}f}{total} {stage.unit}"


def _minutes(seconds: float) -> str:
    """
    >>> _minutes(65.9)
    '1:05'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
