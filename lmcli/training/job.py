"""Texts + settings -> all that a training needs; and the training itself.

**In:** the options of `lmcli.api.train`: texts, architecture, tokenizer, settings, a budget.
**Out:** `Job`: the record of the run to be, ids, and settings without gaps. Up to `train_run`
nothing is written but the cache of token ids: an option that is wrong shows before.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lmcli.data.corpus import CorpusSpec, folders
from lmcli.data.dataset import Dataset, load_dataset, reopen_dataset
from lmcli.data.text import TextOptions
from lmcli.errors import RunError, UsageError
from lmcli.grammars.base import is_made
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.report.progress import Message, OnProgress, Training, warnings_only
from lmcli.run import Run
from lmcli.run_record import Record, library_versions
from lmcli.settings import check_known, one_of, update
from lmcli.system import LoadMeter, available_cores, pick_device, pick_precision
from lmcli.training.checkpoint import (
    Trained,
    check_sizes,
    count_into,
    load_checkpoint,
    resume,
    saving,
    train_into,
)
from lmcli.training.defaults import cpu_threads, describe_defaults, resolve_defaults
from lmcli.training.distributed import SingleProcess
from lmcli.training.machine_speed import machine_speed
from lmcli.training.problem_size import ASSUMED_SPEED, MachineSpeed, ProblemSize, shape
from lmcli.training.trainer import Progress, Trainer
from lmcli.training.training_settings import BUDGETS, Budget, TrainingSettings
from lmcli.training.watch import Watch

REPORT_INTERVAL = 0.1
"""seconds between two progress events that a child process sends"""
RECORDED = (
    *BUDGETS,
    *("split", "rotation", "valid", "test", "documents", "newlines", "encoding", "errors"),
    *("arch", "tokenizer", "seed"),
)
"""options that a run records: --resume may repeat them, not change them"""
CHOICES = {
    "split": ("interleaved", "tail"),
    "errors": ("strict", "replace", "ignore"),
    "newlines": ("keep", "lf"),
    "documents": ("file", "line", "paragraph"),
}
"""what these options may be"""


@dataclass(frozen=True)
class Job:
    """One model to be trained; can be sent to another process."""

    arch: str
    settings: Any
    training: TrainingSettings
    budget: Budget
    seed: int
    device: str
    dataset: Dataset
    command: str = ""
    workers: int = 1
    """processes that share each batch"""

    @cached_property
    def model_class(self) -> type[LanguageModel]:
        """The architecture."""
        cls: type[LanguageModel] = MODELS.load(self.arch)
        return cls

    @property
    def is_count_based(self) -> bool:
        """Whether it learns by counting."""
        return self.model_class.is_count_based

    @cached_property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return self.dataset.tokenized.tokenizer.size

    def record(self) -> Record:
        """The run.json of this job."""
        return Record(
            arch=self.arch,
            settings=asdict(self.settings),
            tokenizer=self.dataset.tokenizer,
            tokenizer_settings=self.dataset.tokenizer_settings,
            vocabulary=self.vocabulary,
            corpus=self.dataset.spec.to_json(),
            training=asdict(self.training),
            budget=asdict(self.budget),
            seed=self.seed,
            device=self.device,
            versions=library_versions(),
            command=self.command,
            workers=self.workers,
        )

    def create(self, path: Path, force: bool = False) -> Run:
        """The run's folder."""
        record = self.record()
        record = replace(record, corpus=record.corpus | {"folders": folders(path)})
        return Run.create(path, record, self.dataset.tokenized.tokenizer, force)

    def fingerprint(self) -> str:
        """What must be the same in all workers: all but names, versions and the command."""
        record = {**asdict(self.record()), **self.dataset.checksums()}
        left_out = ("corpus", "versions", "command")
        return json.dumps({k: v for k, v in record.items() if k not in left_out}, sort_keys=True)

    def model(self) -> LanguageModel:
        """An untrained model; the seed decides its first weights."""
        torch.manual_seed(self.seed)
        return self.model_class(self.vocabulary, self.settings)

    def trainer(
        self, group: SingleProcess | None = None, counted: LanguageModel | None = None
    ) -> Trainer:
        """A trainer at step 0, in one of several processes or alone.

        Where the model begins by counting, the counts of another one may be shared.
        """
        group = group or SingleProcess()
        return Trainer(
            self.model(),
            self.dataset.tokenized.train,
            self.dataset.valid.stream,
            self.training,
            self.budget,
            self.seed,
            group.local_device(self.device),
            group,
            counted,
        )

    def count_into(self, run: Run) -> Trained:
        """Train a model that learns by counting."""
        return count_into(
            run, self.model(), self.dataset.tokenized.train, self.dataset.valid.stream
        )

    def event(self, name: str, progress: Progress) -> Training:
        """A trainer's progress, for a callback."""
        valid, bits = self.dataset.valid, None
        if progress.valid is not None:
            bits = progress.valid * valid.targets / max(1, valid.part.chars) / math.log(2)
        spent = progress.tokens, progress.seconds
        return Training(name, progress.fraction, progress.loss, bits, *spent, progress.valid)

    def description(self, verbose: bool = False) -> list[str]:
        """What was chosen, in lines for the user."""
        corpus, valid = self.dataset.corpus, self.dataset.valid
        together = f" | {self.workers} workers" if self.workers > 1 else ""
        lines = [
            f"text: {corpus.train.chars:,} characters to train on, {corpus.valid.chars:,} to "
            f"validate; {len(self.dataset.tokenized.train):,} {self.dataset.tokenizer} tokens, "
            f"{self.vocabulary:,} different"
        ]
        if valid.share < 1:
            lines.append(
                f"of the validation part {valid.share:.2%} is scored, {valid.targets:,} tokens "
                "from all over it; lmcli eval RUN --split valid scores all"
            )
        lines.append(describe_defaults(self.arch, self.settings, self.training) + together)
        if verbose:
            precision = pick_precision(self.training.precision, self.device)
            budget = " ".join(f"{v:g} {k}" for k, v in vars(self.budget).items() if v is not None)
            lines.append(
                f"{self.model().parameter_count():,} parameters, {precision} on {self.device}; "
                f"validating on {valid.targets:,} tokens; budget: {budget}"
            )
        return lines


