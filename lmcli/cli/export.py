"""``lmcli export``: a run for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.export)


def export(
    run: Annotated[Path, o.argument("RUN", "A trained run.")],
    to: Annotated[
        str,
        o.option(
            "--to",
            about="numpy (samples without torch), onnx, or hf (Hugging Face Hub).",
            metavar="KIND",
        ),
    ] = DEFAULT.to,
    output: Annotated[
        Path | None,
        o.option("--output", "-o", about="The folder.", default="RUN-KIND", metavar="FOLDER"),
    ] = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Write a run as a model that others can use.

    [bold]Examples[/]

      lmcli export runs/mine --to numpy -o mine-to-go

      lmcli export runs/mine --to onnx      (for other languages and programs)

      lmcli export runs/mine --to hf        (weights, config and a model card)
    """
    from lmcli.cli.console import emit

    emit(api.export(run, to=to, output=output, force=force).result(), as_json, quiet)
