"""A corpus as token ids, kept on disk so that the next training starts at once.

**In:** a `Corpus`, a tokenizer's name and settings, a cache folder or None.
**Out:** the tokenizer, trained on the training part, and a stream of ids for each part: its pieces
end to end, each with the start id before it. From the cache the streams are memory-mapped.

The cache is keyed by content, never by path: edit a text, and its ids are made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import lmcli
from lmcli.corpus import Corpus, SplitRecord
from lmcli.registry import TOKENIZERS
from lmcli.settings import Settings
from lmcli.tokenizers.base import Tokenizer

FORMAT = 1

Stream = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class EncodedCorpus:
    """A tokenizer and what it made of each part: uint16 where all ids fit, else int32."""

    tokenizer: Tokenizer
    train: Stream
    valid: Stream
    test: Stream | None


def cache_folder() -> Path:
    """$LMCLI_CACHE, else $XDG_CACHE_HOME/lmcli, else ~/.cache/lmcli."""
    if own := os.environ.get("LMCLI_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmcli"


def encode_corpus(
    corpus: Corpus, tokenizer_name: str, settings: Settings, cache: Path | None
) -> EncodedCorpus:
    """All parts as ids; `cache` None, unreadable or unwritable means in memory."""
    if cache is None:
        return _encode(corpus, tokenizer_name, settings)
    entry = cache / "encoded" / _key(corpus, tokenizer_name, settings)
    if found := _load(entry, tokenizer_name):
        return found
    made = _encode(corpus, tokenizer_name, settings)
    return (_save(made, entry) and _load(entry, tokenizer_name)) or made


def encode_pieces(tokenizer: Tokenizer, pieces: Iterable[str]) -> Stream:
    """The pieces end to end, each with the start id before it."""
    dtype: type[np.integer[Any]] = np.uint16 if tokenizer.size + 1 < 65536 else np.int32
    start = np.array([tokenizer.start], dtype)
    arrays: list[Stream] = [np.empty(0, dtype)]
    for piece in pieces:
        arrays += [start, tokenizer.encode(piece).astype(dtype)]
    return np.concatenate(arrays)


def _encode(corpus: Corpus, tokenizer_name: str, settings: Settings) -> EncodedCorpus:
    train = corpus.train.pieces
    tokenizer: Tokenizer = TOKENIZERS.load(tokenizer_name).train(train, settings)
    return EncodedCorpus(
        tokenizer,
        encode_pieces(tokenizer, train),
        encode_pieces(tokenizer, corpus.valid.pieces),
        None if corpus.test is None else encode_pieces(tokenizer, corpus.test.pieces),
    )


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


def _save(made: EncodedCorpus, entry: Path) -> bool:
    """Write a cache entry whole or not at all; whether it is there now."""
    streams = {"train": made.train, "valid": made.valid, "test": made.test}
    written = {name: stream for name, stream in streams.items() if stream is not None}
    tokenizer = json.dumps(made.tokenizer.to_json())
    about = {
        "tokenizer": tokenizer,
        "tokenizer_checksum": zlib.crc32(tokenizer.encode()),
        "checksums": {name: zlib.crc32(stream.data) for name, stream in written.items()},
    }
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".new-") as folder:
            new = Path(folder) / "entry"
            new.mkdir()
            (new / "about.json").write_text(json.dumps(about), encoding="utf-8")
            for name, stream in written.items():
                np.save(new / f"{name}.npy", stream, allow_pickle=False)
            shutil.rmtree(entry, ignore_errors=True)  # a damaged one
            new.rename(entry)
    except OSError:
        return False
    return True


def _load(entry: Path, tokenizer_name: str) -> EncodedCorpus | None:
    """A cache entry, or None where there is none or it is damaged."""
    try:
        about = json.loads((entry / "about.json").read_text(encoding="utf-8"))
        if zlib.crc32(about["tokenizer"].encode()) != about["tokenizer_checksum"]:
            return None
        tokenizer = TOKENIZERS.load(tokenizer_name).from_json(json.loads(about["tokenizer"]))
        streams = {name: _load_stream(entry, name, n) for name, n in about["checksums"].items()}
        return EncodedCorpus(tokenizer, streams["train"], streams["valid"], streams.get("test"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _load_stream(entry: Path, name: str, checksum: int) -> Stream:
    stream: Stream = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    if zlib.crc32(stream.data) != checksum:
        raise ValueError("the checksum differs")
    return stream
