"""``lmcli make``: a text made by rule, with known answers and a known optimum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lmcli import api
from lmcli.cli import options as o


def make(
    grammar: Annotated[str, o.argument("GRAMMAR", "lmcli list shows them.")],
    output: Annotated[
        Path | None,
        o.option("--output", "-o", about="The text.", default="GRAMMAR.txt", metavar="F.txt"),
    ] = None,
    size: Annotated[
        str | None, o.option("--size", about="small, default or long.", default="default")
    ] = None,
    level: Annotated[
        int | None, o.option("--level", about="france: how hard, 0 to 3.", metavar="N")
    ] = None,
    digits: Annotated[
        int | None, o.option("--digits", about="addition: digits of a number.", metavar="N")
    ] = None,
    carry_length: Annotated[
        int | None,
        o.option("--carry-length", about="addition: longest carry in the text.", metavar="N"),
    ] = None,
    filler: Annotated[
        list[str] | None,
        o.option(
            "--filler",
            about="france: a text of your own between cue and query.",
            metavar="TEXT",
        ),
    ] = None,
    facts: Annotated[
        str | None,
        o.option(
            "--facts",
            about="With --filler: a language (de, en, es, fr, it, ja, pt, ru, zh) or a file.",
            default="auto",
            metavar="FILE.toml",
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        o.option("--pairs", about="With --filler: cues and answers.", metavar="FILE.csv"),
    ] = None,
    frame: Annotated[
        str | None,
        o.option("--frame", about="With --pairs: 'In {a}. ... I speak {b}.'", metavar="TEXT"),
    ] = None,
    settings: o.GrammarSet = None,
    seed: Annotated[
        int | None,
        o.option(
            "--seed",
            about="Seed of all randomness.",
            callback=o.check_seed,
            default="0",
            metavar="N",
        ),
    ] = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Write a text made by rule, one document a line, with held-out items beside it.

    [bold]Examples[/]

      lmcli make france

      lmcli make france -o long.txt --size long --seed 1

      lmcli make france -o two.txt --level 2

      lmcli make france --filler my.txt -o mine.txt

      lmcli make addition --digits 8

      lmcli make brackets --size small
    """
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay
    from lmcli.settings import split_pairs

    with ProgressDisplay(not quiet and not as_json) as on_progress:
        made = api.make(
            grammar,
            output,
            size=size,
            level=level,
            digits=digits,
            carry_length=carry_length,
            settings=split_pairs(settings or []),
            seed=seed,
            filler=filler,
            facts=facts,
            pairs=pairs,
            frame=frame,
            force=force,
            on_progress=on_progress,
        )
    emit(made.result(), as_json, quiet)
