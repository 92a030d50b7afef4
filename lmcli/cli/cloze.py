"""``lmcli cloze``: fill in the blank, one row a run, one column a gap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.cloze)


def cloze(
    runs: Annotated[list[Path], o.argument("RUN...", "Trained runs.")],
    text: Annotated[
        str | None, o.option("--text", about="A text with a blank: ___ .", metavar="TEXT")
    ] = DEFAULT.text,
    candidates: Annotated[
        str | None,
        o.option("--candidates", about="Words to choose from, with commas.", metavar="A,B"),
    ] = DEFAULT.candidates,
    swap: Annotated[
        str | None, o.option("--swap", about="Compare with another cue.", metavar="OLD=NEW")
    ] = DEFAULT.swap,
    gaps: Annotated[
        str | None,
        o.option("--gaps", about="Words of filler at '...', with commas.", metavar="N,N"),
    ] = DEFAULT.gaps,
    filler: Annotated[
        str | None, o.option("--filler", about="Text to take the filler from.", metavar="TEXT")
    ] = DEFAULT.filler,
    items: Annotated[
        Path | None,
        o.option("--items", about="Held-out items of lmcli make.", default="those beside the text"),
    ] = DEFAULT.items,
    top: Annotated[
        int, o.option("--top", about="Show the N likeliest.", min=1, metavar="N")
    ] = DEFAULT.top,
    seed: o.Seed = DEFAULT.seed,
    html: o.Html = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Fill in the blank, and see how far back each run remembers what it needs.

    [bold]Examples[/]

      lmcli cloze runs/mine --text "To be or not to ___"

      lmcli cloze runs/lstm runs/rnn --text "Anna grew up in France . ... now she speaks fluent ___"
      --candidates French,German --swap France=Germany --gaps 0,10,100 --filler data/france.txt

      lmcli cloze runs/compare/*            (the items beside a text of lmcli make)
    """
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay

    folders = [path for path in runs if not o.is_of_comparison(path)]
    with ProgressDisplay(not quiet and not as_json) as on_progress:
        found = api.cloze(
            folders or runs, text=text, candidates=candidates, swap=swap, gaps=gaps, filler=filler,
            items=items, top=top, seed=seed, on_progress=on_progress,
        )  # fmt: skip
    emit(found.result(), as_json, quiet, html)
