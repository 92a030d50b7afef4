"""Pieces of text, each read from the start state: where they lie, not what is in them.

**In:** `Spans`: places in texts.
**Out:** `Pieces`, a sequence of texts that are read when they are asked for; and `Stretch`es, the
same pieces end to end, about a window at a time, for those who read all of them.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from lmcli.texts import Limits, Meter, Text, last_whole

Offsets = npt.NDArray[np.int64]

_SEAM = re.compile(r"(?<=\S)(?=[ \n]\S)")  # no tokenizer looks across such a place
_FAR = 1 << 16  # bytes between two pieces that are not worth reading
_MANY = 1 << 16  # pieces looked at together
_LONGEST = 64  # windows read in search of a seam


@dataclass(frozen=True)
class Stretch:
    """Pieces end to end, and the characters at which one begins.

    A text in front of the first begin goes on with the last piece of the stretch before; it was
    cut at a seam, where a word ends and a single blank or line end follows.
    """

    text: str
    begins: Offsets

    def texts(self) -> list[str]:
        """The pieces one by one; the first may be the rest of one begun before, or nothing."""
        edges = [0, *self.begins.tolist(), len(self.text)]
        return [self.text[a:b] for a, b in pairwise(edges)]

    def empty_at_end(self) -> int:
        """How many pieces begin behind the last character."""
        return int(np.count_nonzero(self.begins == len(self.text)))

    def lines(self) -> Iterator[Stretch]:
        """The same in parts within which a piece begins behind a line end and nowhere else."""
        edges = self.begins.tolist()
        text = self.text
        cuts = [i for i, begin in enumerate(edges) if begin and text[begin - 1] != "\n"]
        first = 0
        for low, high in pairwise([0, *cuts, len(edges)]):
            begin = edges[low] if first else 0
            end = edges[high] if high < len(edges) else len(text)
            yield Stretch(text[begin:end], self.begins[low:high] - begin)
            first = 1


@dataclass(frozen=True)
class Spans:
    """Places of pieces in one text, in bytes and ascending; each piece is followed by `ending`.

    Where as many bytes as the ending has are between two pieces, they are the ending.
    """

    text: Text
    begins: Offsets
    lengths: npt.NDArray[np.integer[Any]]
    ending: str = ""

    def chosen(self, which: npt.NDArray[np.bool_]) -> Spans:
        """Some of them."""
        return Spans(self.text, self.begins[which], self.lengths[which], self.ending)

    def piece(self, number: int) -> str:
        """One piece."""
        begin = int(self.begins[number])
        data = self.text.read(begin, begin + int(self.lengths[number]))
        return self.text.decode(data, begin) + self.ending

    def excerpt(self, place: int, reach: int, chars: int) -> str:
        """So many characters of one piece, within so many bytes, behind a line end if there is one.

        The place counts bytes of all pieces end to end.
        """
        ends = np.cumsum(self.lengths, dtype=np.int64)
        number = int(np.searchsorted(ends, place, "right"))
        stop = int(self.begins[number] + self.lengths[number])
        begin = stop - (int(ends[number]) - place)
        data = self.text.read(begin, min(stop, begin + reach))
        skipped = next((i for i in range(min(4, len(data))) if data[i] & 0xC0 != 0x80), 0)
        whole = begin + len(data) == stop
        data = data[skipped : len(data) if whole else last_whole(data)]
        text = self.text.decode(data, begin + skipped)
        line = text.find("\n", 0, chars) + 1
        text = text[line : line + chars]
        return text[: text.rfind("\n") + 1] or text

    def stretches(self) -> Iterator[Stretch]:
        """All pieces, about a window at a time."""
        for first in range(0, len(self.begins), _MANY):
            begins = self.begins[first : first + _MANY]
            ends = begins + self.lengths[first : first + _MANY]
            far = np.flatnonzero(begins[1:] - ends[:-1] > _FAR) + 1
            low = 0
            while low < len(begins):
                within = int(np.searchsorted(ends, begins[low] + self.text.window, "right"))
                later = far[np.searchsorted(far, low, "right") :][:1].tolist()
                high = min([max(within, low + 1), *later])
                if ends[low] - begins[low] > self.text.window:
                    yield from self._long(int(begins[low]), int(ends[low]))
                else:
                    yield self._short(begins[low:high], ends[low:high])
                low = high

    def _short(self, begins: Offsets, ends: Offsets) -> Stretch:
        """Pieces that fit into a window together."""
        first, ending = int(begins[0]), self.ending.encode()
        data = self.text.read(first, int(ends[-1]))
        starts = begins - first
        if np.any(begins[1:] != ends[:-1] + len(ending)):  # something between them is left out
            stops = (ends - first).tolist()
            cut = [data[a:b] for a, b in zip(starts.tolist(), stops, strict=True)]
            data = ending.join(cut)
            starts = np.cumsum([0, *(len(part) + len(ending) for part in cut[:-1])])
        data += ending
        return Stretch(self.text.decode(data, first), character_places(data, starts))

    def _long(self, begin: int, end: int) -> Iterator[Stretch]:
        """One piece in parts that are cut at seams, or anywhere if there are none far and wide."""
        begins = np.zeros(1, np.int64)
        window = self.text.window
        while begin < end:
            stop = min(begin + window, end)
            data = self.text.read(begin, stop)
            if stop < end:
                data = data[: last_whole(data)]
            text = self.text.decode(data, begin)
            if stop < end and window < _LONGEST * self.text.window:
                seam = _last_seam(text)
                if not seam:
                    window *= 2
                    continue
                text = text[:seam]
                data = text.encode("utf-8", "surrogatepass")
            begin += len(data)
            yield Stretch(text if begin < end else text + self.ending, begins)
            begins, window = begins[:0], self.text.window


def _last_seam(text: str) -> int:
    """Where the text's last seam is, 0 if it has none."""
    for tail in (1 << 10, 1 << 16, len(text)):
        seams = [found.start() for found in _SEAM.finditer(text, max(0, len(text) - tail))]
        if seams:
            return seams[-1]
    return 0


