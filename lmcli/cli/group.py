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
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from lmcli.errors import LmcliError, StorageError, UsageError, did_you_mean

if TYPE_CHECKING:
    from lmcli.evaluation.score import Score
    from lmcli.tokenizers.base import Tokenizer

INTERRUPTED = 130
UNCOUNTED = 0.01
"""share of unknown tokens from which on their spelling is missed"""
WrongUsage: Any = typer.BadParameter.__bases__[0]
"""what the parser raises for a command line that does not fit; typer does not export it"""


class LmcliGroup(TyperGroup):
    """The command group that turns errors into words."""

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

    A closed pipe is exit code 0: whoever reads has seen enough.
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


def say(message: str) -> None:
    """A line on stderr in its own encoding (typer's echo would write UTF-8 to an ASCII one)."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """A warning on stderr."""
    say(f"{label('warning:', 'yellow')} {message}")


def warn_unknown(tokenizer: Tokenizer, text: str) -> None:
    """Say which symbols of a text the model has never seen."""
    if tokenizer.unknown is None or not text:
        return
    encoded = tokenizer.encode_with_ends(text)
    begins = [0, *encoded.ends[:-1].tolist()]
    spans = zip(encoded.ids.tolist(), begins, encoded.ends.tolist(), strict=True)
    strange = [text[b:e].strip() or text[b:e] for i, b, e in spans if i == tokenizer.unknown]
    if strange:
        shown = list(dict.fromkeys(map(repr, strange)))
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        warn(f"the model has never seen {', '.join(shown[:8])}{more}: read as unknown")


def warn_uncounted(score: Score, run: object) -> None:
    """Say where so many tokens are unknown that bits per character mean little."""
    if score.unknown_tokens > UNCOUNTED * score.tokens:
        warn(
            f"{score.unknown_tokens:,} of {score.tokens:,} tokens are unknown to '{run}': "
            "bits/char leaves out how they are spelt, and is no match for another tokenizer's"
        )


def label(word: str, color: str) -> str:
    """A word in colour, where stderr shows colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    forced = os.environ.get("FORCE_COLOR")
    if plain or not (sys.stderr.isatty() or forced):
        return word
    return typer.style(word, fg=color, bold=True)
