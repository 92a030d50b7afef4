"""``lmcli export``: a run for others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lmcli.cli import options as o

TARGETS = ("numpy",)


def export(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    to: Annotated[
        str, o.option("--to", about="numpy: to be sampled from without torch.", metavar="KIND")
    ] = "numpy",
    output: Annotated[
        Path | None,
        o.option("--output", "-o", about="The folder.", default="RUN-numpy", metavar="FOLDER"),
    ] = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Write a run as a model that others can use.

    [bold]Examples[/]

      lmcli export runs/mine --to numpy -o mine-to-go
    """
    from lmcli.cli.console import emit
    from lmcli.generation.export import export_numpy
    from lmcli.run import Run

    o.one_of("to", to, TARGETS)
    run = Run.open(run_path)
    path = output or run_path.with_name(f"{run.name}-{to}")
    exported = export_numpy(run, path, force)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    values = {"run": str(run_path), "to": to, "output": str(path), "bytes": size}
    emit(_result(values | {"arch": exported.record.arch}), as_json, quiet)


def _result(values: dict[str, Any]) -> Any:
    from lmcli.report.result import COUNT, Column, Facts, Result, text

    columns = [Column(name, text(name)) for name in ("output", "arch", "to")]
    columns.append(Column("bytes", COUNT, "bytes"))
    tried = f"lmcli sample {shlex.quote(values['output'])}"
    return Result("export", values, [Facts(columns, values)], [tried])
