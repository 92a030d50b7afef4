"""The trainings of a comparison, one after another or side by side.

**In:** architectures with their settings and seeds, a dataset, a budget: a `Trial` a training.
**Out:** `Training` events while they run, and a `TrialResult` each: what it cost, how it scores.

Two small trainings on one core each process more text than one on two, so trials run in processes
of their own, each on its share of the cores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmcli.data.dataset import Dataset, load_dataset
from lmcli.errors import LmcliError, TrainingError, UsageError
from lmcli.evaluation.comparison import Comparison, compare_results
from lmcli.evaluation.trial_result import OpenedRun, TrialResult, open_runs, score_runs
from lmcli.grammars.base import companions, is_made
from lmcli.models.lstm import LSTMSettings
from lmcli.registry import MODELS
from lmcli.report.progress import (
    Finished,
    Message,
    OnProgress,
    SlowdownWatch,
    Stage,
    Training,
    Trainings,
)
from lmcli.settings import check_known, one_of, split_pairs, update
from lmcli.storage import write_json
from lmcli.system import ChildProcesses, Ended, available_cores
from lmcli.training.checkpoint import Trained, save_result, train_into
from lmcli.training.comparison_folder import RESULT, check_folder, claimed
from lmcli.training.defaults import Budget, TrainingSettings, describe_defaults
from lmcli.training.job import Job, check_pairs, corpus_spec, prepare_job, throttled
from lmcli.training.lr_search import RACE_RATES, RACE_SHARE, learning_rate_search
from lmcli.training.recall_stopping import RecallStopping

POLL = 0.5
"""seconds after which the callback is called again, so that it can stop"""

# ------------------------------------------------------------------ what is trained


@dataclass(frozen=True)
class TrialSpec:
    """One row of a comparison to be trained."""

    name: str
    """as it was written: ``lstm:coupled=true``"""
    arch: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    """settings of this one alone"""


def trial_specs(arch: str, with_runs: bool) -> list[TrialSpec]:
    """The rows that `arch` names; none is allowed beside existing runs.

    >>> [(e.arch, dict(e.pairs)) for e in trial_specs("gru, lstm:coupled=true:chrono=99", False)]
    [('gru', {}), ('lstm', {'coupled': 'true', 'chrono': '99'})]
    """
    names = list(dict.fromkeys(name.strip() for name in arch.split(",") if name.strip()))
    if not names and not with_runs:
        raise UsageError("--arch names nothing", "for example --arch ngram,gru,lstm")
    parts = [(name, *name.split(":")) for name in names]
    return [TrialSpec(name, base, split_pairs(pairs)) for name, base, *pairs in parts]


def check_trial_specs(specs: Sequence[TrialSpec], pairs: Mapping[str, Any], tokenizer: str) -> None:
    """A UsageError for an unknown name, of an architecture or of a setting."""
    check_pairs(pairs, [spec.arch for spec in specs], tokenizer)
    for spec in specs:
        settings = MODELS.load(spec.arch).Settings
        check_known(spec.pairs, settings, TrainingSettings)
        update(settings(), spec.pairs)


@dataclass(frozen=True)
class Trial:
    """One training of a comparison."""

    name: str
    job: Job
    path: Path
    learning_rate_search: bool
    """whether the learning rate is searched"""
    stop_when_recalled: bool = False
    """whether it ends as soon as the items beside the text are answered"""

    @property
    def row(self) -> str:
        """The row that it belongs to: its name without the seed."""
        return self.name.partition("#")[0]


def _trials(
    dataset: Dataset, specs: Iterable[TrialSpec], budget: Budget, options: Mapping[str, Any]
) -> list[Trial]:
    """A trial for each row and seed; a model that counts has no seed.

    A width given for all is the LSTM's where parameters are to match; a row's own is as it is.
    """
    folder, pairs, match = Path(options["output"]), options["settings"] or {}, options["match"]
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    width = None
    if match == "params" and "hidden" in pairs:
        width = update(LSTMSettings(), pairs).hidden
        pairs = {name: value for name, value in pairs.items() if name != "hidden"}
    made = []
    for spec in specs:
        own = {**pairs, **spec.pairs}
        for seed in seeds:
            device = options["device"]
            job = prepare_job(dataset, spec.arch, own, budget, seed, device, match, width)
            if job.is_count_based and seed != seeds[0]:
                continue
            name = spec.name if len(seeds) == 1 or job.is_count_based else f"{spec.name}#{seed}"
            path = folder / re.sub(r"[^\w.-]+", "-", name.replace("#", "-seed"))
            search = not job.is_count_based and "learning_rate" not in own
            ends_early = options.get("stop_when_recalled", False)
            made.append(Trial(name, job, path, search, ends_early))
    return made


@dataclass(frozen=True)
class Sweep:
    """The trainings of a comparison, prepared."""

    dataset: Dataset
    specs: Sequence[TrialSpec]
    runs: Sequence[OpenedRun]
    """compared as they are"""
    trials: Sequence[Trial]
    jobs: int
    """trainings side by side"""
    folder: Path
    match: str
    seeds: int

    def description(self) -> list[str]:
        """What is going to be trained, in lines for the user."""
        corpus, tokenized = self.dataset.corpus, self.dataset.tokenized
        held_out = corpus.test or corpus.valid
        lines = [
            f"text: {corpus.train.chars:,} characters to train on, {held_out.chars:,} held out; "
            f"{len(tokenized.train):,} {self.dataset.tokenizer} tokens, "
            f"{tokenized.tokenizer.size:,} different"
        ]
        rows: dict[str, Job] = {}
        for trial in self.trials:
            rows.setdefault(trial.row, trial.job)
        lines += [describe_defaults(j.arch, j.settings, j.training) for j in rows.values()]
        count = sum(not trial.job.is_count_based for trial in self.trials)
        if count and (minutes := self.trials[0].job.budget.minutes):
            lines.append(
                f"{count} training{'s' * (count > 1)} of {minutes:g} min, {self.jobs} side by "
                f"side: about {minutes * -(-count // self.jobs):.1f} min"
            )
        return lines

    def protocol(self) -> dict[str, Any]:
        """The conditions that are the same for all."""
        if not self.trials:
            return {}
        job = self.trials[0].job
        return {
            **vars(job.budget),
            "match": self.match,
            "seeds": self.seeds,
            "batch": job.training.batch,
            "truncation": job.training.truncation,
            "side_by_side": self.jobs,
            "cores_each": len(share_cores(self.jobs)[0]),
            "learning_rates": list(RACE_RATES),
            "race_share": RACE_SHARE,
            "device": job.device,
            "split": self.dataset.spec.split,
        }


def check_options(
    options: Mapping[str, Any],
) -> tuple[list[TrialSpec], list[OpenedRun], Budget]:
    """What the options of `api.compare` name; what is wrong with them shows before any reading."""
    if not options["texts"]:
        raise UsageError("no text to compare on", "for example lmcli compare my.txt")
    folder, pairs = Path(options["output"]), options["settings"] or {}
    one_of("match", options["match"], ("params", "width"))
    budget = Budget.of(options, default=1.0)
    runs = open_runs([Path(run) for run in options["runs"]])
    specs = trial_specs(options["arch"], bool(runs))
    check_trial_specs(specs, pairs, options["tokenizer"])
    texts = [Path(text) for text in options["texts"] if is_made(text)]
    taken = [run.path for run, _ in runs] + [p for t in texts for p in (t, *companions(t))]
    check_folder(folder, options["force"], taken, options["plan"])
    return specs, runs, budget


def prepare(options: Mapping[str, Any], on_progress: OnProgress) -> Sweep:
    """The trainings that the options of `api.compare` describe; nothing is written yet."""
    specs, runs, budget = check_options(options)
    pairs, folder, match = options["settings"] or {}, Path(options["output"]), options["match"]
    dataset = load_dataset(corpus_spec(options), options["tokenizer"], pairs, on_progress)
    trials, jobs = sharing_cores(_trials(dataset, specs, budget, options), options["jobs"])
    return Sweep(dataset, specs, runs, trials, jobs, folder, match, options["seeds"])


def compare(options: Mapping[str, Any], on_progress: OnProgress) -> Comparison:
    """Train, score with the runs that exist, rank; saved in the folder of the comparison."""
    sweep = prepare(options, on_progress)
    return run_sweep(sweep, options["seed"], options["probe"], on_progress)


def run_sweep(sweep: Sweep, seed: int, probe: bool, on_progress: OnProgress) -> Comparison:
    """What `compare` does after it has prepared."""
    on_progress = SlowdownWatch(on_progress)
    taken = [run.path for run, _ in sweep.runs]
    with claimed(sweep.folder, [trial.path for trial in sweep.trials], taken) as members:
        for line in sweep.description():
            on_progress(Message(line))
        results = run_trials(sweep.trials, sweep.jobs, on_progress)
        names = [spec.name for spec in sweep.specs]
        results += score_runs(sweep.runs, sweep.dataset, names, on_progress)
        if not results:
            raise TrainingError("no training came to an end", "lower it: --set learning_rate=0.001")
        on_progress(Stage("measuring memory", 0, 0, ""))
        comparison = compare_results(
            results,
            sweep.dataset,
            sweep.protocol(),
            sweep.folder,
            seed=seed,
            probe=probe,
            on_progress=on_progress,
        )
        write_json(sweep.folder / RESULT, comparison.to_json() | members)
    return comparison


def trainings_side_by_side(trained: int, wanted: int | None, device: str) -> int:
    """How many of some trainings run at a time: by default one a core, on a GPU one.

    >>> trainings_side_by_side(4, 3, "cpu"), trainings_side_by_side(4, 3, "cuda")
    (3, 1)
    """
    if device != "cpu":
        return 1
    return max(1, min(wanted or len(available_cores()), trained))


def sharing_cores(made: Sequence[Trial], jobs: int | None) -> tuple[list[Trial], int]:
    """The trials, each with its share of the threads, and how many run side by side."""
    cores, trained = len(available_cores()), sum(not trial.job.is_count_based for trial in made)
    device = next((t.job.device for t in made if t.job.device != "cpu"), "cpu")
    jobs = trainings_side_by_side(trained, jobs, device)

    def share(trial: Trial) -> Trial:
        training = trial.job.training
        if jobs == 1 or trial.job.is_count_based or training.threads:
            return trial
        training = replace(training, threads=max(1, cores // jobs))
        return replace(trial, job=replace(trial.job, training=training))

    return [share(trial) for trial in made], jobs


# ------------------------------------------------------------------ training one


def run_trial(trial: Trial, on_progress: Callable[[Training], object]) -> TrialResult:
    """Search for the learning rate, train, score; everything is saved in the trial's run."""
    job = trial.job
    if job.is_count_based:
        run = job.create(trial.path, force=True)
        trained, rate = job.count_into(run), None
    else:
        trainer, spent = job.trainer(), (0, 0.0)
        if trial.learning_rate_search:
            trainer, spent = learning_rate_search(job, trial.name, on_progress)
        run = replace(job, training=trainer.settings).create(trial.path, force=True)
        if trial.stop_when_recalled:
            trainer.goal = RecallStopping.of(job.dataset)
        for progress in train_into(run, trainer):
            on_progress(job.event(trial.name, progress))
        trained, rate = Trained.by(trainer, *spent), trainer.settings.learning_rate
    run.drop_checkpoint()
    model, spent = run.model(), (trained.tokens_seen, trained.seconds)
    result = TrialResult.of(trial.row, run, model, job.dataset, *spent, rate)
    save_result(run, model, job.dataset, trained, result.valid)
    return result


