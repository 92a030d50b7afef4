"""``lmcli make``: a text made by rule, with known answers and a known optimum."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lmcli.cli import options as o


def make(
    grammar: Annotated[str, typer.Argument(metavar="GRAMMAR", help="lmcli list shows them.")],
    output: Annotated[
        Path | None,
        o.option("--output", "-o", about="The text.", default="GRAMMAR.txt", metavar="F.txt"),
    ] = None,
    size: Annotated[str, o.option("--size", about="small, default or long.")] = "default",
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
    settings: o.Set = None,
    seed: o.Seed = 0,
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

      lmcli make addition --digits 8
    """
    from lmcli.cli.console import emit
    from lmcli.grammars.base import companions, read_about, write_grammar
    from lmcli.registry import GRAMMARS
    from lmcli.settings import check_known, split_pairs, update

    cls = GRAMMARS.load(grammar)
    named = {"level": level, "digits": digits, "carry_length": carry_length}
    pairs: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    pairs |= split_pairs(settings or [])
    check_known(pairs, cls.Settings)
    made = cls(update(cls.Settings(), {"size": size, "seed": seed, **pairs}))
    path = output or Path(f"{grammar}.txt")
    write_grammar(made, path, force)
    _, about = companions(path)
    values = {"text": str(path), "about": str(about), **read_about(about)}
    emit(_result(values, path), as_json, quiet)


def _result(values: dict[str, Any], path: Path) -> Any:
    from lmcli.grammars.base import companions
    from lmcli.report.result import COUNT, PERPLEXITY, Column, Facts, Metric, Result, text

    columns = [
        Column("text", text("text")),
        Column("shown", text("items")),
        Column("about", text("about")),
        Column("documents", COUNT, "documents"),
        Column("tokens", COUNT, "tokens"),
        Column("characters", COUNT, "characters"),
        Column("optimum.perplexity", PERPLEXITY, "best perplexity"),
        Column("optimum.bits_per_char", Metric("bits/char", 4), "best bits/char"),
        Column("amnesic.perplexity", PERPLEXITY, "without memory"),
    ]
    counts = ", ".join(f"{COUNT.show(n)} {kind}" for kind, n in values["items"].items())
    shown = {**values, "shown": f"{companions(path)[0]} ({counts})"}
    tokenizer = values.get("tokenizer", "word")
    tried = f"lmcli compare {shlex.quote(str(path))} --tokenizer {tokenizer}"
    return Result("make", values, [Facts(columns, shown)], [tried])
