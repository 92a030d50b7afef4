"""Architectures x seeds on one text: the trainings of a comparison, prepared and run.

**In:** the options of `lmcli.api.compare`.
**Out:** a `Sweep`, a `Trial` a training; a `Comparison` of all that came to an end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmcli.data.dataset import Dataset, load_datasets
from lmcli.data.split import ROTATIONS
from lmcli.errors import TrainingError, UsageError
from lmcli.evaluation.comparison import Comparison, compare_results
from lmcli.evaluation.trial_result import OpenedRun, open_runs, rotation_of, score_runs
from lmcli.grammars.base import companions, is_made
from lmcli.models.lstm import LSTMSettings
from lmcli.registry import MODELS
from lmcli.report.progress import Message, OnProgress, SlowdownWatch, Stage
from lmcli.settings import check_known, one_of, split_pairs, update
from lmcli.storage import write_json
from lmcli.system import available_cores, pick_device
from lmcli.training.comparison_folder import RESULT, check_folder, claimed
from lmcli.training.defaults import MATCHES, describe_defaults, is_tied
from lmcli.training.job import Job, check_pairs, corpus_spec, prepare_job
from lmcli.training.lr_search import FIRST_ROUND, RACE_FACTORS, SECOND_ROUND
from lmcli.training.machine_speed import machine_speed
from lmcli.training.problem_size import ASSUMED_SPEED, MachineSpeed
from lmcli.training.training_settings import Budget, TrainingSettings
from lmcli.training.trials import (
    Trial,
    run_trials,
    share_cores,
    sharing_cores,
    trainings_side_by_side,
)
from lmcli.write_lock import locked

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


def _trials(
    datasets: Mapping[int, Dataset],
    specs: Iterable[TrialSpec],
    budget: Budget,
    options: Mapping[str, Any],
    device: str,
    cores: int,
) -> list[Trial]:
    """A trial for each row and seed, by the dataset of each seed.

    A model that counts has no seed, and is trained once on each split.

    A width given for all is the LSTM's where others are matched to it; a row's own is as it is.
    """
    folder, match = Path(options["output"]), options["match"]
    width = lstm_width(options)
    made = []
    for spec in specs:
        own = {"patience": 0, **row_pairs(spec, options)}
        speed = _machine_speed(spec.arch, own, budget, device, cores)
        counted = set[int]()
        for seed, dataset in datasets.items():
            job = prepare_job(
                *(dataset, spec.arch, own, budget, seed, device, match, width),
                speed=speed,
                cores=cores,
            )
            if job.is_count_based and dataset.spec.rotation in counted:
                continue
            counted.add(dataset.spec.rotation)
            once = len(datasets) == 1 or (job.is_count_based and not dataset.spec.can_rotate)
            name = spec.name if once else f"{spec.name}#{seed}"
            path = folder / re.sub(r"[^\w.-]+", "-", name.replace("#", "-seed"))
            searched = "order" if job.is_count_based else "learning_rate"
            search = options.get("search", True) and searched not in own
            ends_early = options.get("stop_when_recalled", False)
            made.append(Trial(name, job, path, search, ends_early))
    return made


def row_pairs(spec: TrialSpec, options: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a row: those given for all and its own.

    Where rows are matched to the LSTM, those for all are without its width, and where weights are
    tied without the embedding: that is as wide as what the row gets, matched or its own. A
    UsageError if it cannot be.
    """
    shared, width = dict(options["settings"] or {}), lstm_width(options)
    settings = MODELS.load(spec.arch).Settings()
    tied = is_tied(update(settings, {**shared, **spec.pairs}))
    embedding = getattr(update(settings, shared), "embedding", None)
    own_width = spec.pairs.keys() & {"hidden", "embedding"}
    if own_width == {"hidden"} and tied:
        shared.pop("embedding", None)
    elif options["match"] != "width" and tied and embedding and not own_width:
        if width is None:
            problem = f"{spec.name}: tie=true makes embedding={embedding} the width of this row"
            problem += ", which is matched to the LSTM's"
            raise UsageError(problem, f"for this row alone {spec.name}:embedding={embedding}")
        _check_tied(spec.name, embedding, width)
        del shared["embedding"]
    if width:
        shared.pop("hidden", None)
    pairs = shared | dict(spec.pairs)
    row = update(settings, pairs)
    if is_tied(row) and row.embedding and row.hidden:
        _check_tied(spec.name, row.embedding, row.hidden)
    return pairs


