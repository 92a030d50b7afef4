"""A corpus as token ids, cached on disk so that the next training starts at once.

**In:** a `Corpus`, a tokenizer's name and settings, a cache folder or None.
**Out:** the tokenizer, trained on the training part, and an array of ids for each part: its
documents end to end, each after a start id. Small ones are in memory, others memory-mapped.
Text is read and ids are written some at a time, so that both may be larger than the memory.

A mapped file that another program shortens, or that the disk no longer gives, ends the process by
SIGBUS. So only arrays larger than `Limits.memory` are mapped.

The cache is keyed by content, never by path: edit a text, and its ids are made anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import lmcli
import lmcli.tokenizers
from lmcli.data.corpus import Corpus
from lmcli.data.text import Limits
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import OnProgress, ProgressCounter, warnings_only
from lmcli.settings import Settings
from lmcli.tokenizers.base import Chunk, Ids, Tokenizer, chunks_of

FORMAT = 6
COUNTED = 1 << 20
"""tokens counted at once: of a memory-mapped array no more need be in memory"""
_STEP = 1 << 20  # bytes checked at a time
_STALE = 86_400  # seconds after which a half-written entry was left by a process that was killed
MOST_CACHED = 8 << 30
"""bytes of all entries; the ones used longest ago are removed"""


@dataclass(frozen=True)
class TokenizedCorpus:
    """A tokenizer and what it made of each part, in the smallest integers that hold all ids."""

    tokenizer: Tokenizer
    train: Ids
    valid: Ids
    test: Ids | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files; arrays in memory are sent."""
        arrays = [
            (ids.filename, ids.dtype) if isinstance(ids, np.memmap) and ids.filename else ids
            for ids in (self.train, self.valid, self.test)
        ]
        return _opened, (self.tokenizer, *arrays)


def _opened(tokenizer: Tokenizer, *arrays: Any) -> TokenizedCorpus:
    opened = [np.memmap(a[0], a[1], "r") if isinstance(a, tuple) else a for a in arrays]
    return TokenizedCorpus(tokenizer, *opened)


def cache_folder() -> Path | None:
    """$LMCLI_CACHE, else $XDG_CACHE_HOME/lmcli, else ~/.cache/lmcli; None without a home."""
    if own := os.environ.get("LMCLI_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmcli"
    except RuntimeError:  # a container whose user is in no list of users
        return None


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
    entry = cache and cache / "encoded" / _key(corpus, tokenizer_name, settings)
    memory = (limits or Limits()).memory
    if entry and (cached := _load(entry, tokenizer_name, memory)):
        return cached
    counter, train = ProgressCounter(on_progress), corpus.train
    counter.begin("vocabulary", train.chars)
    cls: type[Tokenizer] = TOKENIZERS.load(tokenizer_name)
    tokenizer = cls.train(_CountedDocuments(train.documents, counter), settings)
    saved = entry and _save(entry, corpus, tokenizer, counter)
    if entry and saved and (cached := _load(entry, tokenizer_name, memory)):
        return cached
    return encode_corpus(corpus, tokenizer, on_progress, limits)


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    on_progress: OnProgress = warnings_only,
    limits: Limits | None = None,
) -> TokenizedCorpus:
    """All parts as ids of this tokenizer, past the cache."""
    memory = (limits or Limits()).memory
    parts = _encode(corpus, tokenizer, ProgressCounter(on_progress))
    ids = {name: _hold(part, smallest_dtype(tokenizer), memory) for name, part in parts}
    corpus.check_unchanged()
    return TokenizedCorpus(tokenizer, ids["train"], ids["valid"], ids.get("test"))


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


def _encode(
    corpus: Corpus, tokenizer: Tokenizer, counter: ProgressCounter
) -> Iterator[tuple[str, Iterator[Ids]]]:
    """The name of each part, and its ids some at a time."""
    dtype = smallest_dtype(tokenizer)
    for name, part in corpus.parts().items():
        counter.begin("tokens", part.chars)
        chunks = _CountedDocuments(part.documents, counter).chunks()
        yield name, (ids.astype(dtype) for ids in tokenizer.encode_all(chunks))


class _CountedDocuments:
    """Documents whose reader moves a counter."""

    def __init__(self, documents: Iterable[str], counter: ProgressCounter) -> None:
        self._documents, self._counter = documents, counter

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def chunks(self) -> Iterator[Chunk]:
        """Those of the documents; each reading moves the counter from the beginning."""
        self._counter.done = 0
        for chunk in chunks_of(self._documents):
            yield chunk
            self._counter.add(len(chunk.text))


