"""``lmcli list``: what there is to choose from, and what was trained."""

from __future__ import annotations

from typing import Annotated, Any

from lmcli import api
from lmcli.cli import options as o

EXAMPLE = "chosen: from the text and the budget; none: left out. Example: --set hidden=128"


def list_members(
    name: Annotated[
        str | None,
        o.argument("NAME", "Show the settings of this one; with --runs, look in this folder."),
    ] = None,
    runs: Annotated[
        bool, o.option("--runs", about="Show all runs of a folder with their scores.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Show architectures, tokenizers, grammars and probes, the settings of one, or your runs.

    [bold]Examples[/]

      lmcli list

      lmcli list lstm

      lmcli list --runs
    """
    from lmcli.cli.console import emit

    if runs:
        emit(api.list_runs(name or "runs").result(), as_json, quiet)
        return
    from lmcli.registry import GRAMMARS, MODELS, PROBES, TOKENIZERS

    families = (MODELS, TOKENIZERS, GRAMMARS, PROBES)
    emit(_named(families, name) if name else _overview(families), as_json, quiet)


def _overview(families: tuple[Any, ...]) -> Any:
    from lmcli.report.result import Column, Result, Table, text

    values: dict[str, Any] = {}
    tables = []
    for family in families:
        rows = [{"name": n, "about": family.summary(n)} for n in family.names()]
        values[family.noun + "s"] = rows
        columns = [Column("name", text(family.noun)), Column("about", text("what it is"))]
        tables.append(Table("", columns, rows))
    return Result("list", values, tables, ["lmcli list lstm"])


def _named(families: tuple[Any, ...], name: str) -> Any:
    """The settings of every member of that name; JSON has the first, and the rest as `others`."""
    from lmcli.errors import UnknownNameError, did_you_mean
    from lmcli.report.result import Block, Result

    known = [n for family in families for n in family.names()]
    if name not in known:
        raise UnknownNameError(f"nothing named '{name}'", did_you_mean(name, known))
    blocks: list[Block] = []
    values, *others = [_member(f, name, blocks) for f in families if name in f.names()]
    return Result("list", values | ({"others": others} if others else {}), blocks)


def _member(family: Any, name: str, blocks: list[Any]) -> dict[str, Any]:
    """The settings of one member, and for an architecture those of its training."""
    from lmcli.report.result import Column, Passage, Table, text
    from lmcli.settings import describe

    groups = {name: describe(family.load(name).Settings)}
    if family.noun == "architecture":
        from lmcli.training.training_settings import TrainingSettings

        groups["training"] = describe(TrainingSettings)
    columns = [Column("name", text("setting")), Column("kind", text("type"))]
    columns += [Column("default", text("default")), Column("about", text("what it does"))]
    about = family.summary(name)
    blocks.append(Passage(f"{name}: {about}"))
    values: dict[str, Any] = {"name": name, "family": family.noun, "about": about}
    for group, settings in groups.items():
        rows = [vars(s) for s in settings]
        shown = [r | {"default": r["unset"]} if r["default"] is None else r for r in rows]
        blocks.append(Table(group, columns, shown, EXAMPLE if group == name else ""))
        values["settings" if group == name else group] = rows
    return values
