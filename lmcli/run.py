"""A run: one folder on disk that holds a model and the record of how it was made.

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

import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import RunError, UnknownNameError
from lmcli.folder_replacement import remove, replacing, restore
from lmcli.models import COUNTS, current_names
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.run_record import Record, check_log_entry, check_trained
from lmcli.settings import check_known, update
from lmcli.storage import (
    check_regular,
    damaged,
    half_written,
    new_folder,
    read_json,
    storage,
    sync_file,
    write_bytes,
    write_json,
)
from lmcli.tensor_files import check_finite, read_header, read_tensors, write_tensors
from lmcli.write_lock import is_locked

if TYPE_CHECKING:
    from torch import Tensor

    from lmcli.models.base import LanguageModel
    from lmcli.tokenizers.base import Tokenizer

RECORD, TOKENIZER, WEIGHTS = "run.json", "tokenizer.json", "weights.safetensors"
TRAINING, TRAINING_COPY = "training.safetensors", "training.json"
LOG, RESULTS = "log.jsonl", "results"
OURS = (WEIGHTS, TRAINING, TRAINING_COPY, LOG, RESULTS, TOKENIZER, RECORD)
"""the names that may be replaced and deleted in a run; other files there are the user's"""


NAMED = 6
"""runs of a folder that a hint names"""