def _hold(parts: Iterator[Ids], dtype: np.dtype[Any], memory: int) -> Ids:
    """Ids in memory while they are few, else in a temporary file."""
    held, size = [np.empty(0, dtype)], 0
    for ids in parts:
        held.append(ids)
        size += ids.nbytes
        if size > memory:
            break
    else:
        return np.concatenate(held)
    with tempfile.TemporaryFile() as file:
        for ids in chain(held, parts):
            file.write(ids.data)
        file.flush()
        return np.memmap(file, dtype, "r")


def _key(corpus: Corpus, tokenizer_name: str, settings: Settings) -> str:
    text, chosen = corpus.spec.identity(), dataclasses.asdict(settings)
    made_by = [lmcli.__version__, unicodedata.unidata_version, _tokenizers_digest()]
    parts = [FORMAT, made_by, text, tokenizer_name, chosen]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _tokenizers_digest() -> str:
    """Of the code of lmcli's tokenizers, and of the library that some use."""
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for file in sorted(Path(lmcli.tokenizers.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _save(entry: Path, corpus: Corpus, tokenizer: Tokenizer, counter: ProgressCounter) -> bool:
    """Write a cache entry whole or not at all; whether it is there now."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.parent.chmod(0o700)  # the ids are the text
        _sweep(entry.parent)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            parts = _encode(corpus, tokenizer, counter)
            checksums = {name: _write(new / f"{name}.ids", ids) for name, ids in parts}
            corpus.check_unchanged()  # or these ids would be taken for those of its sha256
            text = json.dumps(tokenizer.to_json())
            about = {"tokenizer": text, "tokenizer_checksum": zlib.crc32(text.encode())}
            about |= {"checksums": checksums}
            (new / "about.json").write_text(json.dumps(about), encoding="utf-8")
            _put(new, entry, tokenizer.name, Path(folder) / "damaged")
        _evict(entry)
    except OSError:
        return False
    return True


def _put(new: Path, entry: Path, tokenizer_name: str, aside: Path) -> None:
    """Give a whole entry its name; a whole one that another process has put there meanwhile stays.

    Other processes may be reading that one.
    """
    try:
        new.rename(entry)
    except OSError:
        if _load(entry, tokenizer_name, 0):
            return
        with suppress(FileNotFoundError):
            entry.rename(aside)  # a damaged one
        with suppress(OSError):  # unless another process has been quicker
            new.rename(entry)


def _evict(kept: Path) -> None:
    """Remove the entries used longest ago, as long as all together are too large."""
    used = dict[Path, tuple[float, int]]()
    for entry in kept.parent.glob("[!.]*"):
        with suppress(OSError):
            size = sum(file.stat().st_size for file in entry.iterdir())
            used[entry] = entry.stat().st_mtime, size
    total = sum(size for _, size in used.values())
    for entry in sorted(used, key=lambda entry: used[entry][0]):
        if total <= MOST_CACHED:
            return
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)
            total -= used[entry][1]


def _sweep(folder: Path) -> None:
    """Remove half-written entries of processes that were killed."""
    for left in folder.glob(".new-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _write(path: Path, parts: Iterable[Ids]) -> int:
    """Write ids as they come; their checksum."""
    checksum = 0
    with path.open("wb") as file:
        for ids in parts:
            file.write(ids.data)
            checksum = zlib.crc32(ids.data, checksum)
    return checksum


def _load(entry: Path, tokenizer_name: str, memory: int) -> TokenizedCorpus | None:
    """A cache entry, or None where there is none or it is damaged.

    Arrays up to `memory` bytes are read, others mapped.
    """
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        if zlib.crc32(about["tokenizer"].encode()) != about["tokenizer_checksum"]:
            return None
        tokenizer = TOKENIZERS.load(tokenizer_name).from_json(json.loads(about["tokenizer"]))
        ids = {
            name: _read(entry / f"{name}.ids", smallest_dtype(tokenizer), checksum, memory)
            for name, checksum in about["checksums"].items()
        }
        with suppress(OSError):
            os.utime(entry)  # it was used
        return TokenizedCorpus(tokenizer, ids["train"], ids["valid"], ids.get("test"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(path: Path, dtype: np.dtype[Any], expected: int, memory: int) -> Ids:
    """The ids in a file, or a ValueError if it has another checksum."""
    ids, checksum, size = None, 0, 0
    with path.open("rb") as file:  # not through the map: what is read there stays in memory
        if os.fstat(file.fileno()).st_size <= memory:
            ids = np.fromfile(file, dtype)
            checksum = zlib.crc32(ids.data)
        while data := file.read(_STEP):
            checksum = zlib.crc32(data, checksum)
            size += len(data)
    if checksum != expected:
        raise ValueError("the checksum differs")
    if ids is not None:
        return ids
    return np.memmap(path, dtype, "r", shape=(size // dtype.itemsize,))  # an error if it is shorter
