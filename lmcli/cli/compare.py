"""``lmcli compare``: several architectures on one text under one protocol."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmcli.cli import options as o
from lmcli.errors import TrainingError, UsageError
from lmcli.report.progress import Message
from lmcli.run import free_name
from lmcli.system import preloaded_context

if TYPE_CHECKING:
    from lmcli.training.sweep import Sweep

ARCHS = "ngram,window,rnn,gru,lstm"
Archs = Annotated[
    str | None,
    o.option(
        "--arch",
        about="Architectures, separated by commas; NAME:SETTING=VALUE for a variant.",
        default=f"{ARCHS}, or none with --run",
        metavar="NAMES",
    ),
]
Seeds = Annotated[int, o.option("--seeds", about="Trainings per architecture.", min=1, metavar="N")]
Match = Annotated[
    str, o.option("--match", about="Make equal: params (of the body) or width.", metavar="WHAT")
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
    arch: Archs = None,
    tokenizer: o.TokenizerName = "char",
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    seeds: Seeds = 1,
    match: Match = "params",
    runs: Runs = None,
    output: Output = None,
    settings: o.Set = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.Split = "interleaved",
    documents: o.Documents = None,
    newlines: o.Newlines = "keep",
    encoding: o.Encoding = "utf-8",
    errors: o.Errors = "strict",
    jobs: Jobs = None,
    plan: Plan = False,
    probe: Probe = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
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

      sbatch --array=1-13 --wrap 'sed -n ${SLURM_ARRAY_TASK_ID}p plan.txt | sh'

      lmcli compare my.txt --run runs/all
    """
    if not texts:
        raise UsageError("no text to compare on", "for example lmcli compare my.txt")
    one_at_a_time = plan or jobs == 1 or device not in ("cpu", "auto") or (runs and arch is None)
    if not one_at_a_time:
        preloaded_context("lmcli.training.sweep")  # it loads torch while this process does

    from lmcli.cli.collecting import collect, open_runs
    from lmcli.cli.compared import result, values, warn_unlike
    from lmcli.cli.console import emit, note
    from lmcli.cli.progress import ProgressDisplay
    from lmcli.cli.remembering import add_memory, with_memory
    from lmcli.evaluation.comparison import Comparison
    from lmcli.training.comparison_folder import claimed, keep
    from lmcli.training.sweep import StoppedError, prepare, run_trials

    opened = open_runs(runs or [])
    taken = [run.path for run, _ in opened]
    options = o.values(ctx, compare)
    options["output"] = output or free_name(Path("runs"), "compare")
    with ProgressDisplay(not quiet and not as_json, stoppable=True) as display:
        sweep = prepare(options, taken, display)
        if plan:
            _show_plan(sweep, device, force, as_json, quiet)
            return
        with claimed(sweep.folder, [t.path for t in sweep.trials], taken) as own:
            for line in sweep.description():
                display(Message(line))
            try:
                outcomes = run_trials(sweep.trials, sweep.jobs, display)
            except StoppedError as stopped:
                note(stopped.problem)
                raise typer.Exit(display.stop.exit_code) from None
            outcomes += collect(opened, sweep.dataset, [spec.name for spec in sweep.specs])
            if not outcomes:
                raise TrainingError(
                    "no training came to an end", "lower it: --set learning_rate=0.001"
                )
            warn_unlike(outcomes)
            comparison = Comparison.of(outcomes)
            found = values(comparison, sweep.dataset, sweep.protocol())
            results = add_memory(found, sweep.dataset, seed, probe)
            made = with_memory(result(comparison, found, sweep.folder), results)
            keep(sweep.folder, made, own)
    emit(made, as_json, quiet)


def _show_plan(sweep: Sweep, device: str, force: bool, as_json: bool, quiet: bool) -> None:
    """The commands on stdout; how their runs become a table, on stderr."""
    from lmcli.cli.console import emit_json, emit_lines, note
    from lmcli.report.result import SCHEMA
    from lmcli.training.plan import plan_lines, text_words

    lines = plan_lines(sweep.trials, device, force)
    if as_json:
        emit_json({"schema": SCHEMA, "command": "compare", "plan": lines})
        return
    emit_lines(lines)
    if not quiet:
        again = ["lmcli", "compare", *text_words(sweep.dataset), "--run", str(sweep.folder)]
        note(f"next, when all have run: {shlex.join(again)}")
