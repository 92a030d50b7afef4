"""The two streams of a command: the result on stdout, everything else on stderr.

**In:** a Result, remarks, warnings.
**Out:** a table or JSON on stdout, in UTF-8; lines on stderr in the encoding of the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from lmcli.report.charset import OBEYED
from lmcli.report.progress import Message

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from lmcli.report.result import Result


def emit(result: Result, as_json: bool, quiet: bool = False, html: Path | None = None) -> None:
    """Show a result, and what to try next; with `html` it becomes a page as well."""
    if html is not None:
        from lmcli.report.html import page
        from lmcli.storage import write_output

        write_output(html, page(f"lmcli {result.command}", [result]).encode())
        say_page(html, quiet)
    if as_json:
        emit_json(result.to_json())
        return
    from lmcli.report.terminal import print_result

    print_result(result, console())
    if result.next_commands and not quiet:
        note("next: " + f"\n{' ' * 6}".join(result.next_commands))


def say_page(path: Path, quiet: bool) -> None:
    """Where a page is."""
    if not quiet:
        note(f"page: {path}")


def emit_json(values: Mapping[str, Any]) -> None:
    """One object on one line of stdout."""
    emit_lines([json.dumps(values, ensure_ascii=False, allow_nan=False)])


def emit_lines(lines: Sequence[str]) -> None:
    """Lines on stdout, in UTF-8 whatever the locale says."""
    sys.stdout.flush()
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def note(message: str) -> None:
    """A line on stderr; what a terminal would obey is shown."""
    say(message.translate(OBEYED))


def console(stderr: bool = False) -> Console:
    """A rich console that obeys COLUMNS, NO_COLOR, FORCE_COLOR and TERM=dumb.

    What goes through a pipe is as wide as the window that the command was typed in, else 80.
    """
    from lmcli.report.terminal import Terminal

    plain = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return Terminal(stderr=stderr, highlight=False, soft_wrap=False, no_color=plain or None)


def say(message: str) -> None:
    """A line on stderr in its own encoding (typer's echo would write UTF-8 to an ASCII one)."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """A warning on stderr."""
    say(f"{label('warning:', 'yellow')} {message.translate(OBEYED)}")


def show_message(event: object) -> None:
    """The `on_progress` of commands without a progress bar."""
    if isinstance(event, Message):
        (warn if event.level == "warning" else note)(event.text)


def label(word: str, color: str) -> str:
    """A word in colour, where stderr shows colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    forced = os.environ.get("FORCE_COLOR")
    if plain or not (sys.stderr.isatty() or forced):
        return word
    return typer.style(word, fg=color, bold=True)