# ------------------------------------------------------------------ all of them


class StoppedError(TrainingError):
    """The callback has stopped a comparison; `finished` are the runs that can be used."""

    finished: tuple[str, ...] = ()


def run_trials(made: Sequence[Trial], jobs: int, on_progress: OnProgress) -> list[TrialResult]:
    """Run all, N side by side; models that count come first, in this process.

    A trial whose loss explodes is a warning, and the others go on. A true answer of the callback
    to a Training event is a StoppedError that names the finished runs.
    """
    results: list[TrialResult] = []

    def report(event: object) -> None:
        if on_progress(event) and isinstance(event, Training):
            finished = ", ".join(result.run for result in results) or "none"
            stopped = StoppedError(f"stopped; finished runs: {finished}", "--run RUN compares them")
            stopped.finished = tuple(result.run for result in results)
            raise stopped

    def finish(trial: Trial, outcome: TrialResult | LmcliError) -> None:
        if isinstance(outcome, TrialResult):
            results.append(outcome)
        elif isinstance(outcome, StoppedError) or not isinstance(outcome, TrainingError):
            raise outcome
        else:
            on_progress(Message(f"{trial.name}: {outcome.problem}; {outcome.hint}", "warning"))
        on_progress(Finished(trial.name))

    if trained := [trial for trial in made if not trial.job.is_count_based]:
        minutes = trained[0].job.budget.minutes
        seconds = None if minutes is None else 60 * minutes
        on_progress(Trainings([trial.name for trial in trained], jobs, seconds))
    here = [trial for trial in made if jobs == 1 or trial.job.is_count_based]
    for trial in sorted(here, key=lambda trial: not trial.job.is_count_based):
        try:
            finish(trial, run_trial(trial, report))
        except TrainingError as error:
            finish(trial, error)
    _side_by_side([trial for trial in made if trial not in here], jobs, report, finish)
    return results


