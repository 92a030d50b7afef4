"""``lmcli compare``: several architectures on one text under one protocol."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o
from lmcli.cli.members import ARCHS, check_trial_specs, members, row_name, trial_specs

if TYPE_CHECKING:
    from lmcli.data.dataset import Dataset
    from lmcli.evaluation.trial_result import TrialResult
    from lmcli.training.sweep import Trial


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
SideBySide = Annotated[
    int | None,
    o.option(
        "--workers", about="Trainings side by side.", default="one a core", min=1, metavar="N"
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
    workers: SideBySide = None,
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
    from lmcli.system import preloaded_context

    chosen = trial_specs(arch, bool(runs))
    if texts and chosen and workers != 1 and not plan and device in ("cpu", "auto"):
        preloaded_context("lmcli.training.sweep")  # it loads torch while this process does

    from lmcli.cli.comparison_folder import check_folder, claimed, keep
    from lmcli.cli.console import emit, note
    from lmcli.cli.plan import show_plan
    from lmcli.cli.progress import ProgressDisplay, preparation_bar
    from lmcli.data.dataset import load_dataset
    from lmcli.errors import TrainingError, UsageError
    from lmcli.evaluation.comparison import compare_results
    from lmcli.evaluation.trial_result import open_runs, score_runs
    from lmcli.settings import split_pairs

    if not texts:
        raise UsageError("no text to compare on", "for example lmcli compare my.txt")
    o.one_of("match", match, ("params", "width"))
    o.one_of("split", split, ("interleaved", "tail"))
    budget = o.budget(minutes, steps, epochs, default=1.0)
    opened = open_runs(runs or [])
    taken = [run.path for run, _ in opened]
    pairs = split_pairs(settings or [])
    check_trial_specs(chosen, pairs, tokenizer)
    folder = output or o.free_name(Path("runs"), "compare")
    check_folder(folder, force, taken, plan)
    held_out = split, valid, test
    choice = o.text_choice(texts, *held_out, encoding, errors, newlines, documents)
    shown = not quiet and not as_json
    with preparation_bar(shown) as on_progress:
        dataset = load_dataset(choice, tokenizer, pairs, on_progress)
    some_seeds = range(seed, seed + seeds)
    trained = members(dataset, chosen, pairs, budget, some_seeds, device, match, folder)
    if plan:
        show_plan(trained, folder, device, force, as_json, quiet)
        return
    side_by_side = _workers(trained, workers)
    with claimed(folder, [m.path for m in trained], taken) as own:
        if shown:
            for line in _announcement(dataset, trained, budget, side_by_side):
                note(line)
        outcomes = _train(trained, side_by_side, dataset, shown)
        with ProgressDisplay(shown) as on_progress:
            outcomes += score_runs(opened, dataset, [e.name for e in chosen], on_progress)
            if not outcomes:
                problem = "no training came to an end"
                raise TrainingError(problem, "lower it: --set learning_rate=0.001")
            conditions = _protocol(trained, budget, match, seeds, side_by_side)
            comparison = compare_results(
                outcomes, dataset, conditions, folder,
                seed=seed, probe=probe, on_progress=on_progress,
            )  # fmt: skip
        made = comparison.result()
        keep(folder, made, own)
    emit(made, as_json, quiet)


def _protocol(
    members: Sequence[Trial], budget: Any, match: str, seeds: int, workers: int
) -> dict[str, Any]:
    """The conditions that were the same for all members."""
    from lmcli.training.sweep import RACE_RATES, RACE_SHARE, share_cores

    if not members:
        return {}
    job = members[0].job
    return {
        "minutes": budget.minutes,
        "steps": budget.steps,
        "epochs": budget.epochs,
        "match": match,
        "seeds": seeds,
        "batch": job.training.batch,
        "truncation": job.training.truncation,
        "side_by_side": workers,
        "cores_each": len(share_cores(workers)[0]),
        "learning_rates": list(RACE_RATES),
        "race_share": RACE_SHARE,
        "device": job.device,
        "split": job.dataset.spec.split,
    }


def _workers(members: Sequence[Trial], wanted: int | None) -> int:
    """How many trainings run side by side: as many as there are cores, one on a GPU."""
    from lmcli.system import available_cores

    trained = sum(not m.job.counts for m in members)
    if not members or any(m.job.device != "cpu" for m in members):
        return 1
    return max(1, min(wanted or len(available_cores()), trained))


def _announcement(
    dataset: Dataset, members: Sequence[Trial], budget: Any, workers: int
) -> list[str]:
    from lmcli.training.defaults import describe_defaults

    corpus, encoded = dataset.corpus, dataset.tokenized
    held_out = corpus.test or corpus.valid
    lines = [
        f"text: {corpus.train.chars:,} characters to train on, {held_out.chars:,} held out; "
        f"{len(encoded.train):,} {dataset.tokenizer} tokens, {encoded.tokenizer.size:,} different"
    ]
    seen = set()
    for member in members:
        if (name := row_name(member.name)) not in seen:
            seen.add(name)
            lines.append(
                describe_defaults(member.job.arch, member.job.settings, member.job.training)
            )
    trained = sum(not m.job.counts for m in members)
    if budget.minutes and trained:
        total = budget.minutes * -(-trained // workers)
        lines.append(
            f"{trained} training{'s' * (trained > 1)} of {budget.minutes:g} min, "
            f"{workers} side by side: "
            f"about {total:.1f} min"
        )
    return lines


def _train(
    members: Sequence[Trial], workers: int, dataset: Dataset, shown: bool
) -> list[TrialResult]:
    """Counted models here and now, the others side by side; Ctrl-C ends all."""
    from lmcli.cli.console import note, warn
    from lmcli.cli.progress import TrainingBars, graceful_stop
    from lmcli.training.sweep import run_trial, run_trials

    counted = [m for m in members if m.job.counts]
    trained = [m for m in members if not m.job.counts]
    outcomes: list[TrialResult] = []
    chars = dataset.valid.part.chars / max(1, dataset.valid.targets)
    with graceful_stop() as stop, TrainingBars(shown, chars) as bars:
        for member in counted:
            outcomes += [_seedless(e.outcome) for e in run_trial(member) if e.outcome]
        events = run_trials(trained, workers) if trained else iter(())
        for event in events:
            if event.progress:
                bars.show(event.member, event.progress)
            if event.outcome:
                outcomes.append(_seedless(event.outcome))
            if event.error:
                warn(f"{event.error[1]}; {event.error[2]}")
            if stop:
                break
        events.close() if hasattr(events, "close") else None
    if stop:
        done = ", ".join(o.run for o in outcomes) or "none"
        note(f"stopped; finished runs: {done}")
        raise typer.Exit(stop.exit_code if stop.signal else 128 + signal.SIGINT)
    return outcomes


def _seedless(outcome: TrialResult) -> TrialResult:
    """All seeds of an entrant are one row."""
    return replace(outcome, name=row_name(outcome.name))
