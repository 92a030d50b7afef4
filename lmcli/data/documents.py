"""Documents of text, each read from the start state: where they lie, not what is in them.

**In:** `DocumentOffsets`: places in texts.
**Out:** `Documents`, a sequence of texts that are read when they are asked for; and `Chunk`es, the
same pieces end to end, about a window at a time, for those who read all of them.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from lmcli.data.texts import ProgressCounter, Text, last_whole
from lmcli.tokenizers.base import SAFE_SPLIT, Chunk, chunks_of

Offsets = npt.NDArray[np.int64]

_FAR = 1 << 16  # bytes between two pieces that are not worth reading
_MANY = 1 << 16  # pieces looked at together
_LONGEST = 64  # windows read in search of a seam


@dataclass(frozen=True)
class DocumentOffsets:
    """Places of pieces in one text, in bytes and ascending; each piece is followed by `ending`.

    Where as many bytes as the ending has are between two pieces, they are the ending.
    """

    text: Text
    begins: Offsets
    lengths: npt.NDArray[np.integer[Any]]
    ending: str = ""

    def chosen(self, which: npt.NDArray[np.bool_]) -> DocumentOffsets:
        """Some of them."""
        return DocumentOffsets(self.text, self.begins[which], self.lengths[which], self.ending)

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

    def chunks(self) -> Iterator[Chunk]:
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

    def _short(self, begins: Offsets, ends: Offsets) -> Chunk:
        """Documents that fit into a window together."""
        first, ending = int(begins[0]), self.ending.encode()
        data = self.text.read(first, int(ends[-1]))
        starts = begins - first
        if np.any(begins[1:] != ends[:-1] + len(ending)):  # something between them is left out
            stops = (ends - first).tolist()
            cut = [data[a:b] for a, b in zip(starts.tolist(), stops, strict=True)]
            data = ending.join(cut)
            starts = np.cumsum([0, *(len(part) + len(ending) for part in cut[:-1])])
        data += ending
        return Chunk(self.text.decode(data, first), character_places(data, starts))

    def _long(self, begin: int, end: int) -> Iterator[Chunk]:
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
            yield Chunk(text if begin < end else text + self.ending, begins)
            begins, window = begins[:0], self.text.window


def _last_seam(text: str) -> int:
    """Where the text's last seam is, 0 if it has none."""
    for tail in (1 << 10, 1 << 16, len(text)):
        seams = [found.start() for found in SAFE_SPLIT.finditer(text, max(0, len(text) - tail))]
        if seams:
            return seams[-1]
    return 0


class Documents(Sequence[str]):
    """Documents of text, read from where they lie each time they are asked for."""

    def __init__(self, spans: Iterable[DocumentOffsets], chars: int) -> None:
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
        for stretch in self.chunks():
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

    def chunks(self) -> Iterator[Chunk]:
        """All of them end to end, about a window at a time."""
        for spans in self.spans:
            yield from spans.chunks()


class CountedDocuments:
    """Documents whose reader moves a meter."""

    def __init__(self, pieces: Iterable[str], meter: ProgressCounter) -> None:
        self._pieces, self._meter = pieces, meter

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._meter.add(len(piece))
            yield piece

    def chunks(self) -> Iterator[Chunk]:
        """Those of the pieces; each reading moves the meter from the beginning."""
        self._meter.done = 0
        for stretch in chunks_of(self._pieces):
            yield stretch
            self._meter.add(len(stretch.text))


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
