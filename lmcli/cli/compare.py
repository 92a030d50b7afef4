"""``lmcli compare``: several architectures on one text under one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.cli import options as o
from lmcli.errors import TrainingError, UsageError

DEFAULTS = o.defaults(api.compare)
Archs = Annotated[
    str,
    o.option(
        "--arch",
        about="Architectures with commas, NAME:SETTING=VALUE for a variant; none beside --run.",
        metavar="NAMES",
    ),
]
Seeds = Annotated[int, o.option("--seeds", about="Trainings per architecture.", min=1, metavar="N")]
Match = Annotated[
    str,
    o.option("--match", about="Make equal: params (of the body), width or state.", metavar="WHAT"),
]
Runs = Annotated[
    list[Path] | None,
    o.option("--run", about="Take this run, or all in a folder; repeatable.", metavar="RUN"),
]
Output = Annotated[
    Path | None,
    o.option("--output", "-o", about="Folder of the runs.", default="runs/compare", metavar="DIR"),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "--workers",
        envvar=["LMCLI_JOBS", "LMCLI_WORKERS"],
        show_envvar=False,
        help="Trainings side by side. [dim]\\[default: one a core][/dim]",
        min=1,
        metavar="N",
    ),
]
Plan = Annotated[
    bool,
    o.option(
        "--plan",
        about="Print the trainings as commands, without a learning-rate search.",
    ),
]
Probe = Annotated[bool, o.option("--probe", about="Run all memory probes on what was trained.")]


def compare(
    ctx: typer.Context,
    texts: o.Texts = None,
    arch: Archs = DEFAULTS.arch,
    tokenizer: o.TokenizerName = DEFAULTS.tokenizer,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    seeds: Seeds = DEFAULTS.seeds,
    match: Match = DEFAULTS.match,
    run: Runs = None,
    output: Output = None,
    settings: o.Set = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.Split = DEFAULTS.split,
    documents: o.Documents = None,
    newlines: o.Newlines = DEFAULTS.newlines,
    encoding: o.Encoding = DEFAULTS.encoding,
    errors: o.Errors = DEFAULTS.errors,
    jobs: Jobs = None,
    plan: Plan = False,
    probe: Probe = False,
    seed: o.Seed = DEFAULTS.seed,
    device: o.Device = DEFAULTS.device,
    html: o.Html = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Train several architectures alike and rank them, with error bars.

    [bold]Examples[/]

      lmcli compare my.txt

      lmcli compare my.txt --arch ngram,lstm --minutes 5 --seeds 3

      lmcli compare data/france.txt --tokenizer word --minutes 2

    [bold]Elsewhere: a plan, run by whatever runs commands, then one table[/]

      lmcli compare my.txt --seeds 3 -o runs/all --plan > plan.txt

      sh plan.txt

      tr '\\n' '\\0' < plan.txt | xargs -0 -P 4 -n 1 sh -c

      sbatch --array=1-$(wc -l < plan.txt) --wrap 'sed -n ${SLURM_ARRAY_TASK_ID}p plan.txt | sh'

      lmcli compare my.txt --run runs/all
    """
    if not texts:
        raise UsageError("no text to compare on", "for example lmcli compare my.txt")
    from lmcli.cli.console import emit, emit_json, emit_lines, note
    from lmcli.cli.progress import ProgressDisplay

    options = o.values(ctx, api.compare)
    with ProgressDisplay(not quiet and not as_json, stoppable=True) as display:
        if plan:
            commands = api.plan(**options, on_progress=display)
        else:
            try:
                comparison = api.compare(**options, on_progress=display)
            except TrainingError as error:
                if not display.stop:
                    raise
                note(error.problem)
                raise typer.Exit(display.stop.exit_code) from None
    if not plan:
        emit(comparison.result(), as_json, quiet)
    elif as_json:
        emit_json(commands.to_json())
    else:
        emit_lines(commands.lines)
        if not quiet:
            note(f"next, when all have run: {commands.table}")
