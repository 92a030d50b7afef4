"""What goes wrong, in one place: two lines on stderr and an exit code.

**In:** whatever a command raises.
**Out:** 1 for a problem the user can fix, 2 for wrong usage, 130 for Ctrl-C, 0 for a closed pipe.
A bug keeps its traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from contextlib import suppress
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from lmcli.cli.console import label, say
from lmcli.cli.environment import warn_of_unknown_variables
from lmcli.cli.help_panels import arrange
from lmcli.errors import LmcliError, StorageError, UsageError, did_you_mean

INTERRUPTED = 130
WrongUsage: Any = typer.BadParameter.__bases__[0]
"""what the parser raises for a command line that does not fit; typer does not export it"""


class LazyCommands(dict[str, Any]):
    """Commands by name, each made from ``file:function`` when it is first taken."""

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if isinstance(command, str):
            file, _, function = command.partition(":")
            app = typer.Typer(
                add_completion=False,
                rich_markup_mode="rich",
                context_settings={"help_option_names": ["-h", "--help"]},
            )
            app.command(name)(getattr(importlib.import_module(f"lmcli.cli.{file}"), function))
            command = self[name] = typer.main.get_command(app)
            for option in command.params:
                if option.envvar:  # the variable of this command goes first
                    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                    own = names[0].replace("LMCLI_", f"LMCLI_{name.upper()}_")
                    option.envvar = [own, *names]
            arrange(command)
        return command

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def values(self) -> Any:
        return [self[name] for name in self]


class LmcliGroup(TyperGroup):
    """The command group that turns errors into words."""

    places: ClassVar[dict[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(self.places)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Parse and run; a command line that does not fit is two lines and exit code 2.

        The words of the command line are the context's `obj`.
        """
        words = args[0] if args else extra.get("args")
        words = sys.argv[1:] if words is None else list(words)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False, "obj": words})
        except WrongUsage as error:
            wrong = _in_our_words(error)
            _report(wrong)
            code = wrong.exit_code
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and answer for what it raises."""
        try:
            warn_of_unknown_variables(self.commands, next(iter(ctx._protected_args), ""))
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
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            _report(LmcliError("this needs torch, which is not installed", "pip install torch"))
            raise typer.Exit(1) from None
        except OSError as error:
            code = _exit_code(error)
            if code is None:
                raise
            raise typer.Exit(code) from None
        return result


def _exit_code(error: OSError) -> int | None:
    """Report a full disk or a missing permission and return the exit code; None for other errors.

    A closed pipe is exit code 0: its reader has seen enough.
    """
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


def _in_our_words(error: Any) -> UsageError:
    """What the parser says, as problem and hint."""
    context = error.ctx
    path = context.command_path if context else "lmcli"
    hint = f"{path} --help shows how"
    problem, _, near = str(error.format_message()).partition(" Did you mean ")
    if near:
        hint = f"did you mean {near}"
    elif hasattr(error, "possibilities") and context:
        known = [f for param in context.command.params for f in param.opts if f[:2] == "--"]
        problem, suggestion = error.message, did_you_mean(error.option_name, known)
        hint = suggestion if suggestion.startswith("did") else f"{path} --help shows all options"
    problem = problem.replace(": Input should", ": should")
    return UsageError(problem[:1].lower() + problem[1:].rstrip("."), hint)


def _report(error: LmcliError) -> None:
    for word, color, message in (("error:", "red", error.problem), ("hint:", "cyan", error.hint)):
        say(f"{label(word, color)} {' '.join(message.split())}")
