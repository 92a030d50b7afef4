"""``lmcli demo``: does it still know the country? On a text of the user's own, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.arguments import ARCHS
from lmcli.cli import options as o
from lmcli.cli.compare import Seeds
from lmcli.errors import TrainingError

DEFAULTS = o.defaults(api.demo)
OwnTexts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]...",
        help="Texts of your own, or one of lmcli make france; none: sentences made by rule.",
        show_default=False,
    ),
]
Archs = Annotated[
    str | None,
    o.option(
        "--arch",
        about="Architectures with commas, as in compare.",
        default="those of compare, and a ReLU RNN if there is time",
        metavar="NAMES",
    ),
]
TokenizerName = Annotated[
    str | None,
    o.option(
        "--tokenizer",
        about="byte, char, word or bpe.",
        default="word; char for Chinese and Japanese",
        metavar="NAME",
    ),
]
Minutes = Annotated[
    float | None,
    o.option(
        "--minutes",
        about="Budget in minutes of each training, at most.",
        default="what this machine needs, by its speed",
        min=0.001,
        metavar="N",
    ),
]
Facts = Annotated[
    str | None,
    o.option(
        "--facts",
        about="A language (de, en, es, fr, it, ja, pt, ru, zh) or a file of your own.",
        default="auto",
        metavar="FILE.toml",
    ),
]
Set = Annotated[
    list[str] | None,
    o.option(
        "--set",
        about="A setting as in compare; words, longest: of the text that is made.",
        metavar="NAME=VALUE",
    ),
]
Output = Annotated[
    Path | None,
    o.option(
        "--output", "-o", about="Folder of text and runs.", default="runs/demo", metavar="DIR"
    ),
]


def demo(
    ctx: typer.Context,
    texts: OwnTexts = None,
    arch: Archs = DEFAULTS.arch,
    tokenizer: TokenizerName = DEFAULTS.tokenizer,
    minutes: Minutes = DEFAULTS.minutes,
    facts: Facts = DEFAULTS.facts,
    settings: Set = None,
    seeds: Seeds = DEFAULTS.seeds,
    output: Output = None,
    seed: o.Seed = DEFAULTS.seed,
    device: o.Device = DEFAULTS.device,
    html: o.Html = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Who still knows the country? The textbook's sentence on a text of your own, measured.

    "I grew up in France. ... I speak fluent ___": the sentences between are your text's own. This
    makes the text, trains, fills in the blank at gaps of 3 to 400 words, and says what was seen.

    [bold]Examples[/]

      lmcli demo my.txt

      lmcli demo                               (sentences made by rule)

      lmcli demo my.txt --minutes 10 --seeds 3

      lmcli demo buch.txt --facts de --arch rnn,lstm -o runs/buch
    """
    from lmcli.cli.console import emit, note
    from lmcli.cli.progress import ProgressDisplay
    from lmcli.report.progress import Message

    names = arch or ARCHS
    with ProgressDisplay(not quiet and not as_json, stoppable=True) as display:
        display(
            Message(f"makes a text, trains {names.replace(',', ', ')} on it, asks what they know")
        )
        try:
            found = api.demo(**o.values(ctx, api.demo), on_progress=display)
        except TrainingError as error:
            if not display.stop:
                raise
            note(error.problem)
            note(f"next: {error.hint}")
            raise typer.Exit(display.stop.exit_code) from None
    emit(found.result(), as_json, quiet)
