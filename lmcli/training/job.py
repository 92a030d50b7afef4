"""Texts + settings -> everything a training needs; and the training itself.

**In:** the options of `lmcli.api.train`: texts, architecture, tokenizer, settings, a budget.
**Out:** `Job`: the record of the run to be, ids, and settings without gaps. Up to `train_run`
nothing is written but the cache of token ids: an option that is wrong shows before.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmcli import __version__
from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import Dataset, load_dataset, reopen_dataset
from lmcli.data.text import TextOptions
from lmcli.errors import RunError, UsageError
from lmcli.grammars.base import is_made
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.report.progress import Message, OnProgress, Training, warnings_only
from lmcli.run import ReadOnlyRun, Record, Run
from lmcli.settings import check_known, one_of, update
from lmcli.system import pick_device, pick_precision
from lmcli.training.checkpoint import Trained, count_into, resume, train_into
from lmcli.training.defaults import (
    BATCH,
    Budget,
    ProblemSize,
    TrainingSettings,
    cpu_threads,
    describe_defaults,
    resolve_defaults,
)
from lmcli.training.distributed import SingleProcess
from lmcli.training.trainer import Progress, Trainer

BUDGETS = ("minutes", "steps", "epochs")
RECORDED = (
    *BUDGETS,
    *("split", "valid", "test", "documents", "newlines", "encoding", "errors"),
    *("arch", "tokenizer", "seed"),
)
"""options that a run records: --resume may repeat them, not change them"""


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

    @property
    def is_count_based(self) -> bool:
        """Whether it learns by counting."""
        return bool(MODELS.load(self.arch).is_count_based)

    def record(self) -> Record:
        """The run.json of this job."""
        return Record(
            arch=self.arch,
            settings=asdict(self.settings),
            tokenizer=self.dataset.tokenizer,
            tokenizer_settings=self.dataset.tokenizer_settings,
            vocabulary=self.dataset.tokenized.tokenizer.size,
            corpus=self.dataset.spec.to_json(),
            training=asdict(self.training),
            budget=asdict(self.budget),
            seed=self.seed,
            device=self.device,
            versions=versions(),
            command=self.command,
            workers=self.workers,
        )

    def create(self, path: Path, force: bool = False) -> Run:
        """The run's folder."""
        return Run.create(path, self.record(), self.dataset.tokenized.tokenizer, force)

    def read_only_run(self, path: Path) -> Run:
        """The run that the main process writes."""
        return ReadOnlyRun(path, self.record(), self.dataset.tokenized.tokenizer)

    def fingerprint(self) -> str:
        """What must be the same for all workers: all but names, versions and the command."""
        record = {**asdict(self.record()), **self.dataset.checksums()}
        left_out = ("corpus", "versions", "command")
        return json.dumps({k: v for k, v in record.items() if k not in left_out}, sort_keys=True)

    def model(self) -> LanguageModel:
        """An untrained model; the seed decides its first weights."""
        import torch

        torch.manual_seed(self.seed)
        model: LanguageModel = MODELS.load(self.arch)(
            self.dataset.tokenized.tokenizer.size, self.settings
        )
        return model

    def trainer(self, group: SingleProcess | None = None) -> Trainer:
        """A trainer at step 0, in one of several processes or alone."""
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
        )

    def event(self, name: str, progress: Progress) -> Training:
        """A trainer's progress, for a callback."""
        valid, bits = self.dataset.valid, None
        if progress.valid is not None:
            bits = progress.valid * valid.targets / max(1, valid.part.chars) / math.log(2)
        done = progress.tokens, progress.seconds
        return Training(name, progress.fraction, progress.loss, bits, *done)

    def description(self, verbose: bool = False) -> list[str]:
        """What was chosen, in lines for the user."""
        tokenized, corpus, valid = self.dataset.tokenized, self.dataset.corpus, self.dataset.valid
        together = f" | {self.workers} workers" if self.workers > 1 else ""
        lines = [
            f"text: {corpus.train.chars:,} characters to train on, {corpus.valid.chars:,} to "
            f"validate; {len(tokenized.train):,} {self.dataset.tokenizer} tokens, "
            f"{tokenized.tokenizer.size:,} different"
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
    command: str = "",
    width: int | None = None,
    workers: int = 1,
) -> Job:
    """Settings for one architecture on a text, every open one chosen.

    `width` is the LSTM's, to which the others are matched: in parameters, or in width as well.
    """
    cls = MODELS.load(arch)
    settings = update(cls.Settings(), pairs)
    training = update(TrainingSettings(), pairs)
    scale = ProblemSize.of(dataset.tokenized.train, dataset.tokenized.tokenizer.size, budget)
    scale = replace(scale, given_width=width)
    settings, training = resolve_defaults(arch, settings, training, scale, match)
    if training.threads is None:
        training = replace(training, threads=cpu_threads(arch, settings, scale.vocabulary))
    job = Job(
        arch, settings, training, budget, seed, pick_device(device), dataset, command, workers
    )
    return _shared_evenly(job, "batch" in pairs) if workers > 1 else job


