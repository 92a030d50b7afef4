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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from lmcli.cli.completion import bash_values
from lmcli.cli.console import label, say
from lmcli.cli.environment import warn_of_unknown_variables
from lmcli.cli.help_panels import arrange
from lmcli.errors import LmcliError, StorageError, UsageError, did_you_mean
from lmcli.report.charset import OBEYED

INTERRUPTED = 130
OF_ITS_OWN = {("eval", "LMCLI_SPLIT"), ("make", "LMCLI_LEVEL"), ("compare", "LMCLI_WORKERS")}
"""options that mean another thing elsewhere: they read the variable of their command only"""
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
            options: list[Any] = command.params
            for option in options:
                if getattr(option, "multiple", False):
                    option.value_from_envvar = _values_of_lines(option)
                if option.envvar:  # the variable of this command goes first
                    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                    own = names[0].replace("LMCLI_", f"LMCLI_{name.upper()}_")
                    option.envvar = [own] if (name, *names) in OF_ITS_OWN else [own, *names]
            arrange(command)
        return command

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def values(self) -> Any:
        return [self[name] for name in self]


def _values_of_lines(option: Any) -> Callable[[Any], list[str] | None]:
    """What reads the variable of an option that may be repeated: each line of it is a value.

    A setting has no blanks, so that those of ``LMCLI_SET`` may share a line.
    """
    separator = None if "--set" in option.opts else "\n"

    def values(context: Any) -> list[str] | None:
        text = option.resolve_envvar_value(context)
        return text and [value for value in text.split(separator) if value]

    return values


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
        values = bash_values(self._unfinished)
        if values is not None:
            typer.echo("\n".join(values))
            sys.exit(0)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False, "obj": words})
            sys.stdout.flush()
        except WrongUsage as error:
            wrong = _in_our_words(error)
            _report(wrong)
            code = wrong.exit_code
        except OSError as error:  # of --help and --version
            code = _exit_code(error)
            if code is None:
                raise
        sys.exit(code or 0)

    def _unfinished(self, words: list[str]) -> Any:
        """The context of the command that an unfinished command line calls."""
        name, *rest = words or ["lmcli"]
        command = self.commands.get(name, self)
        return command.make_context(name, rest, resilient_parsing=True)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and answer for what it raises."""
        try:
            _check_working_folder()
            warn_of_unknown_variables(self.commands, next(iter(ctx._protected_args), ""))
            result = super().invoke(ctx)
            sys.stdout.flush()
        except LmcliError as error:
            _report(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
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


def _check_working_folder() -> None:
    """A StorageError if it has been deleted: torch, for one, cannot be loaded there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        problem = "the working folder has been deleted"
        raise StorageError(problem, "change to another one: cd ~") from None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a CPU or torch on a GPU finds no memory."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def _exit_code(error: OSError) -> int | None:
    """Report what the system refuses and return the exit code; None where it names no file.

    A closed pipe is exit code 0: its reader has seen enough.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if error.errno == errno.EPIPE or (full and not error.filename):
        with suppress(OSError):  # nothing more can be written: let the exit not try it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return 0
    place = error.filename or "the output"
    if full:
        problem = StorageError(f"no space left for '{place}'", "free some space")
    elif error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        problem = StorageError(f"no permission for '{place}'", "choose another place")
    elif error.filename and error.errno:
        what = os.strerror(error.errno).lower()
        problem = StorageError(f"cannot use '{place}': {what}", "choose another name or place")
    else:
        return None
    _report(problem)
    return 1


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
    lines = [("error:", "red", error.problem), ("hint:", "cyan", error.hint)]
    lines += [("note:", "yellow", note) for note in getattr(error, "__notes__", ())]
    for word, color, message in lines:
        say(f"{label(word, color)} {' '.join(message.split()).translate(OBEYED)}")
