"""A corpus as token ids, cached on disk so that the next training starts at once.

**In:** a `Corpus`, a tokenizer's name and settings, a cache folder or None.
**Out:** the tokenizer, trained on the training part, and an array of ids for each part: its
documents end to end, each after a start id. From the cache the arrays are memory-mapped.
Text is read and ids are written some at a time, so that both may be larger than the memory.

The cache is keyed by content, never by path: edit a text, and its ids are made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

import lmcli
from lmcli.data.corpus import Corpus
from lmcli.data.text import Limits
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import OnProgress, ProgressCounter, warnings_only
from lmcli.settings import Settings
from lmcli.tokenizers.base import Chunk, Ids, Tokenizer, chunks_of

FORMAT = 4
COUNTED = 1 << 20
"""tokens counted at once: of a memory-mapped array no more need be in memory"""
_STEP = 1 << 20  # bytes checked at a time
_STALE = 86_400  # seconds after which a half-written entry was left by a process that was killed


@dataclass(frozen=True)
class TokenizedCorpus:
    """A tokenizer and what it made of each part, in the smallest integers that hold all ids."""

    tokenizer: Tokenizer
    train: Ids
    valid: Ids
    test: Ids | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files."""
        arrays = [_Mapped.of(ids) for ids in (self.train, self.valid, self.test)]
        return _unreduced, (self.tokenizer, *arrays)


@dataclass(frozen=True)
class _Mapped:
    """Where a memory-mapped array lies."""

    path: str
    dtype: str
    offset: int
    length: int

    @classmethod
    def of(cls, ids: Ids | None) -> Ids | _Mapped | None:
        if not isinstance(ids, np.memmap) or not ids.filename:
            return ids
        return cls(str(ids.filename), ids.dtype.str, ids.offset, len(ids))

    def open(self) -> Ids:
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.length,))


def _unreduced(tokenizer: Tokenizer, *arrays: Any) -> TokenizedCorpus:
    opened = [a.open() if isinstance(a, _Mapped) else a for a in arrays]
    return TokenizedCorpus(tokenizer, *opened)