def prepare_job(
    dataset: Dataset,
    arch: str,
    pairs: Mapping[str, Any],
    budget: Budget,
    seed: int,
    device: str,
    match: str = "params",
    width: int | None = None,
    workers: int = 1,
    speed: MachineSpeed = ASSUMED_SPEED,
    cores: int = 2,
) -> Job:
    """Settings for one architecture on a text, every open one chosen.

    `width` is the LSTM's, to which the others are matched: in parameters, or in width as well.
    `speed` is that of this machine (machine_speed.py); `cores` are the CPU's that the training
    gets, unless its threads are set.
    """
    settings = update(MODELS.load(arch).Settings(), pairs)
    training, tokenized = update(TrainingSettings(), pairs), dataset.tokenized
    device, size = pick_device(device), tokenized.tokenizer.size
    cores = (training.threads or cores) if device == "cpu" else 2  # a GPU's pace is its own
    about = tokenized.train, size, budget, width, speed, cores
    scale = ProblemSize.of(*about, training.batch, training.truncation)
    if workers > 1:
        training = replace(training, batch=_shared_batch(arch, training.batch, scale, workers))
        scale = ProblemSize.of(*about, training.batch, training.truncation)
    settings, training = resolve_defaults(arch, settings, training, scale, match)
    if training.threads is None:
        training = replace(training, threads=cpu_threads(arch, settings, scale.vocabulary))
    return Job(arch, settings, training, budget, seed, device, dataset, command_line(), workers)