def _shared_evenly(job: Job, batch_is_given: bool) -> Job:
    """The job with a batch that its workers can share: rounded up, unless the user has set it."""
    if job.is_count_based:
        raise UsageError(
            f"{job.arch} learns by counting, which one process does", "leave --workers out"
        )
    batch, workers = job.training.batch or BATCH, job.workers
    rounded = workers * -(-batch // workers)
    if batch_is_given and rounded != batch:
        raise UsageError(
            f"a batch of {batch} cannot be shared evenly by {workers} workers",
            f"for example --set batch={rounded}",
        )
    return replace(job, training=replace(job.training, batch=rounded))


def check_pairs(pairs: Mapping[str, Any], archs: list[str], tokenizer: str) -> None:
    """A UsageError for a ``--set`` name that neither model, tokenizer nor training knows."""
    classes = [MODELS.load(arch).Settings for arch in archs]
    check_known(pairs, *classes, TOKENIZERS.load(tokenizer).Settings, TrainingSettings)


def reopen(run: Run, texts: tuple[str, ...] = (), on_progress: OnProgress = warnings_only) -> Job:
    """The job that a run was made from, its texts read again; they must be what they were."""
    record = run.record
    dataset = reopen_dataset(
        record.corpus, run.path, record.tokenizer, record.tokenizer_settings, texts, on_progress
    )
    try:
        settings = MODELS.load(record.arch).Settings(**record.settings)
        training = TrainingSettings(**record.training)
        budget = Budget(**record.budget)
    except TypeError as error:
        raise RunError(f"'{run.path}': {error}", "it was made by another lmcli") from None
    job = Job(record.arch, settings, training, budget, record.seed, record.device, dataset)
    return replace(job, workers=record.workers)


def new_job(options: Mapping[str, Any], workers: int, on_progress: OnProgress) -> Job:
    """The job that the options of `api.train` describe."""
    arch, tokenizer, pairs = options["arch"], options["tokenizer"], options["settings"] or {}
    budget = Budget.of(options["minutes"], options["steps"], options["epochs"])
    spec = corpus_spec(options)
    check_pairs(pairs, [arch], tokenizer)
    dataset = load_dataset(spec, tokenizer, pairs, on_progress)
    seed, device, command = options["seed"], options["device"], command_line()
    return prepare_job(dataset, arch, pairs, budget, seed, device, command=command, workers=workers)


def corpus_spec(options: Mapping[str, Any]) -> CorpusSpec:
    """Which texts, read and split how; a text of `lmcli make` has a document a line."""
    texts, documents = tuple(options["texts"]), options["documents"]
    if documents is None:
        documents = "line" if len(texts) == 1 and is_made(texts[0]) else "file"
    reading = {n: options[n] for n in ("encoding", "errors", "newlines")} | {"documents": documents}
    for name, value, allowed in (
        ("split", options["split"], ("interleaved", "tail")),
        ("errors", options["errors"], ("strict", "replace", "ignore")),
        ("newlines", options["newlines"], ("keep", "lf")),
        ("documents", documents, ("file", "line", "paragraph")),
    ):
        one_of(name, value, allowed)
    valid, test = (tuple(options[name] or ()) for name in ("valid", "test"))
    return CorpusSpec(texts, update(TextOptions(), reading), options["split"], valid, test)


# ------------------------------------------------------------------ resuming


def resumed_job(run: Run, options: Mapping[str, Any], on_progress: OnProgress) -> Job:
    """The job of an existing run; an option that differs from the recorded one is a RunError.

    But for the device: a training can continue on another one, if not bit for bit.
    """
    pairs = options.get("settings") or {}
    check_pairs(pairs, [run.record.arch], run.record.tokenizer)
    _check_options(run, {k: v for k, v in options.items() if k in RECORDED}, pairs)
    job = reopen(run, tuple(options.get("texts") or ()), on_progress)
    job = replace(job, device=pick_device(options.get("device") or run.record.device))
    if job.device != run.record.device:
        text = f"'{run.path}' was trained on {run.record.device}: on {job.device} it ends a little"
        on_progress(Message(f"{text} apart", "warning"))
    if not job.is_count_based:
        run.load_training()  # a checkpoint that is missing or damaged shows before anything else
    return job


def _check_options(run: Run, given: Mapping[str, Any], pairs: Mapping[str, Any]) -> None:
    """A RunError that names the first difference between what is given and what is recorded."""
    record = run.record
    recorded = {**record.training, **record.settings, **record.tokenizer_settings}
    recorded |= {"arch": record.arch, "tokenizer": record.tokenizer, "seed": record.seed}
    recorded |= record.budget | record.corpus["options"]
    recorded |= {name: record.corpus[name] for name in ("split", "valid", "test")}
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


def train_run(
    run: Run, job: Job, group: SingleProcess, going_on: bool, on_progress: OnProgress
) -> Trained | None:
    """Train to the end of the budget; None if the callback has stopped it before."""
    if job.is_count_based:
        train, valid = job.dataset.tokenized.train, job.dataset.valid.stream
        return Trained.by_counting(count_into(run, job.model(), train, valid))
    trainer = job.trainer(group)
    lines = resume(run, trainer) if going_on else 0
    group.check_same(f"step {trainer.step} of {job.fingerprint()}")
    steps = train_into(run, trainer, lines)
    for progress in steps:
        if group.should_stop(bool(on_progress(job.event(job.arch, progress)))):
            break
    steps.close()
    group.finish()
    return Trained.by(trainer) if trainer.reason_to_stop() else None


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    import numpy
    import torch

    return {
        "lmcli": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["lmcli", *sys.argv[1:]])
