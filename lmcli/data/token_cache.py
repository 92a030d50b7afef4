"""A corpus as token ids, kept on disk so that the next training starts at once.

**In:** a `Corpus`, a tokenizer's name and settings, a cache folder or None.
**Out:** the tokenizer, trained on the training part, and a stream of ids for each part: its pieces
end to end, each with the start id before it. From the cache the streams are memory-mapped.
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
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import lmcli
from lmcli.data.corpus import Corpus, SplitRecord
from lmcli.data.documents import CountedDocuments
from lmcli.data.reading import Reader
from lmcli.registry import TOKENIZERS
from lmcli.settings import Settings
from lmcli.tokenizers.base import CachedIds, Tokenizer, chunks_of

FORMAT = 3
_STEP = 1 << 20  # bytes checked at a time
_STALE = 86_400  # seconds after which a half-written entry has nobody who writes it

Stream = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TokenizedCorpus:
    """A tokenizer and what it made of each part, in the smallest integers that hold all ids."""

    tokenizer: Tokenizer
    train: Stream
    valid: Stream
    test: Stream | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same files."""
        streams = [_Mapped.of(s) for s in (self.train, self.valid, self.test)]
        return _unreduced, (self.tokenizer, *streams)


@dataclass(frozen=True)
class _Mapped:
    """Where a memory-mapped stream lies."""

    path: str
    dtype: str
    offset: int
    length: int

    @classmethod
    def of(cls, stream: Stream | None) -> Stream | _Mapped | None:
        if not isinstance(stream, np.memmap) or not stream.filename:
            return stream
        return cls(str(stream.filename), stream.dtype.str, stream.offset, len(stream))

    def open(self) -> Stream:
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.length,))


def _unreduced(tokenizer: Tokenizer, *streams: Any) -> TokenizedCorpus:
    opened = [s.open() if isinstance(s, _Mapped) else s for s in streams]
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
    reader: Reader | None = None,
) -> TokenizedCorpus:
    """All parts as ids, from the cache where they are in it; otherwise they are put there.

    Without a cache, or with one that cannot be read or written, they are kept in memory while they
    are few, else in a temporary file.
    """
    reader = reader or Reader()
    encoder = _Encoder(corpus, tokenizer_name, settings, reader)
    if cache is not None:
        entry = cache / "encoded" / _key(corpus, tokenizer_name, settings)
        found = _load(entry, tokenizer_name)
        found = found or (_save(encoder, entry) and _load(entry, tokenizer_name)) or None
        if found:
            return found
    streams = {name: _kept(ids, encoder.dtype, reader) for name, ids in encoder.streams()}
    return TokenizedCorpus(
        encoder.tokenizer, streams["train"], streams["valid"], streams.get("test")
    )


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[str]) -> Stream:
    """The pieces end to end, each with the start id before it."""
    dtype = smallest_dtype(tokenizer)
    parts = [ids.astype(dtype) for ids in tokenizer.encode_all(chunks_of(pieces))]
    return np.concatenate([np.empty(0, dtype), *parts])


def smallest_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The smallest integers that hold all ids and the start id."""
    if tokenizer.start < 256:
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if tokenizer.size + 1 < 65536 else np.int32)


class _Encoder:
    """A corpus on its way to ids; the tokenizer is trained when it is first needed."""

    def __init__(
        self, corpus: Corpus, tokenizer_name: str, settings: Settings, reader: Reader
    ) -> None:
        parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self._name, self._settings, self._meter = tokenizer_name, settings, reader.meter

    @cached_property
    def _trained(self) -> tuple[Tokenizer, CachedIds | None]:
        """The tokenizer, and what it has kept of the training part."""
        train = self._parts["train"]
        self._meter.begin("vocabulary", train.chars)
        cls: type[Tokenizer] = TOKENIZERS.load(self._name)
        return cls.train_and_keep(CountedDocuments(train.documents, self._meter), self._settings)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._trained[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        return smallest_dtype(self.tokenizer)

    def streams(self) -> Iterator[tuple[str, Iterator[Stream]]]:
        """The name of each part, and its ids some at a time."""
        (tokenizer, kept), dtype = self._trained, self.dtype
        for name, part in self._parts.items():
            self._meter.begin("tokens", part.chars)
            if name == "train" and kept is not None:
                found = self._watched(kept, part.chars)
            else:
                found = tokenizer.encode_all(CountedDocuments(part.documents, self._meter).chunks())
            yield name, (ids.astype(dtype) for ids in found)

    def _watched(self, kept: CachedIds, chars: int) -> Iterator[Stream]:
        """What was kept, while the meter moves: a character is worth the same share of tokens."""
        for ids in kept:
            yield ids
            self._meter.add(len(ids) * chars // max(1, len(kept)))


def _kept(parts: Iterable[Stream], dtype: np.dtype[Any], reader: Reader) -> Stream:
    """Ids in memory while they are few, else in a temporary file."""
    held, size, parts = [np.empty(0, dtype)], 0, iter(parts)
    while size <= reader.limits.memory:
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
        corpus.sha256,
        _without_names(corpus.split),
        tokenizer_name,
        dataclasses.asdict(settings),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _without_names(split: SplitRecord) -> dict[str, Any]:
    record = split.to_json()
    for part in ("valid", "test"):
        record[part] = record[part] and record[part]["sha256"]
    return record


def _save(encoder: _Encoder, entry: Path) -> bool:
    """Write a cache entry whole or not at all; whether it is there now."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _sweep(entry.parent)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            checksums = {
                name: _write_stream(new / f"{name}.npy", ids, encoder.dtype)
                for name, ids in encoder.streams()
            }
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


def _write_stream(path: Path, parts: Iterable[Stream], dtype: np.dtype[Any]) -> int:
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
        streams = {name: _load_stream(entry, name, n) for name, n in about["checksums"].items()}
        return TokenizedCorpus(tokenizer, streams["train"], streams["valid"], streams.get("test"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _load_stream(entry: Path, name: str, expected: int) -> Stream:
    path = entry / f"{name}.npy"
    stream = np.load(path, mmap_mode="r", allow_pickle=False)
    checksum = 0
    with path.open("rb") as file:  # not through the map: what is read there stays in memory
        file.seek(stream.offset)
        while data := file.read(_STEP):
            checksum = zlib.crc32(data, checksum)
    if checksum != expected:
        raise ValueError("the checksum differs")
    ids: Stream = stream
    return ids
