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
from lmcli.data.corpus import Corpus
from lmcli.data.dataset import CorpusSpec, Dataset
from lmcli.data.reading import Reader
from lmcli.data.texts import ProgressCounter
from lmcli.data.token_cache import cache_folder, tokenize_corpus
from lmcli.errors import RunError, TextError, UsageError
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.run import ReadOnlyRun, Record, Run
from lmcli.settings import check_known, update
from lmcli.system import pick_device
from lmcli.training.defaults import ProblemSize, resolve_defaults
from lmcli.training.distributed import Workers
from lmcli.training.trainer import BATCH, Budget, Trainer, TrainingSettings


def load_dataset(
    choice: CorpusSpec,
    tokenizer: str,
    pairs: Mapping[str, Any] | None = None,
    meter: ProgressCounter | None = None,
) -> Dataset:
    """Read, split and tokenize; ids come from the cache where they can."""
    reader = Reader(meter=meter)
    cls = TOKENIZERS.load(tokenizer)
    settings = update(cls.Settings(), pairs or {})
    corpus = choice.load(reader)
    encoded = tokenize_corpus(corpus, tokenizer, settings, cache_folder(), reader)
    return Dataset(choice, corpus, encoded, tokenizer, asdict(settings))


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
        return bool(MODELS.load(self.arch).counts)

    def record(self) -> Record:
        """The run.json of this job."""
        return Record(
            arch=self.arch,
            settings=asdict(self.settings),
            tokenizer=self.dataset.tokenizer,
            tokenizer_settings=self.dataset.tokenizer_settings,
            vocabulary=self.dataset.tokenized.tokenizer.size,
            corpus=self.dataset.spec.to_json() | self.dataset.checksums(),
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


def reopen(run: Run, texts: tuple[str, ...] = (), meter: ProgressCounter | None = None) -> Job:
    """The job that a run was made from, its texts read again; they must be what they were."""
    record = run.record
    choice = _recorded_choice(run, texts)
    dataset = load_dataset(choice, record.tokenizer, record.tokenizer_settings, meter)
    _check_unchanged(run, dataset.checksums())
    try:
        settings = MODELS.load(record.arch).Settings(**record.settings)
        training = TrainingSettings(**record.training)
        budget = Budget(**record.budget)
    except TypeError as error:
        raise RunError(f"'{run.path}': {error}", "it was made by another lmcli") from None
    job = Job(record.arch, settings, training, budget, record.seed, record.device, dataset)
    return replace(job, workers=record.workers)


def reopen_corpus(
    run: Run, texts: tuple[str, ...] = (), meter: ProgressCounter | None = None
) -> Corpus:
    """The corpus that a run was trained on, read again; its texts must be what they were."""
    corpus = _recorded_choice(run, texts).load(Reader(meter=meter))
    _check_unchanged(run, corpus.checksums())
    return corpus


def _recorded_choice(run: Run, texts: tuple[str, ...]) -> CorpusSpec:
    choice = CorpusSpec.from_json(run.record.corpus)
    if "-" in choice.texts and not texts:
        raise TextError(
            f"'{run.path}' was trained on standard input, which is gone",
            "name the text in the command, or pipe it in again and name -",
        )
    return replace(choice, texts=texts or choice.texts)


def _check_unchanged(run: Run, checksums: Mapping[str, str | None]) -> None:
    for name, checksum in checksums.items():
        if checksum != run.record.corpus[name]:
            what = {"valid_sha256": "validation text", "test_sha256": "test text"}.get(name, "text")
            raise TextError(
                f"the {what} has changed since '{run.path}' was trained on it",
                "train a new run on the new text",
            )


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
