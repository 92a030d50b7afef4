"""``lmcli train``: one model on a text."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.cli import options as o
from lmcli.errors import UsageError
from lmcli.run import TRAINING_COPY, ReadOnlyRun
from lmcli.storage import read_json

DEFAULTS = o.defaults(api.train)
Output = Annotated[
    Path | None,
    o.option("--output", "-o", about="Folder of the run.", default="runs/ARCH", metavar="RUN"),
]
Arch = Annotated[
    str, o.option("--arch", about="Architecture; lmcli list shows all.", metavar="NAME")
]
Processes = Annotated[
    int | None,
    o.option(
        "--workers",
        about="Processes that share each batch; on several machines use torchrun.",
        default="1, or as the run to resume",
        min=1,
        metavar="N",
    ),
]
Rotation = Annotated[
    int,
    o.option(
        "--rotation",
        about="Which blocks an interleaved split holds out; compare gives each seed others.",
        min=0,
        max=8,
        metavar="N",
    ),
]
Resume = Annotated[bool, o.option("--resume", about="Go on with the run where it stopped.")]
Slim = Annotated[bool, o.option("--slim", about="Delete what only --resume needs when done.")]
Samples = Annotated[
    bool,
    o.option("--samples", about="Show a line of text by the model now and then (on a terminal)."),
]
TensorBoard = Annotated[
    Path | None,
    o.option(
        "--tensorboard", about="Also write losses for TensorBoard to this folder.", metavar="DIR"
    ),
]


def train(
    ctx: typer.Context,
    texts: o.Texts = None,
    output: Output = None,
    arch: Arch = DEFAULTS.arch,
    tokenizer: o.TokenizerName = DEFAULTS.tokenizer,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    settings: o.Set = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.Split = DEFAULTS.split,
    rotation: Rotation = DEFAULTS.rotation,
    documents: o.Documents = None,
    newlines: o.Newlines = DEFAULTS.newlines,
    encoding: o.Encoding = DEFAULTS.encoding,
    errors: o.Errors = DEFAULTS.errors,
    seed: o.Seed = DEFAULTS.seed,
    device: o.Device = DEFAULTS.device,
    workers: Processes = None,
    resume: Resume = False,
    force: o.Force = False,
    slim: Slim = False,
    samples: Samples = False,
    tensorboard: TensorBoard = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Train one model on a text.

    [bold]Examples[/]

      lmcli train my.txt -o runs/mine

      lmcli train my.txt --arch gru --tokenizer word --minutes 10

      lmcli train names.txt --documents line --steps 2000

      lmcli train my.txt --samples

      lmcli train --resume -o runs/mine

      lmcli train my.txt --workers 2

      torchrun --nproc-per-node=2 -m lmcli train my.txt -o runs/mine
    """
    from lmcli.cli.console import emit, note

    if not texts and not resume:
        raise UsageError("no text to train on", "for example lmcli train my.txt")
    if resume and output is None:
        raise UsageError("--resume needs the run", "lmcli train --resume -o RUN")
    from lmcli.cli.progress import ProgressDisplay
    from lmcli.training.launch import train_result

    main = os.environ.get("RANK", "0") == "0"
    with ProgressDisplay(main and not quiet and not as_json, stoppable=True) as display:
        if resume:
            given = o.given(ctx, api.train) | {"samples": samples and display.draws}
            run = api.resume(output or "", **given, on_progress=display)
        else:
            values = o.values(ctx, api.train) | {"samples": samples and display.draws}
            run = api.train(**values, on_progress=display)
    stop = display.stop.exit_code if display.stop else 128 + signal.SIGTERM
    if isinstance(run, ReadOnlyRun):  # the main process of torchrun reports
        raise typer.Exit(stop if display.stop else 0)
    result = run.result("train")
    if result is None:
        step = read_json(run.path / TRAINING_COPY)["step"]
        again = shlex.join(["lmcli", "train", "--resume", "-o", str(run.path)])
        note(f"stopped at step {step}; go on with: {again}")
        raise typer.Exit(stop)
    emit(train_result(result), as_json, quiet)
