"""Texts + settings -> everything a training needs.

**In:** what the user asked for: texts, architecture, tokenizer, ``--set`` pairs, a budget.
**Out:** `Job`: the record of the run to be, ids, and settings without gaps. Nothing is written
but the cache of token ids; what is wrong with the request shows here.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmcli import __version__
from lmcli.data.dataset import Dataset, reopen_dataset
from lmcli.errors import RunError, UsageError
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import ReadOnlyRun, Record, Run
from lmcli.settings import check_known, update
from lmcli.system import pick_device
from lmcli.training.defaults import ProblemSize, resolve_defaults
from lmcli.training.distributed import Workers
from lmcli.training.trainer import BATCH, Budget, Trainer, TrainingSettings


@dataclass(frozen=True)
class Job:
    """One model to be trained: plain values, ready to be sent to another process."""

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
    def counts(self) -> bool:
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

    def onlooker(self, path: Path) -> Run:
        """The run that another worker creates."""
        return ReadOnlyRun(path, self.record(), self.dataset.tokenized.tokenizer)

    def essence(self) -> str:
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

    def trainer(self, workers: Workers | None = None) -> Trainer:
        """A trainer at step 0, one of several workers or alone."""
        workers = workers or Workers()
        return Trainer(
            self.model(),
            self.dataset.tokenized.train,
            self.dataset.valid.stream,
            self.training,
            self.budget,
            self.seed,
            workers.place(self.device),
            workers,
        )


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
    job = Job(
        arch, settings, training, budget, seed, pick_device(device), dataset, command, workers
    )
    return _dealt_out(job, "batch" in pairs) if workers > 1 else job


def _dealt_out(job: Job, batch_is_given: bool) -> Job:
    """The job with a batch that its workers can share: rounded up, unless the user has said it."""
    if job.counts:
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
