"""``lmcli list``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcli.cli import options as o


def list_members(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the settings of this one.")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Show architectures, tokenizers, grammars and probes, or the settings of one.

    [bold]Examples[/]

      lmcli list

      lmcli list lstm
    """
    from lmcli.cli.console import emit
    from lmcli.registry import GRAMMARS, MODELS, PROBES, TOKENIZERS

    families = (MODELS, TOKENIZERS, GRAMMARS, PROBES)
    emit(_member(families, name) if name else _overview(families), as_json, quiet)


def _overview(families: tuple[Any, ...]) -> Any:
    from lmcli.report.result import Column, Result, Table, text

    values: dict[str, Any] = {}
    tables = []
    for family in families:
        rows = [{"name": n, "about": family.summary(n)} for n in family.names()]
        values[family.noun + "s"] = rows
        columns = [Column("name", text(family.noun)), Column("about", text(""))]
        tables.append(Table("", columns, rows))
    return Result("list", values, tables, ["lmcli list lstm"])


def _member(families: tuple[Any, ...], name: str) -> Any:
    """The settings of a member, and for an architecture those of its training."""
    from lmcli.errors import UnknownNameError, did_you_mean
    from lmcli.report.result import Block, Column, Passage, Result, Table, text
    from lmcli.settings import describe

    known = [n for family in families for n in family.names()]
    family = next((f for f in families if name in f.names()), None)
    if family is None:
        raise UnknownNameError(f"nothing named '{name}'", did_you_mean(name, known))
    groups = {name: describe(family.load(name).Settings)}
    if family.noun == "architecture":
        from lmcli.training.defaults import TrainingSettings

        groups["training"] = describe(TrainingSettings)
    columns = [Column("name", text("--set")), Column("kind", text("is"))]
    columns += [Column("default", text("default")), Column("about", text(""))]
    blocks: list[Block] = [Passage(f"{name}: {family.summary(name)}")]
    values: dict[str, Any] = {"name": name, "family": family.noun, "about": family.summary(name)}
    for group, settings in groups.items():
        rows = [{**vars(s), "default": s.default} for s in settings]
        shown = [
            {**r, "default": r["unset"] if r["default"] is None else r["default"]} for r in rows
        ]
        blocks.append(Table(group, columns, shown))
        values["settings" if group == name else group] = rows
    return Result("list", values, blocks)
