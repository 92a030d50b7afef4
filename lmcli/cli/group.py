"""What goes wrong, in one place: two lines on stderr and an exit code.

**In:** whatever a command raises.
**Out:** 1 for a problem the user can fix, 2 for wrong usage, 130 for Ctrl-C, 0 for a closed pipe.
A bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from lmcli.errors import LmcliError, StorageError

INTERRUPTED = 130


class LmcliGroup(TyperGroup):
    """The command group that turns errors into words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command and answer for what it raises."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except LmcliError as error:
            _report(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except MemoryError:
            _report(LmcliError("out of memory", "a smaller text, or --set hidden=128 batch=8"))
            raise typer.Exit(1) from None
        except OSError as error:
            code = _answer(error)
            if code is None:
                raise
            raise typer.Exit(code) from None
        return result


def _answer(error: OSError) -> int | None:
    """The exit code for what the system said, None for what nobody foresaw."""
    if error.errno == errno.EPIPE:
        with suppress(OSError):  # nothing more can be said; keep the exit quiet as well
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    place = error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        _report(StorageError(f"no space left for '{place}'", "free some space"))
        return 1
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        _report(StorageError(f"no permission for '{place}'", "choose another place"))
        return 1
    return None


def _report(error: LmcliError) -> None:
    typer.echo(f"{label('error:', 'red')} {error.problem}", err=True)
    typer.echo(f"{label('hint:', 'cyan')} {error.hint}", err=True)


def warn(message: str) -> None:
    """A warning on stderr."""
    typer.echo(f"{label('warning:', 'yellow')} {message}", err=True)


def label(word: str, color: str) -> str:
    """A word in colour, where stderr shows colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    forced = os.environ.get("FORCE_COLOR")
    if plain or not (sys.stderr.isatty() or forced):
        return word
    return typer.style(word, fg=color, bold=True)
