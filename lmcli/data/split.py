"""Documents -> a training, a validation and a test part, always the same ones.

**In:** `DocumentOffsets` of each text: its documents, or the blocks of a text that is one document.
**Out:** a `Split` for each part; a text that is too short for them is a TextError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmcli.data.documents import BLOCK, DocumentOffsets, Documents, find_offsets
from lmcli.errors import TextError
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import Ids, Offsets

MINIMUM_CHARACTERS = 400
CYCLE = 20  # of this many blocks one goes to each held-out part
HELD_OUT = (9, 10)  # which ones
ROTATIONS = 9
"""ways to hold out other blocks, of which none holds out the beginning of a text"""

_STEP = 1 << 20  # documents labelled at a time
_EXCERPTS = 64  # from places evenly spread, where documents are too long to be taken whole

Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Split:
    """One part of a corpus; each document begins from the start state."""

    documents: Sequence[str]

    @cached_property
    def chars(self) -> int:
        """Unicode characters."""
        if isinstance(self.documents, Documents):
            return self.documents.chars
        return sum(map(len, self.documents))

    def sample(self, chars: int) -> Split:
        """The part itself, or about `chars` characters of a bigger one, evenly spread.

        Documents that are too long are cut into excerpts. A sample is held in memory.
        """
        if self.chars <= chars or not isinstance(self.documents, Documents):
            return self
        wanted = len(self.documents) * chars // self.chars
        if wanted < _EXCERPTS:
            return Split(self.documents.excerpts(_EXCERPTS, chars // _EXCERPTS))
        places = np.arange(wanted) * len(self.documents) // wanted
        return Split(tuple(self.documents[i] for i in places.tolist()))


def split_documents(
    texts: list[DocumentOffsets],
    blocks: bool,
    kind: str,
    names: Sequence[str],
    rotation: int = 0,
) -> dict[str, Split]:
    """The parts of these names, the first of them for training. Empties the list of texts.

    `blocks` says that a text is one document in blocks. `kind` is "interleaved" or "tail". Each
    `rotation` of an interleaved split holds out other blocks.
    """
    if len(names) == 1:
        return {names[0]: Split(whole(texts, blocks))}
    total = sum(int(t.chars.sum(dtype=np.int64)) for t in texts)
    if total < MINIMUM_CHARACTERS:
        raise TextError(
            f"the text is too short: {total} characters",
            f"a split needs at least {MINIMUM_CHARACTERS}; or name --valid and --test files",
        )
    size = min(BLOCK, total // (CYCLE if kind == "interleaved" else 2 * CYCLE))
    if size < BLOCK and blocks:
        texts[:] = [find_offsets(t.text, "file", ProgressCounter(), block=size) for t in texts]
    chars = np.concatenate([t.chars for t in texts])
    held_out = len(names) - 1
    places = held_out_places(rotation)[:held_out]
    if kind == "tail":
        labels = _tail_labels(chars, total, held_out)
    elif blocks:
        labels = _cycle_labels(np.arange(len(chars)), places)
    else:
        labels = _group_labels(chars, size, places)
    if np.count_nonzero(np.bincount(labels)) < len(names):
        raise TextError(
            f"too few documents for a split: {len(texts) if blocks else len(chars)}",
            f"a split needs at least {CYCLE} of like size; or name --valid and --test files",
        )
    return _parts(texts, blocks, labels, names)


def whole(texts: list[DocumentOffsets], blocks: bool) -> Documents:
    """All documents; `blocks` says that a text is one document in blocks."""
    first = np.zeros(1, np.int64)
    return Documents([t.merge(first) if blocks else t for t in texts])


def _parts(
    texts: list[DocumentOffsets], blocks: bool, labels: Labels, names: Sequence[str]
) -> dict[str, Split]:
    """Documents by label; neighbouring blocks of a text with one label become one document."""
    parts: dict[str, list[DocumentOffsets]] = {name: [] for name in names}
    while texts:
        text = texts.pop(0)
        mine, labels = labels[: len(text.begins)], labels[len(text.begins) :]
        if blocks:
            firsts = np.flatnonzero(np.diff(mine, prepend=-1))
            text, mine = text.merge(firsts), mine[firsts]
        for label, name in enumerate(names):
            parts[name].append(text.select(mine == label))
    return {name: Split(Documents(parts[name])) for name in names}


def _begins(chars: Ids) -> Iterator[tuple[slice, Offsets]]:
    """At which character of all each document begins, for many documents at a time."""
    total = 0
    for first in range(0, len(chars), _STEP):
        some = slice(first, first + _STEP)
        ends = total + np.cumsum(chars[some], dtype=np.int64)
        yield some, ends - chars[some]
        total = int(ends[-1])


def _group_labels(chars: Ids, size: int, places: Sequence[int]) -> Labels:
    """Labels of whole documents by block; blocks shrink until there are enough of them."""
    labels = np.zeros(len(chars), np.int8)
    while True:
        group, block = 0, 0
        for some, begins in _begins(chars):
            blocks = begins // size
            groups = group + np.cumsum(np.diff(blocks, prepend=block) > 0, dtype=np.int64)
            labels[some] = _cycle_labels(groups, places)
            group, block = int(groups[-1]), int(blocks[-1])
        if group + 1 >= CYCLE or size == 1:
            return labels
        size = max(1, size // 2)


def held_out_places(rotation: int) -> tuple[int, ...]:
    """Which of `CYCLE` blocks are held out: those of another rotation are none of these.

    >>> [held_out_places(r) for r in (0, 1, 4, 5, 8, 9)]
    [(9, 10), (11, 12), (17, 18), (1, 2), (7, 8), (9, 10)]
    """
    shift = 2 * (rotation % ROTATIONS)
    return tuple((place - 1 + shift) % (2 * ROTATIONS) + 1 for place in HELD_OUT)


def _cycle_labels(blocks: Offsets, places: Sequence[int]) -> Labels:
    """0 for training, then 1, 2 for the held-out parts, from the number of each block."""
    of_place = np.zeros(CYCLE, np.int8)
    of_place[list(places)] = np.arange(1, len(places) + 1)
    labels: Labels = of_place[blocks % CYCLE]
    return labels


def _tail_labels(chars: Ids, total: int, held_out: int) -> Labels:
    """0 for training, then 1, 2 for the last parts, from where in the text a document begins."""
    bounds = [1 - (held_out - part) / CYCLE for part in range(held_out)]
    labels = np.zeros(len(chars), np.int8)
    for some, begins in _begins(chars):
        labels[some] = np.searchsorted(bounds, begins / total, side="right")
    return labels
