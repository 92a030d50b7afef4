"""A run: one folder on disk that holds a model and all that is known of its making.

**In:** a record, a tokenizer, tensors, results.
**Out:** the same, later; a folder that is damaged, unfinished or newer is a RunError that says so.

    run.json               architecture + settings, corpus, split, seed, versions, command line
    tokenizer.json
    weights.safetensors    best on validation
    training.safetensors   last: weights, optimiser, carried state; its header holds training.json
    training.json          last: step, position, random states; a copy for readers
    log.jsonl              one line a record of progress
    results/*.json

How files are written and checked is in `storage.py`. training.json lives in the header of
training.safetensors because two files cannot be renamed in one go.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import LmcliError, RunError, StorageError
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.storage import (
    damaged,
    read_json,
    read_tensors,
    storage,
    write_bytes,
    write_json,
    write_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lmcli.models.base import LanguageModel
    from lmcli.tokenizers.base import Tokenizer

RECORD, TOKENIZER, WEIGHTS = "run.json", "tokenizer.json", "weights.safetensors"
TRAINING, TRAINING_COPY, LOG, RESULTS = (
    "training.safetensors",
    "training.json",
    "log.jsonl",
    "results",
)
OURS = (RECORD, TOKENIZER, WEIGHTS, TRAINING, TRAINING_COPY, LOG, RESULTS)


@dataclass(frozen=True)
class Record:
    """What run.json holds. All values are plain JSON."""

    arch: str
    settings: dict[str, Any]
    tokenizer: str
    tokenizer_settings: dict[str, Any]
    vocabulary: int
    corpus: dict[str, Any]
    """texts, sha256, options, split, valid, test"""
    training: dict[str, Any]
    budget: dict[str, Any]
    seed: int
    device: str
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    workers: int = 1


class Run:
    """One run folder; made by `create` or `open`."""

    def __init__(self, path: Path, record: Record, tokenizer: Tokenizer) -> None:
        self.path = path
        self.record = record
        self.tokenizer = tokenizer

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @classmethod
    def create(cls, path: Path, record: Record, tokenizer: Tokenizer, force: bool = False) -> Run:
        """A new folder; one that exists is an error, or with `force` replaced if it is a run."""
        check_free(path, force)
        new = next((p for p in reversed([path, *path.parents]) if not p.exists()), None)
        try:
            with storage(path):
                for name in OURS:
                    _remove(path / name)
                (path / RESULTS).mkdir(parents=True, exist_ok=True)
            write_json(path / RECORD, vars(record))  # first: it makes the folder a run
            write_json(path / TOKENIZER, tokenizer.to_json())
        except StorageError:  # a run that cannot even begin leaves nothing behind
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
            raise
        return cls(path, record, tokenizer)

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run; its weights are read by `model`."""
        if not path.exists():
            raise RunError(f"no run at '{path}'", "lmcli train my.txt -o RUN makes one")
        if not (path / RECORD).is_file():
            raise RunError(f"'{path}' is not a run", f"a run is a folder with a {RECORD} in it")
        data = read_json(path / RECORD)
        try:
            record = Record(**data)
            tokenizer = TOKENIZERS.load(record.tokenizer).from_json(read_json(path / TOKENIZER))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise damaged(path / RECORD, error) from None
        return cls(path, record, tokenizer)

    def new_model(self) -> LanguageModel:
        """An untrained model with the run's settings."""
        cls = MODELS.load(self.record.arch)
        try:
            model: LanguageModel = cls(self.record.vocabulary, cls.Settings(**self.record.settings))
        except (TypeError, LmcliError) as error:
            raise damaged(self.path / RECORD, error) from None
        return model

    def model(self, device: str = "cpu") -> LanguageModel:
        """The model with its best weights, and a process that is ready to compute with it."""
        from lmcli.system import hold_freed_memory

        hold_freed_memory()
        file = self.weights_file()
        model = self.new_model()
        tensors, _ = read_tensors(file)
        try:
            model.load_tensors(tensors)
        except (ValueError, KeyError) as error:
            raise damaged(file, error) from None
        return model.to(device).eval()

    def weights_file(self) -> Path:
        """Where the best weights are; a run without them is a RunError."""
        file = self.path / WEIGHTS
        if not file.is_file():
            raise RunError(
                f"'{self.path}' is unfinished: it has no {WEIGHTS}",
                f"lmcli train --resume -o {self.path} goes on with it",
            )
        return file

    # -------------------------------------------------------------- while it is trained

    def save_weights(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """The best weights so far."""
        write_tensors(self.path / WEIGHTS, tensors, {"step": step})

    def save_training(
        self,
        tensors: Mapping[str, Tensor],
        state: dict[str, Any],
        clock: Mapping[str, Any] | None = None,
    ) -> None:
        """All that is needed to go on exactly; `clock` is what differs from time to time."""
        write_tensors(self.path / TRAINING, tensors, state)
        write_json(self.path / TRAINING_COPY, {**(clock or {}), **state})

    def load_training(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save_training` wrote last."""
        file = self.path / TRAINING
        if not file.is_file():
            raise RunError(
                f"'{self.path}' cannot be resumed: it has no {TRAINING}",
                "train it again, with --force to replace it",
            )
        tensors, state = read_tensors(file)
        with suppress(RunError):
            state = read_json(self.path / TRAINING_COPY) | state
        return tensors, state

    def slim(self) -> None:
        """Drop what only resuming needs."""
        for name in (TRAINING, TRAINING_COPY):
            _remove(self.path / name)

    def cut_log(self, lines: int) -> None:
        """Keep the first so many: steps after the last checkpoint are taken, and logged, again."""
        file = self.path / LOG
        kept = file.read_bytes().splitlines(keepends=True)[:lines] if file.exists() else []
        write_bytes(file, b"".join(kept))

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """One line of progress."""
        with storage(self.path), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def save_result(self, name: str, values: dict[str, Any]) -> None:
        """A Result as JSON under results/."""
        with storage(self.path):
            (self.path / RESULTS).mkdir(exist_ok=True)
        write_json(self.path / RESULTS / f"{name}.json", values)

    def result(self, name: str) -> dict[str, Any] | None:
        """A saved result, None if there is none."""
        file = self.path / RESULTS / f"{name}.json"
        return read_json(file) if file.is_file() else None


class ReadOnlyRun(Run):
    """A run that another process writes: what a training would write is dropped."""

    def save_weights(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Writes nothing."""

    def save_training(
        self,
        tensors: Mapping[str, Tensor],
        state: dict[str, Any],
        clock: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes nothing."""

    def cut_log(self, lines: int) -> None:
        """Writes nothing."""

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Writes nothing."""


def check_free(path: Path, force: bool) -> None:
    """A RunError if something is at `path` that must not be replaced; nothing is written."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise RunError(f"'{path}' exists and is not a folder", "choose another name with -o")
    if not any(path.iterdir()):
        return
    if not (path / RECORD).is_file():
        raise RunError(f"'{path}' exists and is not a run", "choose another name with -o")
    if not force:
        raise RunError(f"'{path}' exists", "--resume goes on with it, --force replaces it")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