def _side_by_side(
    waiting: list[Trial],
    jobs: int,
    report: Callable[[object], None],
    finish: Callable[[Trial, TrialResult | LmcliError], None],
) -> None:
    """Run trials in processes, each on its own cores."""
    if not waiting:
        return
    free, last = share_cores(jobs), None
    running: dict[str, tuple[Trial, list[int]]] = {}
    with ChildProcesses(__name__) as processes:
        while waiting or processes.running:
            while waiting and free:
                trial, cores = waiting.pop(0), free.pop(0)
                running[trial.name] = trial, cores
                processes.start(trial.name, _work, trial, cores)
            events = list(processes.events(POLL))
            if last and not events:
                report(last)
            for name, event in events:
                if isinstance(event, Training):
                    last = event
                    report(event)
                elif not isinstance(event, Ended):
                    trial, cores = running.pop(name)
                    free.append(cores)
                    finish(trial, event)
                elif name in running:
                    raise TrainingError(
                        f"the training of {name} ended with code {event.code}",
                        "there may be too little memory: try --jobs 1",
                    )


def share_cores(jobs: int) -> list[list[int]]:
    """The cores this process may use, in N equal parts.

    >>> [len(s) for s in share_cores(1)] == [len(available_cores())]
    True
    """
    cores = available_cores()
    each = max(1, len(cores) // jobs)
    return [(cores * jobs)[i * each : (i + 1) * each] for i in range(jobs)]


def _work(trial: Trial, cores: list[int], send: Callable[[object], None]) -> None:
    """A process: run one trial on its cores."""
    import torch

    torch.set_num_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    send(run_trial(trial, throttled(send)))
