"""What a command shows: the result on stdout, everything else on stderr.

**In:** a Result, or Progress as it comes.
**Out:** a table or JSON on stdout; bars on stderr that vanish when done and never reach a pipe.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from lmcli.cli.group import say

if TYPE_CHECKING:
    from rich.console import Console

    from lmcli.data.texts import ProgressCounter
    from lmcli.report.result import Result
    from lmcli.training.trainer import Progress


def emit(result: Result, as_json: bool, quiet: bool = False) -> None:
    """Show a result, and what to try next."""
    if as_json:
        emit_json(result.to_json())
        return
    from lmcli.report.terminal import print_result

    print_result(result, console())
    if result.next_commands and not quiet:
        note("next: " + f"\n{' ' * 6}".join(result.next_commands))


def emit_json(values: Mapping[str, Any]) -> None:
    """One object on one line of stdout."""
    emit_lines([json.dumps(values, ensure_ascii=False, allow_nan=False)])


def emit_lines(lines: Sequence[str]) -> None:
    """Lines on stdout, in UTF-8 whatever the locale says."""
    sys.stdout.flush()
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def note(message: str) -> None:
    """A line on stderr."""
    say(message)


def console(stderr: bool = False) -> Console:
    """A rich console that obeys COLUMNS, NO_COLOR, FORCE_COLOR and TERM=dumb."""
    from lmcli.report.terminal import Terminal

    stream = sys.stderr if stderr else sys.stdout
    plain = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 100
    return Terminal(
        stderr=stderr, highlight=False, soft_wrap=False, no_color=plain or None, width=width
    )


class Stop:
    """Whether the user wants to stop; set by Ctrl-C and SIGTERM."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Within, Ctrl-C and SIGTERM ask to stop at the next step; a second Ctrl-C stops at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _can_draw(wanted: bool) -> bool:
    """Whether bars are wanted, and stderr is a terminal that can redraw a line."""
    return wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


PATIENCE = 1.0
"""seconds of silence before a bar shows that something long is going on"""


@contextmanager
def preparation_bar(shown: bool) -> Iterator[ProgressCounter]:
    """A meter for the reading of a text, drawn as a bar where it takes long."""
    from rich.progress import BarColumn, Progress, TextColumn

    from lmcli.data.texts import ProgressCounter

    meter, began = ProgressCounter(), time.monotonic()

    class Bar(Progress):
        """Looks at the meter each time it is drawn."""

        def get_renderables(self) -> Iterator[Any]:
            if self.tasks and time.monotonic() - began >= PATIENCE:
                done = f"{meter.done / 1e6:,.0f} {meter.unit}"
                done += f" of {meter.total / 1e6:,.0f}" if meter.total else ""
                self.update(
                    self.tasks[0].id,
                    description=meter.stage,
                    completed=meter.done,
                    total=meter.total or None,
                    status=done,
                )
                yield from super().get_renderables()

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
    )
    bar = Bar(*columns, console=console(stderr=True), transient=True, disable=not _can_draw(shown))
    bar.add_task("", total=None, status="")
    with bar:
        yield meter


class TrainingBars:
    """One live bar a training: loss, bits per character, speed, time left."""

    def __init__(self, shown: bool, chars_per_token: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.bits = chars_per_token and 1 / math.log(2) / chars_per_token
        err = console(stderr=True)
        self.shown = _can_draw(shown)
        self.bars = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[status]}"),
            console=err,
            transient=True,
            disable=not self.shown,
        )
        self.tasks: dict[str, Any] = {}
        self.valid: dict[str, float] = {}

    def __enter__(self) -> TrainingBars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def show(self, name: str, progress: Progress) -> None:
        """Move a bar."""
        if not self.shown:
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=1.0, status="")
        if progress.valid is not None:
            self.valid[name] = progress.valid
        self.bars.update(
            self.tasks[name], completed=progress.fraction, status=self._status(name, progress)
        )

    def _status(self, name: str, p: Progress) -> str:
        speed = p.tokens / p.seconds if p.seconds else 0.0
        left = p.seconds / p.fraction - p.seconds if p.fraction else 0.0
        parts = [f"loss {p.loss:.3f}"]
        if name in self.valid:
            parts.append(f"bits/char {self.valid[name] * self.bits:.3f}")
        parts += [f"{speed / 1000:.0f}k tok/s", f"{int(left) // 60}:{int(left) % 60:02d} left"]
        return "  ".join(parts)