class Pieces(Sequence[str]):
    """Pieces of text, read from where they lie each time they are asked for."""

    def __init__(self, spans: Iterable[Spans], chars: int) -> None:
        self.spans = tuple(s for s in spans if len(s.begins))
        self.chars = chars
        """characters in all"""
        self._firsts = np.cumsum([0, *(len(s.begins) for s in self.spans)]).tolist()

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        owner = bisect.bisect_right(self._firsts, number) - 1
        return self.spans[owner].piece(number - self._firsts[owner])

    def __iter__(self) -> Iterator[str]:
        held: list[str] = []
        for stretch in self.stretches():
            rest, *texts = stretch.texts()
            held.append(rest)
            if texts:
                yield from ["".join(held)] if any(held) else []
                yield from texts[:-1]
                held = [texts[-1]]
        yield from ["".join(held)] if held else []

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[str]) -> tuple[str, ...]:
        return (*self, *other)

    def __radd__(self, other: Iterable[str]) -> tuple[str, ...]:
        return (*other, *self)

    def excerpts(self, count: int, chars: int) -> tuple[str, ...]:
        """Texts of at most so many characters from evenly spread places, no character twice.

        They are whole lines where there are any; where a piece ends, the excerpt ends with it.
        """
        found = []
        sizes = [int(s.lengths.sum(dtype=np.int64)) for s in self.spans]
        edges = np.cumsum([0, *sizes])
        reach = min(int(edges[-1]) // count, 8 * chars)
        for place in (np.arange(count) * edges[-1] // count).tolist():
            owner = int(np.searchsorted(edges, place, "right")) - 1
            found.append(self.spans[owner].excerpt(place - int(edges[owner]), reach, chars))
        return tuple(text for text in found if text)

    def stretches(self) -> Iterator[Stretch]:
        """All of them end to end, about a window at a time."""
        for spans in self.spans:
            yield from spans.stretches()


class Metered:
    """Pieces whose reader moves a meter."""

    def __init__(self, pieces: Iterable[str], meter: Meter) -> None:
        self._pieces, self._meter = pieces, meter

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._meter.add(len(piece))
            yield piece

    def stretches(self) -> Iterator[Stretch]:
        """Those of the pieces; each reading moves the meter from the beginning."""
        self._meter.done = 0
        for stretch in stretches_of(self._pieces):
            yield stretch
            self._meter.add(len(stretch.text))


def stretches_of(pieces: Iterable[str]) -> Iterator[Stretch]:
    """Any pieces end to end, many small ones at a time."""
    if isinstance(pieces, Pieces | Metered):
        yield from pieces.stretches()
        return
    held: list[str] = []
    chars = 0
    for piece in pieces:
        held.append(piece)
        chars += len(piece)
        if chars >= Limits.window:
            yield _joined(held)
            held, chars = [], 0
    if held:
        yield _joined(held)


def _joined(pieces: list[str]) -> Stretch:
    begins = np.cumsum([0, *map(len, pieces[:-1])], dtype=np.int64)
    return Stretch("".join(pieces), begins)


def character_places(data: bytes, places: Offsets) -> Offsets:
    """How many characters of UTF-8 begin in front of each of some places.

    >>> character_places("aéb".encode(), np.array([0, 1, 3, 4])).tolist()
    [0, 1, 2, 3]
    """
    if data.isascii():
        return places
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    counts = np.cumsum(begins, dtype=np.int64)
    return np.where(places > 0, counts[np.maximum(places, 1) - 1], 0)