def _check_tied(name: str, embedding: int, hidden: int) -> None:
    if embedding != hidden:
        problem = f"{name}: tie=true needs embedding = hidden, not {embedding} and {hidden}"
        raise UsageError(problem, f"for example --set embedding={hidden}")


def _cores_each(specs: Sequence[TrialSpec], options: Mapping[str, Any], device: str) -> int:
    """The CPU cores that each training gets."""
    trained = sum(not MODELS.load(spec.arch).is_count_based for spec in specs) * options["seeds"]
    cores = len(available_cores())
    return max(1, cores // trainings_side_by_side(trained, options["jobs"], device))


def _machine_speed(
    arch: str, pairs: Mapping[str, Any], budget: Budget, device: str, cores: int
) -> MachineSpeed:
    """That of this machine for one training with some of its cores, or as many as `pairs` say."""
    if budget.minutes is None or MODELS.load(arch).is_count_based:
        return ASSUMED_SPEED
    threads = update(TrainingSettings(), pairs).threads
    return machine_speed(device, threads or (cores if cores < len(available_cores()) else None))


def lstm_width(options: Mapping[str, Any]) -> int | None:
    """The width that is given for all, where it is an LSTM's and the others are matched to it."""
    settings = update(LSTMSettings(), options["settings"] or {})
    if options["match"] == "width":
        return None
    return settings.hidden or (settings.embedding if settings.tie else None)


@dataclass(frozen=True)
class Sweep:
    """The trainings of a comparison, prepared."""

    datasets: Mapping[int, Dataset]
    """of each seed; where the split can rotate, each holds out other blocks"""
    rotations: Mapping[int, Dataset]
    """the same and those of the runs, by rotation"""
    specs: Sequence[TrialSpec]
    runs: Sequence[OpenedRun]
    """compared as they are"""
    trials: Sequence[Trial]
    jobs: int
    """trainings side by side"""
    folder: Path
    match: str
    minutes_needed: float | None = None
    """by this machine for each training, where that was measured"""
    width: int | None = None
    """given for all: an LSTM's, to which the others are matched"""
    force: bool = False
    """whether a comparison in the folder is replaced"""

    @property
    def dataset(self) -> Dataset:
        """That of the first seed."""
        return next(iter(self.datasets.values()))

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
        if self.width and any(
            getattr(j.settings, "hidden", 0) != self.width for j in rows.values()
        ):
            what = "parameters" if self.match == "params" else self.match
            lines.append(
                f"hidden={self.width} is the width of an LSTM; the others have as many {what} "
                "(--match width: the same width)"
            )
        count = sum(not trial.job.is_count_based for trial in self.trials)
        if count and (minutes := self.trials[0].job.budget.minutes):
            each = f"{count} training{'s' * (count > 1)} of {minutes:g} min"
            each += " or less" if self.trials[0].stop_when_recalled else ""
            in_all = f"about {minutes * -(-count // self.jobs):.1f} min, and the questions"
            lines.append(f"{each}, {self.jobs} side by side: {in_all}")
        if len(self.datasets) > 1 and self.dataset.spec.can_rotate:
            lines.append("each seed holds out other blocks of the text")
        return lines

    def protocol(self) -> dict[str, Any]:
        """The conditions that are the same for all."""
        if not self.trials:
            return {}
        job = self.trials[0].job
        searched = any(t.search and not t.job.is_count_based for t in self.trials)
        return {
            **vars(job.budget),
            "minutes_needed": self.minutes_needed,
            "match": self.match,
            "seeds": len(self.datasets),
            "rotations": [dataset.spec.rotation for dataset in self.datasets.values()],
            "batch": job.training.batch,
            "truncation": job.training.truncation,
            "side_by_side": self.jobs,
            "cores_each": len(share_cores(self.jobs)[0]),
            "learning_rates": list(RACE_FACTORS) if searched else [],
            "race_shares": [FIRST_ROUND, SECOND_ROUND] if searched else [],
            "stops_when_recalled": any(trial.stop_when_recalled for trial in self.trials),
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
    one_of("match", options["match"], MATCHES)
    budget = Budget.of(options, default=1.0)
    runs = open_runs([Path(run) for run in options["runs"]])
    specs = trial_specs(options["arch"], bool(runs))
    check_trial_specs(specs, pairs, options["tokenizer"])
    for spec in specs:
        row_pairs(spec, options)
    texts = [Path(text) for text in options["texts"] if is_made(text)]
    taken = [run.path for run, _ in runs] + [p for t in texts for p in (t, *companions(t))]
    check_folder(folder, options["force"], taken, options["plan"])
    return specs, runs, budget


def prepare(options: Mapping[str, Any], on_progress: OnProgress) -> Sweep:
    """The trainings that the options of `api.compare` describe; nothing is written yet."""
    specs, runs, budget = check_options(options)
    pairs, folder, match = options["settings"] or {}, Path(options["output"]), options["match"]
    spec = corpus_spec(options)
    of_seed = {
        seed: seed % ROTATIONS if spec.can_rotate else 0
        for seed in range(options["seed"], options["seed"] + options["seeds"])
    }
    others = [rotation_of(run) for run, _ in runs if spec.can_rotate]
    rotations = list(dict.fromkeys([*of_seed.values(), *others]))
    loaded = load_datasets(spec, rotations, options["tokenizer"], pairs, on_progress)
    datasets = {seed: loaded[rotation] for seed, rotation in of_seed.items()}
    device = pick_device(options["device"])
    cores = _cores_each(specs, options, device)
    trials = _trials(datasets, specs, budget, options, device, cores)
    trials, jobs = sharing_cores(trials, options["jobs"])
    width = lstm_width(options)
    force = options["force"]
    return Sweep(
        datasets, loaded, specs, runs, trials, jobs, folder, match, width=width, force=force
    )


def compare(options: Mapping[str, Any], on_progress: OnProgress) -> Comparison:
    """Train, score with the runs that exist, rank; saved in the folder of the comparison."""
    sweep = prepare(options, on_progress)
    return run_sweep(sweep, options["seed"], options["probe"], on_progress)


def run_sweep(sweep: Sweep, seed: int, probe: bool, on_progress: OnProgress) -> Comparison:
    """What `compare` does after it has prepared."""
    on_progress = SlowdownWatch(on_progress)
    taken = [run.path for run, _ in sweep.runs]
    members = [trial.path for trial in sweep.trials]
    members_of = claimed(sweep.folder, members, taken, sweep.force)
    with locked(sweep.folder), members_of as named:
        for line in sweep.description():
            on_progress(Message(line))
        results = run_trials(sweep.trials, sweep.jobs, on_progress)
        names = [spec.name for spec in sweep.specs]
        results += score_runs(sweep.runs, sweep.rotations, names, on_progress)
        if not results:
            raise TrainingError("no training came to an end", "lower it: --set learning_rate=0.001")
        on_progress(Stage("measuring memory", 0, 0, ""))
        comparison = compare_results(
            results,
            sweep.rotations,
            sweep.protocol(),
            sweep.folder,
            seed=seed,
            probe=probe,
            on_progress=on_progress,
        )
        write_json(sweep.folder / RESULT, comparison.to_json() | named)
    return comparison
