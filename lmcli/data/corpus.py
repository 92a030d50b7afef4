"""Texts from anywhere, cut into a training, a validation and a test part.

**In:** TEXT arguments (files, globs, folders, ``-``, compressed files, fsspec URLs) and options.
**Out:** a `Corpus`: the parts, a sha256 of the content, a record of the split.

A text is read once to see what it is and where it is to be cut. What stays in memory is where the
pieces of each part lie; the pieces are read when they are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmcli.data.cutting import BLOCK, Digest, Segments, cut_blocks, scan
from lmcli.data.documents import DocumentOffsets, Documents, Offsets
from lmcli.data.locating import find_texts
from lmcli.data.reading import Reader, TextOptions, open_texts
from lmcli.errors import TextError
from lmcli.tokenizers.base import chunks_of

MINIMUM_CHARACTERS = 400
CYCLE = 20  # of so many blocks one goes to each held-out part
HELD_OUT = (9, 10)  # which ones: the beginning of a text stays in training

_STEP = 1 << 20  # units labelled at a time
_EXCERPTS = 64  # from places evenly spread, where pieces are too long to be taken whole

Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Split:
    """One part of a corpus; each piece begins from the start state."""

    documents: Sequence[str]

    @cached_property
    def chars(self) -> int:
        """Unicode characters."""
        if isinstance(self.documents, Documents):
            return self.documents.chars
        return sum(map(len, self.documents))

    @cached_property
    def bytes(self) -> int:
        """Bytes in UTF-8."""
        texts = (stretch.text for stretch in chunks_of(self.documents))
        return sum(len(t) if t.isascii() else len(t.encode("utf-8", "replace")) for t in texts)

    @cached_property
    def words(self) -> int:
        """What stands between white space."""
        count, inside = 0, False  # whether the text so far ends within a piece's word
        for stretch in chunks_of(self.documents):
            rest, *texts = stretch.texts()
            count += len(rest.split()) - (inside and rest[:1].strip() != "")
            count += sum(len(text.split()) for text in texts)
            inside = stretch.text[-1:].strip() != ""
        return count

    def sample(self, chars: int) -> Split:
        """The part itself, or evenly spread pieces of a bigger one, so many characters in all.

        Documents that are too long are cut into excerpts. A sample is held in memory.
        """
        if self.chars <= chars or not isinstance(self.documents, Documents):
            return self
        wanted = len(self.documents) * chars // self.chars
        if wanted < _EXCERPTS:
            return Split(self.documents.excerpts(_EXCERPTS, chars // _EXCERPTS))
        places = np.arange(wanted) * len(self.documents) // wanted
        return Split(tuple(self.documents[i] for i in places.tolist()))


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
    train: Split
    valid: Split
    test: Split | None
    split: SplitRecord

    def checksums(self) -> dict[str, str | None]:
        """Of the text, and of what was held out in files of its own."""
        valid, test = self.split.valid, self.split.test
        return {
            "sha256": self.sha256,
            "valid_sha256": valid.sha256 if valid else None,
            "test_sha256": test.sha256 if test else None,
        }


def load_corpus(
    texts: Sequence[str],
    options: TextOptions,
    split: Literal["interleaved", "tail"] = "interleaved",
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    reader: Reader | None = None,
) -> Corpus:
    """Read and split. Parts given as files are taken whole and not cut off TEXT.

    With `valid` alone there is no test part; with `test` alone validation is cut off TEXT.
    """
    reader = reader or Reader()
    names = {"train": find_texts(texts)}
    names |= {name: find_texts(t) for name, t in (("valid", valid), ("test", test)) if t}
    apart = len(names) > 1
    scanned = {name: _Scanned(found, options, reader, apart) for name, found in names.items()}
    if apart:
        _check_apart(list(scanned.values()))
    wanted = () if valid else ("valid",) if test else ("valid", "test")
    parts, block = _split(scanned["train"].units, split, wanted)
    for name in list(names)[1:]:
        parts[name] = _whole(scanned[name].units)
    held_out = [scanned[n].record() if n in scanned else None for n in ("valid", "test")]
    record = SplitRecord(split, block, options, *held_out)
    sha256 = scanned["train"].sha256
    held_out_parts = parts["valid"], parts.get("test")
    return Corpus(tuple(names["train"]), sha256, parts["train"], *held_out_parts, record)


class _Scanned:
    """Files that have been read once."""

    def __init__(self, names: list[str], options: TextOptions, reader: Reader, apart: bool) -> None:
        digest = Digest()
        self.names = names
        self.units: list[Segments] = []
        self.checksums: list[str] = []
        """of each file alone; left out where nobody asks"""
        for text in open_texts(names, options, reader):
            own = Digest() if apart else None
            reader.meter.begin("reading", text.size)
            self.units.append(scan(text, options.documents, digest, own, reader.meter))
            self.checksums += [own.hexdigest()] if own else []
        self.sha256 = digest.hexdigest()

    def record(self) -> HeldOut:
        """What is kept of a part that came from files of its own."""
        return HeldOut(tuple(self.names), self.sha256)


def _check_apart(parts: Sequence[_Scanned]) -> None:
    """A file in two parts would be trained and tested on; compared by content."""
    seen: dict[str, tuple[int, str]] = {}
    for part, files in enumerate(parts):
        for file, checksum in zip(files.names, files.checksums, strict=True):
            owner, name = seen.setdefault(checksum, (part, file))
            if owner != part:
                raise TextError(
                    f"the same text is in two parts: '{name}' and '{file}'",
                    "training, validation and test texts must differ: leave it out of one",
                )


def _split(
    units: list[Segments], split: str, wanted: Sequence[str]
) -> tuple[dict[str, Split], int]:
    """The parts cut off the documents, by name, and the block size. Takes the units away."""
    if not wanted:
        return {"train": _whole(units)}, 0
    total = sum(int(u.chars.sum(dtype=np.int64)) for u in units)
    if total < MINIMUM_CHARACTERS:
        raise TextError(
            f"the text is too short: {total} characters",
            f"a split needs at least {MINIMUM_CHARACTERS}; or name --valid and --test files",
        )
    size = min(BLOCK, total // (CYCLE if split == "interleaved" else 2 * CYCLE))
    whole = units[0].whole
    if size < BLOCK and not whole:
        units[:] = [cut_blocks(u.spans.text, size) for u in units]
    chars = np.concatenate([u.chars for u in units])
    if split == "tail":
        labels = _tail_labels(chars, total, len(wanted))
    elif whole:
        labels = _group_labels(chars, size, len(wanted))
    else:
        labels = _cycle_labels(np.arange(len(chars)), len(wanted))
    if np.count_nonzero(np.bincount(labels)) <= len(wanted):
        raise TextError(
            f"too few documents for a split: {len(chars) if whole else len(units)}",
            f"a split needs at least {CYCLE} of like size; or name --valid and --test files",
        )
    return _parts(units, labels, ("train", *wanted)), size


def _whole(units: list[Segments]) -> Split:
    """All documents as one part."""
    chars = sum(int(u.chars.sum(dtype=np.int64)) for u in units)
    return Split(Documents([u.documents() for u in units], chars))


def _parts(units: list[Segments], labels: Labels, names: Sequence[str]) -> dict[str, Split]:
    """Segments by label; neighbours among the blocks of one text become one piece."""
    spans: dict[str, list[DocumentOffsets]] = {name: [] for name in names}
    chars = dict.fromkeys(names, 0)
    first = 0
    while units:
        unit = units.pop(0)
        mine = labels[first : first + len(unit.chars)]
        first += len(unit.chars)
        places, kinds = (unit.spans, mine) if unit.whole else _merged(unit.spans, mine)
        for label, name in enumerate(names):
            spans[name].append(places.chosen(kinds == label))
            chars[name] += int(unit.chars[mine == label].sum(dtype=np.int64))
    return {name: Split(Documents(spans[name], chars[name])) for name in names}


def _merged(blocks: DocumentOffsets, labels: Labels) -> tuple[DocumentOffsets, Labels]:
    """Neighbouring blocks with one label as one."""
    firsts = np.flatnonzero(np.diff(labels, prepend=-1))
    begins = blocks.begins[firsts]
    ends = np.append(begins[1:], blocks.begins[-1] + blocks.lengths[-1])
    return DocumentOffsets(blocks.text, begins, ends - begins, blocks.ending), labels[firsts]


def _begins(chars: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[slice, Offsets]]:
    """At which character of all each unit begins, for many units at a time."""
    total = 0
    for first in range(0, len(chars), _STEP):
        some = slice(first, first + _STEP)
        ends = total + np.cumsum(chars[some], dtype=np.int64)
        yield some, ends - chars[some]
        total = int(ends[-1])


def _group_labels(chars: npt.NDArray[np.integer[Any]], size: int, parts: int) -> Labels:
    """Labels of whole documents by block; blocks shrink until there are enough of them."""
    labels = np.zeros(len(chars), np.int8)
    while True:
        group, block = 0, 0
        for some, begins in _begins(chars):
            blocks = begins // size
            groups = group + np.cumsum(np.diff(blocks, prepend=block) > 0, dtype=np.int64)
            labels[some] = _cycle_labels(groups, parts)
            group, block = int(groups[-1]), int(blocks[-1])
        if group + 1 >= CYCLE or size == 1:
            return labels
        size = max(1, size // 2)


def _cycle_labels(blocks: npt.NDArray[np.int64], parts: int) -> Labels:
    """0 for training, then 1, 2 for the held-out parts, from the number of each unit's block."""
    of_place = np.zeros(CYCLE, np.int8)
    of_place[list(HELD_OUT[:parts])] = np.arange(1, parts + 1)
    labels: Labels = of_place[blocks % CYCLE]
    return labels


def _tail_labels(chars: npt.NDArray[np.integer[Any]], total: int, parts: int) -> Labels:
    """0 for training, then 1, 2 for the last parts, from where in the text each unit begins."""
    bounds = [1 - (parts - part) / CYCLE for part in range(parts)]
    labels = np.zeros(len(chars), np.int8)
    for some, begins in _begins(chars):
        labels[some] = np.searchsorted(bounds, begins / total, side="right")
    return labels
