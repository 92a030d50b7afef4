"""Texts from anywhere, cut into a training, a validation and a test part.

**In:** TEXT arguments (files, globs, folders, ``-``, compressed files, fsspec URLs) and options.
**Out:** `Document`s, or a `Corpus`: the parts, a sha256 of the content, a record of the split.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmcli.errors import TextError
from lmcli.reading import Document, TextOptions, cut_documents, read_files

MINIMUM_CHARACTERS = 400
BLOCK = 10_000  # characters
CYCLE = 20  # of so many blocks one goes to each held-out part
HELD_OUT = (9, 10)  # which ones: the beginning of a text stays in training

_WORD_STEP = 1 << 20  # characters split into words at a time


@dataclass(frozen=True)
class Part:
    """One part of a corpus; each piece begins from the start state."""

    pieces: tuple[str, ...]

    @cached_property
    def chars(self) -> int:
        """Unicode characters."""
        return sum(map(len, self.pieces))

    @cached_property
    def bytes(self) -> int:
        """Bytes in UTF-8."""
        return sum(
            len(p) if p.isascii() else len(p.encode("utf-8", "replace")) for p in self.pieces
        )

    @cached_property
    def words(self) -> int:
        """What stands between white space."""
        return sum(map(_count_words, self.pieces))


@dataclass(frozen=True)
class HeldOut:
    """A part that came from files of its own."""

    names: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """All that is needed to split the same text the same way again."""

    kind: Literal["interleaved", "tail"]
    block: int
    options: TextOptions
    valid: HeldOut | None = None
    test: HeldOut | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SplitRecord:
        """The record that to_json was called on."""
        held_out = [
            given and HeldOut(tuple(given["names"]), given["sha256"])
            for given in (data["valid"], data["test"])
        ]
        return cls(data["kind"], data["block"], TextOptions(**data["options"]), *held_out)


@dataclass(frozen=True)
class Corpus:
    """A text in parts. `sha256` is over the content of TEXT, never over paths."""

    names: tuple[str, ...]
    sha256: str
    train: Part
    valid: Part
    test: Part | None
    split: SplitRecord


def load_corpus(
    texts: Sequence[str],
    options: TextOptions,
    split: Literal["interleaved", "tail"] = "interleaved",
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
) -> Corpus:
    """Read and split. Parts given as files are taken whole and not cut off TEXT.

    With `valid` alone there is no test part; with `test` alone validation is cut off TEXT.
    """
    files = read_files(texts, options)
    valid_files = read_files(valid, options) if valid else []
    test_files = read_files(test, options) if test else []
    if valid or test:
        _check_apart(files, valid_files, test_files)
    wanted = () if valid else ("valid",) if test else ("valid", "test")
    documents = cut_documents(files, options)
    parts, block = _split(documents, options, split, wanted)
    record = SplitRecord(
        split, block, options, _held_out(valid_files, options), _held_out(test_files, options)
    )
    for name, given in (("valid", valid_files), ("test", test_files)):
        if given:
            parts[name] = Part(tuple(d.text for d in cut_documents(given, options)))
    names = tuple(file.name for file in files)
    sha256 = _sha256(documents)
    return Corpus(names, sha256, parts["train"], parts["valid"], parts.get("test"), record)


def _split(
    documents: list[Document], options: TextOptions, split: str, wanted: Sequence[str]
) -> tuple[dict[str, Part], int]:
    """The parts cut off the documents, by name, and the block size."""
    if not wanted:
        return {"train": Part(tuple(d.text for d in documents))}, 0
    total = sum(len(d.text) for d in documents)
    if total < MINIMUM_CHARACTERS:
        raise TextError(
            f"the text is too short: {total} characters",
            f"a split needs at least {MINIMUM_CHARACTERS}; or name --valid and --test files",
        )
    size = min(BLOCK, total // (CYCLE if split == "interleaved" else 2 * CYCLE))
    whole = options.documents != "file"
    units = [
        (owner, text)
        for owner, document in enumerate(documents)
        for text in ([document.text] if whole else _blocks(document.text, size))
    ]
    begins = np.cumsum([0, *(len(text) for _, text in units)])[:-1]
    if split == "tail":
        labels = _tail_labels(begins / total, len(wanted))
    else:
        blocks = _groups(begins, size) if whole else np.arange(len(units))
        labels = _cycle_labels(blocks, len(wanted))
    if len(set(labels.tolist())) <= len(wanted):
        raise TextError(
            f"too few documents for a split: {len(documents)}",
            f"a split needs at least {CYCLE} of like size; or name --valid and --test files",
        )
    return _parts(units, labels.tolist(), ("train", *wanted)), size


def _parts(
    units: list[tuple[int, str]], labels: list[int], names: Sequence[str]
) -> dict[str, Part]:
    """Units (owner, text) by label; neighbours of one owner in one part become one piece."""
    pieces: dict[str, list[str]] = {name: [] for name in names}
    labelled = zip(units, labels, strict=True)
    for (_, label), run in groupby(labelled, key=lambda pair: (pair[0][0], pair[1])):
        pieces[names[label]].append("".join(text for (_, text), _ in run))
    return {name: Part(tuple(texts)) for name, texts in pieces.items()}


def _blocks(text: str, size: int) -> Iterator[str]:
    """The text in blocks of at most `size`, cut behind a line end, else before a blank."""
    begin = 0
    while begin < len(text):
        end = begin + size
        if end < len(text):
            least = begin + (size + 1) // 2
            end = text.rfind("\n", least, end) + 1 or max(0, text.rfind(" ", least, end)) or end
        yield text[begin:end]
        begin = end


def _groups(begins: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Whole documents numbered by block; blocks shrink until there are enough of them."""
    while True:
        groups = np.cumsum(np.diff(begins // size, prepend=0) > 0, dtype=np.int64)
        if groups[-1] + 1 >= CYCLE or size == 1:
            return groups
        size = max(1, size // 2)


def _cycle_labels(blocks: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.int64]:
    """0 for training, then 1, 2 for the held-out parts, from the number of each unit's block."""
    labels = np.zeros(len(blocks), np.int64)
    for label, place in enumerate(HELD_OUT[:parts], 1):
        labels[blocks % CYCLE == place] = label
    return labels


def _tail_labels(begins: npt.NDArray[np.float64], parts: int) -> npt.NDArray[np.int64]:
    """0 for training, then 1, 2 for the last parts, from where in the text each unit begins."""
    bounds = [1 - (parts - part) / CYCLE for part in range(parts)]
    return np.searchsorted(bounds, begins, side="right")


def _sha256(documents: Iterable[Document]) -> str:
    """Of one document the sha256 of its UTF-8 bytes; several are kept apart by a zero byte."""
    text = "\0".join(document.text for document in documents)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _held_out(files: list[Document], options: TextOptions) -> HeldOut | None:
    if not files:
        return None
    return HeldOut(tuple(f.name for f in files), _sha256(cut_documents(files, options)))


def _check_apart(*parts: list[Document]) -> None:
    """A file in two parts would be trained and tested on; compared by content."""
    seen: dict[str, tuple[int, str]] = {}
    for part, files in enumerate(parts):
        for file in files:
            owner, name = seen.setdefault(_sha256([file]), (part, file.name))
            if owner != part:
                raise TextError(
                    f"the same text is in two parts: '{name}' and '{file.name}'",
                    "training, validation and test texts must differ: leave it out of one",
                )


def _count_words(text: str) -> int:
    count = 0
    for begin in range(0, len(text), _WORD_STEP):
        step = text[begin : begin + _WORD_STEP]
        cut = begin > 0 and not (text[begin - 1].isspace() or step[0].isspace())
        count += len(step.split()) - cut
    return count