def _shared_batch(arch: str, given: int | None, scale: ProblemSize, workers: int) -> int:
    """A batch that workers can share: the usual one rounded up, unless the user has set it."""
    if MODELS.load(arch).is_count_based:
        problem = f"{arch} learns by counting, which one process does"
        raise UsageError(problem, "leave --workers out")
    batch = given or shape(scale)[0]
    rounded = workers * -(-batch // workers)
    if given and rounded != batch:
        raise UsageError(
            f"a batch of {batch} cannot be shared evenly by {workers} workers",
            f"for example --set batch={rounded}",
        )
    return rounded


def check_pairs(pairs: Mapping[str, Any], archs: list[str], tokenizer: str) -> None:
    """A UsageError for a ``--set`` name that neither model, tokenizer nor training knows."""
    classes = [MODELS.load(arch).Settings for arch in archs]
    check_known(pairs, *classes, TOKENIZERS.load(tokenizer).Settings, TrainingSettings)


def reopen(
    run: Run,
    texts: Sequence[str] = (),
    on_progress: OnProgress = warnings_only,
    named: Sequence[str] = (),
) -> Job:
    """The job that a run was made from, its texts read again; they must be what they were."""
    record = run.record
    how = record.tokenizer, record.tokenizer_settings, texts, on_progress, named
    dataset = reopen_dataset(record.corpus, run.path, run.tokenizer, *how)
    try:
        check_known(record.training, TrainingSettings)
        training = update(TrainingSettings(), record.training)
    except UsageError as error:
        raise RunError(f"'{run.path}': {error}", "it was made by another lmcli") from None
    settings, budget = run.settings(), Budget(**record.budget)
    seed, device, workers = record.seed, record.device, record.workers
    return Job(record.arch, settings, training, budget, seed, device, dataset, workers=workers)


def new_job(
    options: Mapping[str, Any], workers: int, load: LoadMeter, on_progress: OnProgress
) -> Job:
    """The job that the options of `api.train` describe; `load` says what other programs use."""
    arch, tokenizer, pairs = options["arch"], options["tokenizer"], options["settings"] or {}
    budget = Budget.of(options)
    spec = corpus_spec(options)
    check_pairs(pairs, [arch], tokenizer)
    dataset = load_dataset(spec, tokenizer, pairs, on_progress)
    seed, device = options["seed"], pick_device(options["device"])
    if MODELS.load(arch).is_count_based:
        return prepare_job(dataset, arch, pairs, budget, seed, device, workers=workers)
    takes_all_cores = workers == 1 and device == "cpu" and "OMP_NUM_THREADS" not in os.environ
    others = load.others() if takes_all_cores else 0.0
    threads = threads_beside(others, len(available_cores())) if takes_all_cores else None
    threads = update(TrainingSettings(), pairs).threads or threads
    speed, cores = ASSUMED_SPEED, 2  # several workers would measure several
    if workers == 1 and budget.minutes is not None:
        speed = machine_speed(device, threads)
        cores = threads or torch.get_num_threads()
    job = prepare_job(
        *(dataset, arch, pairs, budget, seed, device),
        workers=workers,
        speed=speed,
        cores=cores,
    )
    return _leaving_cores(job, others, on_progress)


def _leaving_cores(job: Job, others: float, on_progress: OnProgress) -> Job:
    """The job with fewer threads where other programs use the cores, unless their number is set."""
    cores = len(available_cores())
    threads = threads_beside(others, cores)
    if threads == cores or job.training.threads is not None:
        return job
    of = f"{threads} of {cores} threads"
    on_progress(Message(f"other programs use {others:.1f} of {cores} cores: training with {of}"))
    return replace(job, training=replace(job.training, threads=threads))


def threads_beside(others: float, cores: int) -> int:
    """A thread fewer for each core that other programs use.

    A thread that shares its core with another program keeps all the rest waiting. The number is
    recorded, so that a resumed training takes as many.

    >>> threads_beside(0.6, 4), threads_beside(0.8, 4), threads_beside(9, 4)
    (4, 3, 1)
    """
    busy = math.floor(others + 0.25)  # most of a core, or it may be a program that only starts
    return max(1, cores - busy)


def corpus_spec(options: Mapping[str, Any]) -> CorpusSpec:
    """Which texts, read and split how; a text of `lmcli make` has a document a line."""
    texts, documents = tuple(options["texts"]), options["documents"]
    if documents is None:
        documents = "line" if len(texts) == 1 and is_made(texts[0]) else "file"
    reading = {n: options[n] for n in ("encoding", "errors", "newlines")} | {"documents": documents}
    for name, allowed in CHOICES.items():
        one_of(name, documents if name == "documents" else options[name], allowed)
    valid, test = (tuple(options[name] or ()) for name in ("valid", "test"))
    rotation = options.get("rotation") or 0
    spec = CorpusSpec(texts, update(TextOptions(), reading), options["split"], valid, test)
    if rotation and not spec.can_rotate:
        problem = f"--rotation {rotation}: only an interleaved split holds out other blocks"
        raise UsageError(problem, "leave --split tail, --valid and --test out, or --rotation")
    return replace(spec, rotation=rotation)


# ------------------------------------------------------------------ resuming


def resumed_job(run: Run, options: Mapping[str, Any], on_progress: OnProgress) -> Job:
    """The job of an existing run; an option that differs from the recorded one is a RunError.

    But for the device: a training can continue on another one, if not bit for bit.
    """
    pairs = options.get("settings") or {}
    check_pairs(pairs, [run.record.arch], run.record.tokenizer)
    _check_options(run, {k: v for k, v in options.items() if k in RECORDED}, pairs)
    texts, valid, test = (options.get(name) or () for name in ("texts", "valid", "test"))
    job = reopen(run, texts, on_progress, named=(*valid, *test))
    job = replace(job, device=pick_device(options.get("device") or run.record.device))
    if job.device != run.record.device:
        warning = (
            f"'{run.path}' was trained on {run.record.device}: on {job.device} it ends a little "
            "differently"
        )
        on_progress(Message(warning, "warning"))
    if not job.is_count_based:
        check_sizes(run)
        load_checkpoint(run)  # a checkpoint that is missing or damaged shows before anything else
    return job


def _check_options(run: Run, given: Mapping[str, Any], pairs: Mapping[str, Any]) -> None:
    """A RunError that names the first difference between what is given and what is recorded."""
    record = run.record
    recorded = {**record.training, **record.settings, **record.tokenizer_settings}
    recorded |= {"arch": record.arch, "tokenizer": record.tokenizer, "seed": record.seed}
    recorded |= record.budget | record.corpus["options"]
    recorded |= {name: record.corpus[name] for name in ("split", "valid", "test")}
    recorded["rotation"] = record.corpus.get("rotation", 0)
    budget = next(f"--{n} {record.budget[n]:g}" for n in BUDGETS if record.budget[n] is not None)
    flags = {name: f"--{name} {value}" for name, value in given.items()}
    flags |= {name: f"--set {name}={value}" for name, value in pairs.items()}
    for name, value in {**given, **pairs}.items():
        if not _same(value, recorded.get(name)):
            before = f"budget {budget}" if name in BUDGETS else f"{name} {recorded.get(name)}"
            raise RunError(
                f"{flags[name]} differs from the run's {before}",
                "leave it out to go on, or train a new run",
            )


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a).lower() == str(b).lower()


