"""``lmcli inspect``: what gates, cells and hidden units do, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.inspect)


def inspect(
    run: Annotated[Path, o.argument("RUN", "A trained run.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text, a file, or - for stdin.")],
    gate: Annotated[
        str | None, o.option("--gate", about="Show this one, such as forget.", metavar="NAME")
    ] = DEFAULT.gate,
    units: Annotated[
        int | None,
        o.option("--units", about="Show the N units that vary most.", min=1, metavar="N"),
    ] = DEFAULT.units,
    unit: Annotated[
        int | None, o.option("--unit", about="Follow this unit along the text.", min=0, metavar="N")
    ] = DEFAULT.unit,
    correlate: Annotated[
        str | None,
        o.option("--correlate", about="Find units that tell where this matches.", metavar="REGEX"),
    ] = DEFAULT.correlate,
    versus: Annotated[
        Path | None, o.option("--versus", about="Who remembered: RUN or this run?", metavar="RUN")
    ] = DEFAULT.versus,
    html: o.Html = None,
    force: o.Force = False,
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
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay

    with ProgressDisplay(not quiet and not as_json) as on_progress:
        found = api.inspect(
            run, text, gate=gate, units=units, unit=unit, correlate=correlate, versus=versus,
            on_progress=on_progress,
        )  # fmt: skip
    emit(found.result(), as_json, quiet, html)
