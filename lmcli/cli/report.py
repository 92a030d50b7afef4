"""``lmcli report``: the page of a run or a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.report)


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|COMPARISON", help="A folder of train, compare or demo.")
    ],
    output: Annotated[
        Path | None,
        o.option(
            "--output",
            "-o",
            about="The page.",
            default="FOLDER.html",
            callback=o.check_page,
            metavar="FILE",
        ),
    ] = DEFAULT.output,
    png: Annotated[
        Path | None, o.option("--png", about="Each figure as PNG, for slides.", metavar="DIR")
    ] = DEFAULT.png,
    csv: Annotated[
        Path | None,
        o.option("--csv", about="Each figure and table as CSV, not rounded.", metavar="DIR"),
    ] = DEFAULT.csv,
    probes: Annotated[
        bool,
        o.option(
            "--probes/--no-probes",
            about="Measure the memory curves that were not saved: about a minute a model.",
        ),
    ] = DEFAULT.probes,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Write one page to hand in or to show: figures, tables, passages, how it was made.

    It is one file that needs no network and has no scripts; it follows light and dark, and prints.
    Numbers that were saved are shown as they were saved.

    [bold]Examples[/]

      lmcli report runs/demo -o page.html

      lmcli report runs/lstm --no-probes

      lmcli report runs/compare --png slides --csv numbers
    """
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay

    with ProgressDisplay(not quiet and not as_json) as on_progress:
        found = api.report(
            source, output, png=png, csv=csv, probes=probes, force=force, on_progress=on_progress
        )
    emit(found.result(), as_json, quiet)
