"""The commands, one file each; the only place that knows typer.

Commands import what they need when they run: ``lmcli --help`` must not wait for torch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from lmcli import __version__
from lmcli.cli import (
    cloze,
    compare,
    evaluate,
    export,
    inspect,
    listing,
    make,
    probe,
    sample,
    train,
)
from lmcli.cli.errors import LmcliGroup

app = typer.Typer(
    cls=LmcliGroup,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lmcli {__version__}")
        raise typer.Exit


@app.callback()
def lmcli(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train small language models on your own text and measure how far back each one remembers.

    [bold]lmcli train my.txt -o runs/mine[/]   then   [bold]lmcli sample runs/mine[/]
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("cloze")(cloze.cloze)
app.command("probe")(probe.probe)
app.command("inspect")(inspect.inspect)
app.command("make")(make.make)
app.command("export")(export.export)
app.command("list")(listing.list_members)