# ------------------------------------------------------------------ training


def throttled(send: Callable[[object], object]) -> Callable[[object], None]:
    """Passes events on; those of steps without a validation at most once in `REPORT_INTERVAL`."""
    sent = 0.0

    def report(event: object) -> None:
        nonlocal sent
        now = time.monotonic()
        routine = isinstance(event, Training) and event.bits_per_char is None
        if not routine or now - sent > REPORT_INTERVAL:
            send(event)
            sent = now

    return report


def train_run(
    run: Run,
    job: Job,
    trainer: Trainer | None,
    going_on: bool,
    on_progress: OnProgress,
    watch: Watch,
) -> Trained | None:
    """Train to the end of the budget; None if the callback has stopped it before.

    A model that counts has no trainer. An error in the loop of a single process saves the state.
    """
    if trainer is None:
        return job.count_into(run)
    group = trainer.group
    lines = resume(run, trainer) if going_on else 0
    group.check_same(lambda: f"step {trainer.step} of {job.fingerprint()}")
    steps = train_into(run, trainer, lines)
    saves = saving(steps) if group.size == 1 else nullcontext()
    with saves, watch.watching(trainer.model, run.tokenizer, job.arch, on_progress) as see:
        for progress in steps:
            see(progress)
            if group.should_stop(bool(on_progress(job.event(job.arch, progress)))):
                break
    steps.close()
    group.finish()
    return Trained.by(trainer) if trainer.reason_to_stop() else None


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["lmcli", *sys.argv[1:]])