def cache_folder() -> Path:
    """$LMCLI_CACHE, else $XDG_CACHE_HOME/lmcli, else ~/.cache/lmcli."""
    if own := os.environ.get("LMCLI_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmcli"


def tokenize_corpus(
    corpus: Corpus,
    tokenizer_name: str,
    settings: Settings,
    cache: Path | None,
    on_progress: OnProgress = warnings_only,
    limits: Limits | None = None,
) -> TokenizedCorpus:
    """All parts as ids, from the cache where they are in it; otherwise they are put there.

    Without a cache, or with one that cannot be read or written, they are held in memory while they
    are few, else in a temporary file.
    """
    encoder = _Encoder(corpus, tokenizer_name, settings, on_progress)
    if cache is not None:
        entry = cache / "encoded" / _key(corpus, tokenizer_name, settings)
        cached = _load(entry, tokenizer_name)
        cached = cached or (_save(encoder, entry) and _load(entry, tokenizer_name)) or None
        if cached:
            return cached
    memory = (limits or Limits()).memory
    ids = {name: _held(parts, encoder.dtype, memory) for name, parts in encoder.parts()}
    corpus.check_unchanged()
    return TokenizedCorpus(encoder.tokenizer, ids["train"], ids["valid"], ids.get("test"))


def encode_documents(tokenizer: Tokenizer, documents: Iterable[str]) -> Ids:
    """The documents end to end, each after a start id."""
    dtype = smallest_dtype(tokenizer)
    parts = [ids.astype(dtype) for ids in tokenizer.encode_all(chunks_of(documents))]
    return np.concatenate([np.empty(0, dtype), *parts])


def smallest_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest integers that hold all ids and the start id."""
    if tokenizer.start < 256:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if tokenizer.size + 1 < 65536 else np.int32)


def count_targets(ids: Ids, start: int) -> int:
    """How many ids are predicted: all but the start ids."""
    parts = (ids[i : i + COUNTED] for i in range(0, len(ids), COUNTED))
    return sum(int(np.count_nonzero(part != start)) for part in parts)


class _Encoder:
    """A corpus on its way to ids; the tokenizer is trained when it is first needed."""

    def __init__(
        self, corpus: Corpus, tokenizer_name: str, settings: Settings, on_progress: OnProgress
    ) -> None:
        self.corpus = corpus
        self._name, self._settings = tokenizer_name, settings
        self._counter = ProgressCounter(on_progress)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        cls: type[Tokenizer] = TOKENIZERS.load(self._name)
        train = self.corpus.train
        self._counter.begin("vocabulary", train.chars)
        return cls.train(_CountedDocuments(train.documents, self._counter), self._settings)

    @property
    def dtype(self) -> np.dtype[Any]:
        return smallest_dtype(self.tokenizer)

    def parts(self) -> Iterator[tuple[str, Iterator[Ids]]]:
        """The name of each part, and its ids some at a time."""
        tokenizer, dtype = self.tokenizer, self.dtype
        for name, part in self.corpus.parts().items():
            self._counter.begin("tokens", part.chars)
            chunks = _CountedDocuments(part.documents, self._counter).chunks()
            yield name, (ids.astype(dtype) for ids in tokenizer.encode_all(chunks))


class _CountedDocuments:
    """Documents whose reader moves a counter."""

    def __init__(self, documents: Iterable[str], counter: ProgressCounter) -> None:
        self._documents, self._counter = documents, counter

    def __iter__(self) -> Iterator[str]:
        for document in self._documents:
            self._counter.add(len(document))
            yield document

    def chunks(self) -> Iterator[Chunk]:
        """Those of the documents; each reading moves the counter from the beginning."""
        self._counter.done = 0
        for chunk in chunks_of(self._documents):
            yield chunk
            self._counter.add(len(chunk.text))


def _held(parts: Iterable[Ids], dtype: np.dtype[Any], memory: int) -> Ids:
    """Ids in memory while they are few, else in a temporary file."""
    held, size, parts = [np.empty(0, dtype)], 0, iter(parts)
    while size <= memory:
        ids = next(parts, None)
        if ids is None:
            return np.concatenate(held)
        held.append(ids)
        size += ids.nbytes
    with tempfile.TemporaryFile() as file:
        length = 0
        for ids in chain(held, parts):
            file.write(ids.data)
            length += len(ids)
        file.flush()
        return np.memmap(file, dtype, "r", 0, (length,))


def _key(corpus: Corpus, tokenizer_name: str, settings: Settings) -> str:
    parts = [
        FORMAT,
        lmcli.__version__,
        corpus.spec.identity(),
        tokenizer_name,
        dataclasses.asdict(settings),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _save(encoder: _Encoder, entry: Path) -> bool:
    """Write a cache entry whole or not at all; whether it is there now."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _sweep(entry.parent)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            checksums = {
                name: _write_ids(new / f"{name}.npy", ids, encoder.dtype)
                for name, ids in encoder.parts()
            }
            encoder.corpus.check_unchanged()  # or these ids would be taken for those of its sha256
            tokenizer = json.dumps(encoder.tokenizer.to_json())
            about = {
                "tokenizer": tokenizer,
                "tokenizer_checksum": zlib.crc32(tokenizer.encode()),
                "checksums": checksums,
            }
            (new / "about.json").write_text(json.dumps(about), encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)  # a damaged one
            new.rename(entry)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove half-written entries of processes that were killed."""
    for left in folder.glob(".new-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _write_ids(path: Path, parts: Iterable[Ids], dtype: np.dtype[Any]) -> int:
    """Write ids as an ``.npy`` file as they come; their checksum."""
    length = checksum = 0
    with path.open("wb") as file:
        _write_header(file, dtype, 0)
        begin = file.tell()
        for ids in parts:
            file.write(ids.data)
            checksum = zlib.crc32(ids.data, checksum)
            length += len(ids)
        file.seek(0)
        _write_header(file, dtype, length)
        if file.tell() != begin:  # the format leaves room for the length
            raise OSError("the header has outgrown its place")
    return checksum


def _write_header(file: IO[bytes], dtype: np.dtype[Any], length: int) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _load(entry: Path, tokenizer_name: str) -> TokenizedCorpus | None:
    """A cache entry, or None where there is none or it is damaged."""
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        if zlib.crc32(about["tokenizer"].encode()) != about["tokenizer_checksum"]:
            return None
        tokenizer = TOKENIZERS.load(tokenizer_name).from_json(json.loads(about["tokenizer"]))
        ids = {name: _load_ids(entry, name, n) for name, n in about["checksums"].items()}
        return TokenizedCorpus(tokenizer, ids["train"], ids["valid"], ids.get("test"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _load_ids(entry: Path, name: str, expected: int) -> Ids:
    path = entry / f"{name}.npy"
    ids = np.load(path, mmap_mode="r", allow_pickle=False)
    checksum = 0
    with path.open("rb") as file:  # not through the map: what is read there stays in memory
        file.seek(ids.offset)
        while data := file.read(_STEP):
            checksum = zlib.crc32(data, checksum)
    if checksum != expected:
        raise ValueError("the checksum differs")
    return cast("Ids", ids)