class Run:
    """One run folder; made by `create` or `open`."""

    def __init__(self, path: Path, record: Record, tokenizer: Tokenizer) -> None:
        self.path = path
        self.record = record
        self.tokenizer = tokenizer
        self._replaces = False
        """whether another run is at `path` until something of this one is saved"""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @classmethod
    def create(cls, path: Path, record: Record, tokenizer: Tokenizer, force: bool = False) -> Run:
        """A new folder; one that exists is an error, or with `force` replaced if it is a run.

        It is replaced when the first file is saved: until then the old run can be used.
        """
        check_free(path, force)
        record = replace(record, id=record.identity(tokenizer.to_json()))
        run = cls(path, record, tokenizer)
        run._replaces = (path / RECORD).exists()
        if not run._replaces:
            with suppress(OSError):  # of a process that was killed before it wrote run.json
                (path / RESULTS).rmdir()
            with new_folder(path):
                run._begin(path)
        return run

    def _begin(self, folder: Path) -> None:
        """Write what every run has from the beginning, or nothing of it."""
        with storage(folder):
            (folder / RESULTS).mkdir()  # fails where another process has made a run meanwhile
        try:
            write_json(folder / RECORD, vars(self.record))
            write_json(folder / TOKENIZER, self.tokenizer.to_json())
        except BaseException:
            with suppress(OSError):
                remove(folder, (RECORD, TOKENIZER, RESULTS))
            raise

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Where to save; the first file that is saved replaces the old run."""
        if not self._replaces:
            yield self.path
            return
        with replacing(self.path, OURS) as folder:
            self._begin(folder)
            yield folder
        self._replaces = False

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run; its weights are read by `model`."""
        restore(path)
        if not path.exists():
            raise RunError(f"no run at '{path}'", "lmcli train my.txt -o RUN makes one")
        if not (path / RECORD).is_file():
            raise RunError(f"'{path}' is not a run", _hint_for_folder(path))
        record_json, tokenizer_json = read_json(path / RECORD), read_json(path / TOKENIZER)
        with checking(path / RECORD):
            record = Record.from_json(record_json)
        with checking(path / TOKENIZER):
            tokenizer = _tokenizer(TOKENIZERS.load(record.tokenizer), json.dumps(tokenizer_json))
            identity = record.identity(tokenizer_json)
        if tokenizer.size != record.vocabulary or (record.id and record.id != identity):
            raise _mixed(path, TOKENIZER)
        return cls(path, record, tokenizer)

    def new_model(self) -> LanguageModel:
        """An untrained model with the run's settings."""
        settings = self.settings()
        with checking(self.path / RECORD):
            cls = MODELS.load(self.record.arch)
            model: LanguageModel = cls(self.record.vocabulary, settings)
        return model

    def settings(self) -> Any:
        """Those of its architecture; unknown names, types and ranges are a RunError."""
        cls = MODELS.load(self.record.arch).Settings
        with checking(self.path / RECORD):
            check_known(self.record.settings, cls)
            return update(cls(), self.record.settings)

    def check_sizes(self, file: Path, prefix: str = "") -> None:
        """A RunError if tensors in a file do not have the sizes that the settings ask for.

        Those with a prefix are looked at; nothing of that size is allocated.
        """
        import torch

        if MODELS.load(self.record.arch).is_count_based:  # its sizes are the text's
            return
        with torch.device("meta"):
            wanted = {name: tuple(t.shape) for name, t in self.new_model().tensors().items()}
            wanted = {name: shape for name, shape in wanted.items() if not name.startswith(COUNTS)}
        shapes, about = read_header(file)
        self.check_own(file, about)
        own = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        found = current_names({n: s for n, s in own.items() if not n.startswith(COUNTS)})
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                place = f"tensor {prefix}{name} has the shape {found.get(name, 'of none')}"
                raise damaged(file, f"{place}, {wanted.get(name, 'none')} is right")

    def model(self, device: str = "cpu") -> LanguageModel:
        """The model with its best weights; the process holds freed memory from now on."""
        from lmcli.system import hold_freed_memory

        hold_freed_memory()
        file = self.weights_file()
        self.check_sizes(file)
        tensors = self.weights(read_tensors)
        model = self.new_model()
        with checking(file):
            model.load_tensors(tensors)
        return model.to(device).eval()

    def weights(self, read: Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]) -> Any:
        """The tensors of the best weights, as torch's or as NumPy's; all of them are finite."""
        tensors, about = read(file := self.weights_file())
        self.check_own(file, about)
        with checking(file):
            check_finite(tensors)
        return tensors

    def weights_file(self) -> Path:
        """Where the best weights are; a run without them is a RunError."""
        file = self.path / WEIGHTS
        if not file.is_file():
            problem = f"'{self.path}' is unfinished: it has no {WEIGHTS}"
            raise RunError(problem, f"lmcli train --resume -o {self.path} goes on with it")
        return file

    def weights_checksum(self) -> str:
        """The sha256 of the file of weights."""
        with self.weights_file().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def check_own(self, file: Path, about: Mapping[str, Any]) -> None:
        """A RunError if tensors, by what their header says of them, are those of another run."""
        if self.record.id and about.get("run") != self.record.id:
            raise _mixed(self.path, file.name)

    def save_weights(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """The best weights so far."""
        with self._folder() as folder:
            write_tensors(folder / WEIGHTS, tensors, {"step": step, "run": self.record.id})

    def weights_step(self) -> int | None:
        """The step that the saved weights are of; None where there are none."""
        if not (self.path / WEIGHTS).is_file():
            return None
        _, about = read_tensors(self.path / WEIGHTS)
        self.check_own(self.path / WEIGHTS, about)
        with checking(self.path / WEIGHTS):
            return int(about["step"])

    def save_training(
        self,
        tensors: Mapping[str, Tensor],
        state: dict[str, Any],
        clock: Mapping[str, Any] | None = None,
    ) -> None:
        """All that is needed to go on exactly; `clock` is what differs between equal trainings.

        The log, whose lines the state counts, is on the disk before it.
        """
        with self._folder() as folder:
            if (folder / LOG).exists():
                sync_file(folder / LOG)
            write_tensors(folder / TRAINING, tensors, state | {"run": self.record.id})
            write_json(folder / TRAINING_COPY, {**(clock or {}), **state})

    def load_training(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save_training` wrote last."""
        file = self.path / TRAINING
        if not file.is_file():
            problem = f"'{self.path}' cannot be resumed: it has no {TRAINING}"
            raise RunError(problem, "train it again, with --force to replace it")
        tensors, state = read_tensors(file)
        self.check_own(file, state)
        state.pop("run", None)
        with suppress(RunError):
            state = read_json(self.path / TRAINING_COPY) | state
        return tensors, state

    def drop_checkpoint(self) -> None:
        """Delete what only resuming needs."""
        remove(self.path, (TRAINING, TRAINING_COPY))

    def cut_log(self, lines: int) -> None:
        """Keep the first N lines: steps after the last checkpoint are taken, and logged, again."""
        with self._folder() as folder:
            file = self._log_file(folder)
            logged = file.read_bytes().splitlines(keepends=True) if file.exists() else []
            if len(logged) < lines:
                raise damaged(file, f"it has {len(logged)} lines, the checkpoint counts {lines}")
            write_bytes(file, b"".join(logged[:lines]))

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """One line of progress."""
        line = json.dumps(entry) + "\n"
        with self._folder() as at, storage(at):
            file = self._log_file(at)
            with file.open("a", encoding="utf-8") as opened:
                opened.write(line)

    def log(self) -> list[dict[str, Any]]:
        """The lines of progress, as far as they are whole."""
        entries = []
        with suppress(OSError, ValueError, RecursionError, RunError):
            check_regular(self.path / LOG)
            for line in (self.path / LOG).read_bytes().splitlines():
                check_log_entry(entry := json.loads(line))
                entries.append(entry)
        return entries

    def _log_file(self, folder: Path) -> Path:
        """Where the log is; a link, or anything else that is no file, is a RunError.

        What it links to would be copied into the run, or written to.
        """
        file = folder / LOG
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise damaged(file, "it is no regular file")
        return file

    def save_result(self, name: str, values: dict[str, Any]) -> None:
        """A Result as JSON under results/."""
        with self._folder() as folder:
            with storage(folder):
                (folder / RESULTS).mkdir(exist_ok=True)
            write_json(folder / RESULTS / f"{name}.json", values)

    def result(self, name: str) -> dict[str, Any] | None:
        """A saved result, None if there is none."""
        file = self.path / RESULTS / f"{name}.json"
        if not file.is_file():
            return None
        values = read_json(file)
        if name == "train":
            with checking(file):
                check_trained(values)
        return values


class ReadOnlyRun(Run):
    """A run that another process writes: what a training would write is dropped."""

    def _drop(self, *_: object, **__: object) -> None:
        """Writes nothing."""

    save_weights = save_training = cut_log = append_log = _drop


@contextmanager
def checking(file: Path) -> Iterator[None]:
    """Within, whatever fails is due to what a file says, and a RunError that names it."""
    try:
        yield
    except UnknownNameError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(file, error) from None


@functools.lru_cache(maxsize=4)
def _tokenizer(cls: type[Tokenizer], saved: str) -> Tokenizer:
    """A saved tokenizer; runs with equal ones share it, and with it what it has encoded."""
    return cls.from_json(json.loads(saved))


def _mixed(path: Path, name: str) -> RunError:
    """The error for a file of another run."""
    problem = f"'{path}' is put together from two runs: {name} does not belong to {RECORD}"
    return RunError(problem, "restore it from a copy, or train the run again")


def _hint_for_folder(path: Path) -> str:
    """What to name in place of a folder that is no run: the runs in it, if there are any."""
    inside = sorted(file.parent for file in path.glob(f"*/{RECORD}")) if path.is_dir() else []
    if not inside:
        return f"a run is a folder with a {RECORD} in it"
    named = ", ".join(map(str, inside[:NAMED]))
    more = f" and {len(inside) - NAMED} more" if len(inside) > NAMED else ""
    return f"name one of the runs in it: {named}{more}"


def check_free(path: Path, force: bool) -> None:
    """A RunError if something is at `path` that must not be replaced; nothing is written."""
    restore(path)
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise RunError(f"'{path}' exists and is not a folder", "choose another name with -o")
    if all(map(_is_half_begun, path.iterdir())):
        return
    if not (path / RECORD).is_file():
        raise RunError(f"'{path}' exists and is not a run", "choose another name with -o")
    if not force:
        raise RunError(f"'{path}' exists", "--resume goes on with it, --force replaces it")
    if Path.cwd().is_relative_to(path.resolve()):
        raise RunError(f"the working folder is in '{path}'", "replace it from another folder")


def _is_half_begun(path: Path) -> bool:
    """Whether this is what a process that was killed at the beginning of a run leaves in it."""
    empty = path.name == RESULTS and path.is_dir() and not any(path.iterdir())
    return empty or half_written(path) == RECORD


def free_name(folder: Path, name: str) -> Path:
    """folder/name, or the first of name-2, name-3, ... that is free."""
    path, number = folder / name, 1
    while path.exists() or is_locked(path):
        number += 1
        path = folder / f"{name}-{number}"
    return path
