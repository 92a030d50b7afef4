"""The commands, one file each; the only place that knows typer.

A command's file is imported when the command is named, and imports what it needs when it runs:
``lmcli --help`` must not wait for torch.
"""

from __future__ import annotations

from typing import Annotated

import typer

from lmcli import __version__
from lmcli.cli.errors import LmcliGroup

COMMANDS = {
    "train": "train:train",
    "sample": "sample:sample",
    "eval": "evaluate:evaluate",
    "demo": "demo:demo",
    "compare": "compare:compare",
    "cloze": "cloze:cloze",
    "probe": "probe:probe",
    "inspect": "inspect:inspect",
    "report": "report:report",
    "make": "make:make",
    "serve": "serve:serve",
    "export": "export:export",
    "list": "listing:list_members",
}
"""where each command is: its file and its function"""
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


def _man(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        from lmcli.cli.man_page import man_page

        typer.echo(man_page(ctx.command), nl=False)
        raise typer.Exit


@app.callback()
def lmcli(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    man: Annotated[
        bool,
        typer.Option("--man", callback=_man, is_eager=True, help="Print the manual page (roff)."),
    ] = False,
) -> None:
    """Train small language models on your own text and measure how far back each one remembers.

    [bold]lmcli train my.txt -o runs/mine[/]   then   [bold]lmcli sample runs/mine[/]

    [bold]lmcli demo my.txt[/]   who still knows the country after 3 to 400 words of it?
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


LmcliGroup.places = COMMANDS
