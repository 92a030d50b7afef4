"""``lmcli inspect``: what gates, cells and hidden units do, token by token.

JSON keys beside `run`, `arch`, `tokenizer`, `tokens` and `nats` (the sum):

- `gates`: the names shown, and ``items: [{text, nats, <gate>: value}]``, one a token. The value is
  the mean over units (for candidate, cell and hidden, whose signs would cancel, the mean of their
  size); with ``--units`` or ``--unit`` a mapping from unit to value.
- ``--versus``: ``versus: {run, arch, nats}`` and ``items: [{text, nats, versus, difference}]``, one
  a span that is whole tokens for both; difference = nats - versus, below 0 where RUN is ahead.
- ``--correlate``: ``correlate: {regex, tokens, inside, candidates, chance, shifted, units}`` with
  ``units: [{gate, unit, above, threshold, fit, score, auc}]``, best fit first, and no `items`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.evaluation.activations import Activations
    from lmcli.run import Run

LONGEST = 20_000
"""characters that are read"""


def inspect(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text, a file, or - for stdin.")],
    gate: Annotated[
        str | None, o.option("--gate", about="Show this one, such as forget.", metavar="NAME")
    ] = None,
    units: Annotated[
        int | None,
        o.option("--units", about="Show so many units, the most telling.", min=1, metavar="N"),
    ] = None,
    unit: Annotated[
        int | None, o.option("--unit", about="Follow this unit along the text.", min=0, metavar="N")
    ] = None,
    correlate: Annotated[
        str | None,
        o.option("--correlate", about="Find units that tell where this matches.", metavar="REGEX"),
    ] = None,
    versus: Annotated[
        Path | None, o.option("--versus", about="Who remembered: RUN or this run?", metavar="RUN")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Look inside: gates, cells and hidden units while a run reads, and how surprised it is.

    [bold]Examples[/]

      lmcli inspect runs/lstm "I grew up in France . I speak fluent French ."

      lmcli inspect runs/lstm my.txt --gate forget --units 8

      lmcli inspect runs/lstm my.txt --correlate '"[^"]*"'   (finds units)

      lmcli inspect runs/lstm my.txt --gate cell --unit 17

      lmcli inspect runs/lstm my.txt --versus runs/rnn   (who remembered?)
    """
    from lmcli.cli import pictures
    from lmcli.cli.console import emit
    from lmcli.evaluation.activations import inspect, read_only
    from lmcli.run import Run

    _check_one(units=units, unit=unit, versus=versus)
    _check_one(unit=unit, correlate=correlate, versus=versus)
    _check_one(gate=gate, versus=versus)
    run = Run.open(run_path)
    pieces = _pieces(run, text)
    seen = (read_only if versus else inspect)(run.model(), run.tokenizer, pieces)
    values = _values(run, seen)
    count = units or pictures.UNITS
    if versus is not None:
        result = pictures.who_remembered(values, seen, Run.open(versus), pieces)
    elif correlate is not None:
        result = pictures.telltales(values, seen, correlate, gate, count, text)
    elif units is not None or unit is not None:
        result = pictures.single_units(values, seen, gate, count, unit)
    else:
        result = pictures.average(values, seen, gate, text)
    emit(result, as_json, quiet)


def _values(run: Run, seen: Activations) -> dict[str, Any]:
    """What every result says of the run and the text; a warning where the text is unknown to it."""
    from lmcli.cli.console import warn

    if seen.unknown:
        warn(f"{seen.unknown} of {len(seen.spans)} tokens are unknown to '{run.path}'")
    about = {"run": str(run.path), "arch": run.record.arch, "tokenizer": run.record.tokenizer}
    return {**about, "tokens": len(seen.spans), "nats": float(seen.nats.sum())}


def _check_one(**options: object) -> None:
    """A UsageError for two options that ask for different pictures."""
    from lmcli.errors import UsageError

    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} at once", "give one of them")


def _pieces(run: Run, text: str) -> list[str]:
    """The documents of a file, or the text itself; what is too long is cut."""
    from lmcli.cli.console import warn
    from lmcli.data.corpus import read_documents
    from lmcli.data.text import TextOptions
    from lmcli.errors import TextError
    from lmcli.settings import update

    pieces = [text]
    if _is_file(text):
        unit = run.record.corpus.get("options", {}).get("documents", "file")
        options = update(TextOptions(), {"documents": unit})
        pieces = [document.text for document in read_documents([text], options)]
    if not "".join(pieces):
        raise TextError("the text is empty", "give a few words, or a file")
    kept, left = [], LONGEST
    for piece in pieces:
        kept.append(piece[:left])
        left -= len(kept[-1])
    if sum(map(len, pieces)) > LONGEST:
        warn(f"only the first {LONGEST:,} characters of '{text[:60]}' are read")
    return [piece for piece in kept if piece]


def _is_file(text: str) -> bool:
    """Whether TEXT names a file: one that is there, or what can be nothing else."""
    with suppress(OSError, ValueError):
        if Path(text).is_file():
            return True
    if text == "-" or "://" in text:
        return True
    return not any(c.isspace() for c in text) and ("/" in text or text.endswith((".txt", ".gz")))
