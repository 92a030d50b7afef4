"""Documents of a text, each read from the start state: where they lie, not what is in them.

**In:** a `Text` and what a document is: the whole file, a line, a paragraph.
**Out:** `DocumentOffsets`: arrays of byte offsets; `Documents`: a sequence of texts, each read from
its file when it is taken, or all of them end to end as `Chunk`s.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from lmcli.data.text import Digest, Text, last_whole
from lmcli.errors import TextError
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import SAFE_SPLIT, Chunk, Ids, Offsets

BLOCK = 10_000  # characters
ENDINGS = {"file": "", "line": "\n", "paragraph": "\n\n"}
"""what a document ends in, whatever follows it in the text"""

_FAR = 1 << 16  # bytes between two documents that are not worth reading
_MANY = 1 << 16  # documents looked at together
_LONGEST = 64  # windows read in search of a safe split point
_TAILS = (1 << 12, 1 << 18)  # last bytes of a window in which one is looked for first
_BLANK_BYTES = (*range(9, 14), *range(28, 33), 0xC2, 0xE1, 0xE2, 0xE3)
_MAY_BE_BLANK = np.isin(np.arange(256), _BLANK_BYTES)
"""of the first byte of a line: white space, or the first of several bytes that are"""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DocumentOffsets:
    """Where the documents of one text lie, or the blocks of one: bytes, ascending.

    Each is followed by `ending`. Where two documents are as many bytes apart as the ending has,
    these bytes are the ending. `chars` counts the characters of each, its ending included.
    """

    text: Text
    begins: Offsets
    lengths: Ids
    chars: Ids
    ending: str = ""

    def select(self, which: Flags) -> DocumentOffsets:
        """Some of them."""
        begins, lengths, chars = self.begins[which], self.lengths[which], self.chars[which]
        return DocumentOffsets(self.text, begins, lengths, chars, self.ending)

    def merge(self, firsts: Offsets) -> DocumentOffsets:
        """Blocks of one text that follow each other as larger ones, which begin with `firsts`."""
        ends = np.append(firsts[1:], len(self.begins)) - 1
        begins = self.begins[firsts]
        lengths = self.begins[ends] + self.lengths[ends] - begins
        chars = np.add.reduceat(self.chars, firsts, dtype=np.int64)
        return DocumentOffsets(self.text, begins, lengths, chars, self.ending)

    def names(self) -> Iterator[str]:
        """``file:line`` of each document."""
        line, place = 1, 0
        for begin in self.begins.tolist():
            line += self.text.read(place, begin).count(b"\n")
            place = begin
            yield f"{self.text.name}:{line}"

    def document(self, number: int) -> str:
        """One document."""
        begin = int(self.begins[number])
        data = self.text.read(begin, begin + int(self.lengths[number]))
        return self.text.decode(data, begin) + self.ending

    def excerpt(self, place: int, reach: int, chars: int) -> str:
        """At most `chars` characters from `reach` bytes of one document; whole lines if any.

        The place counts bytes of all documents end to end.
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
        """All documents end to end, about a window at a time."""
        for place, data, starts in self.byte_chunks():
            yield Chunk(self.text.decode(data, place), character_offsets(data, starts))

    def byte_chunks(self) -> Iterator[tuple[int, bytes, Offsets]]:
        """The same as bytes: where they begin in the text, and at which of them documents begin."""
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

    def _short(self, begins: Offsets, ends: Offsets) -> tuple[int, bytes, Offsets]:
        """Documents that fit into a window together."""
        first, ending = int(begins[0]), self.ending.encode()
        data = self.text.read(first, int(ends[-1]))
        starts = begins - first
        if np.any(begins[1:] != ends[:-1] + len(ending)):  # bytes between them are left out
            stops = (ends - first).tolist()
            cut = [data[a:b] for a, b in zip(starts.tolist(), stops, strict=True)]
            data = ending.join(cut)
            starts = np.cumsum([0, *(len(part) + len(ending) for part in cut[:-1])])
        return first, data + ending, starts

    def _long(self, begin: int, end: int) -> Iterator[tuple[int, bytes, Offsets]]:
        """One document, cut at safe split points, or anywhere if there are none far and wide."""
        starts = np.zeros(1, np.int64)
        window = self.text.window
        while begin < end:
            stop = min(begin + window, end)
            data = self.text.read(begin, stop)
            if stop < end:
                data = data[: last_whole(data)]
                if window < _LONGEST * self.text.window:
                    cut = self._last_safe_split(data, begin)
                    if not cut:
                        window *= 2
                        continue
                    data = data[:cut]
            place, begin = begin, begin + len(data)
            yield place, data if begin < end else data + self.ending.encode(), starts
            starts, window = starts[:0], self.text.window

    def _last_safe_split(self, data: bytes, begin: int) -> int:
        """The last byte before which the data can be cut, 0 if there is none."""
        for size in (*_TAILS, len(data)):
            first = max(0, len(data) - size)
            while data[first] & 0xC0 == 0x80:
                first += 1
            text = self.text.decode(data[first:], begin + first)
            places = [match.start() for match in SAFE_SPLIT.finditer(text)]
            if places:
                return len(data) - len(text[places[-1] :].encode("utf-8", "surrogatepass"))
        return 0


class Documents(Sequence[str]):
    """Documents of several texts; each is read from where it lies when it is taken."""

    def __init__(self, offsets: Iterable[DocumentOffsets]) -> None:
        self.offsets = tuple(o for o in offsets if len(o.begins))
        self.chars = sum(int(o.chars.sum(dtype=np.int64)) for o in self.offsets)
        """characters in all"""
        self._firsts = np.cumsum([0, *(len(o.begins) for o in self.offsets)]).tolist()

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
        return self.offsets[owner].document(number - self._firsts[owner])

    def __iter__(self) -> Iterator[str]:
        held: list[str] = []
        for chunk in self.chunks():
            rest, *texts = chunk.texts()
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

    def excerpts(self, count: int, chars: int) -> tuple[str, ...]:
        """At most `count` texts of at most `chars` characters, spread evenly, none twice.

        They are whole lines where there are any; an excerpt ends where its document ends.
        """
        texts = []
        sizes = [int(o.lengths.sum(dtype=np.int64)) for o in self.offsets]
        edges = np.cumsum([0, *sizes])
        reach = min(int(edges[-1]) // count, 8 * chars)
        for place in (np.arange(count) * edges[-1] // count).tolist():
            owner = int(np.searchsorted(edges, place, "right")) - 1
            texts.append(self.offsets[owner].excerpt(place - int(edges[owner]), reach, chars))
        return tuple(text for text in texts if text)

    def chunks(self) -> Iterator[Chunk]:
        """All of them end to end, about a window at a time."""
        for offsets in self.offsets:
            yield from offsets.chunks()


def character_offsets(data: bytes, places: Offsets) -> Offsets:
    """How many characters of UTF-8 begin before each of some bytes.

    >>> character_offsets("aéb".encode(), np.array([0, 1, 3, 4])).tolist()
    [0, 1, 2, 3]
    """
    if data.isascii():
        return places
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    counts = np.cumsum(begins, dtype=np.int64)
    return np.where(places > 0, counts[np.maximum(places, 1) - 1], 0)


# ------------------------------------------------------------------ where documents begin and end


def find_offsets(
    text: Text, unit: str, counter: ProgressCounter, digest: Digest | None = None
) -> DocumentOffsets:
    """Where the documents of a text lie: its lines, its paragraphs, or the blocks of a file.

    The digest is updated with the documents, a zero byte between two. A text that is empty or not
    UTF-8 is a TextError.
    """
    segmenter = _Blocks(BLOCK) if unit == "file" else _Lines(unit)
    blank = True
    counter.begin("reading", text.size)
    for begin, data in text.windows():
        decoded = text.decode(data, begin)
        blank = blank and decoded.isspace()
        segmenter.feed(data, decoded)
        if digest and unit == "file":
            digest.update(data, np.arange(1 if begin == 0 else 0))
        counter.add(len(data))
    if blank:
        raise TextError(f"'{text.name}' is empty", "a text needs words in it")
    offsets = segmenter.finish(text)
    if digest and unit != "file":
        for _, data, starts in offsets.byte_chunks():
            digest.update(data, starts)
    return offsets


def cut_blocks(text: Text, size: int) -> DocumentOffsets:
    """A text in blocks of at most `size` characters."""
    blocks = _Blocks(size)
    for begin, data in text.windows():
        blocks.feed(data, text.decode(data, begin))
    return blocks.finish(text)


class _Blocks:
    """Cuts blocks of at most `size` characters, after a line end, else before a blank."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[tuple[Ids, Ids]] = []  # lengths, characters
        self._held = ""  # characters that are in no block yet

    def feed(self, data: bytes, decoded: str) -> None:
        held = self._held + decoded
        begin, blocks = 0, []
        while begin + self._size < len(held):
            end = begin + self._size
            least = begin + (self._size + 1) // 2
            end = held.rfind("\n", least, end) + 1 or max(0, held.rfind(" ", least, end)) or end
            blocks.append(held[begin:end])
            begin = end
        self._held = held[begin:]
        self._add(blocks)

    def finish(self, text: Text) -> DocumentOffsets:
        self._add([self._held] if self._held else [])
        lengths, chars = _joined(self._parts)
        return DocumentOffsets(text, np.cumsum(lengths, dtype=np.int64) - lengths, lengths, chars)

    def _add(self, blocks: list[str]) -> None:
        lengths = [
            len(b) if b.isascii() else len(b.encode("utf-8", "surrogatepass")) for b in blocks
        ]
        self._parts.append((_narrow(lengths), _narrow([len(b) for b in blocks])))


class _Lines:
    """Finds lines that are not blank, or paragraphs, which are runs of such lines."""

    def __init__(self, unit: str) -> None:
        self._paragraphs, self._ending = unit == "paragraph", ENDINGS[unit]
        self._parts: list[tuple[Offsets, Ids, Ids]] = []  # begins, lengths, characters
        self._held: list[bytes] = []  # of a line whose end is still to come
        self._place = 0  # in bytes, of what is held
        self._open: list[int] = []  # begin, end, characters of a paragraph that may go on

    def feed(self, data: bytes, decoded: str) -> None:
        cut = data.rfind(b"\n") + 1
        if cut:
            self._take(b"".join([*self._held, data[:cut]]))
            self._held = []
        self._held.append(data[cut:])

    def finish(self, text: Text) -> DocumentOffsets:
        if rest := b"".join(self._held):
            self._take(rest)
        self._add(*([value] for value in self._open))
        begins, lengths, chars = _joined(self._parts)
        return DocumentOffsets(text, begins, lengths, chars, self._ending)

    def _take(self, data: bytes) -> None:
        """Lines that are whole."""
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        begins = np.concatenate([[0], ends[:-1] + 1])
        full = ~_blank_lines(data, begins, ends)
        firsts = lasts = np.flatnonzero(full)
        if self._paragraphs:
            edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
            firsts, lasts = edges[::2], edges[1::2] - 1
        begins, ends = begins[firsts], ends[lasts]
        places = character_offsets(data, np.concatenate([begins, ends]))
        chars = places[len(begins) :] - places[: len(begins)]
        begins, ends = begins + self._place, ends + self._place
        if self._paragraphs:
            begins, ends, chars = self._merge(begins, ends, chars, bool(full[0]), bool(full[-1]))
        self._add(begins, ends, chars)
        self._place += len(data)

    def _merge(
        self, begins: Offsets, ends: Offsets, chars: Offsets, goes_on: bool, may_go_on: bool
    ) -> tuple[Offsets, Offsets, Offsets]:
        """Paragraphs with the one left open before them, without the one that they leave open."""
        if self._open and goes_on:  # the line end between the two is one character more
            begins[0], chars[0] = self._open[0], chars[0] + self._open[2] + 1
        elif self._open:
            rows = zip(self._open, (begins, ends, chars), strict=True)
            begins, ends, chars = (np.concatenate([[value], row]) for value, row in rows)
        self._open = []
        if may_go_on:
            self._open = [int(row[-1]) for row in (begins, ends, chars)]
            begins, ends, chars = begins[:-1], ends[:-1], chars[:-1]
        return begins, ends, chars

    def _add(self, begins: Any = (), ends: Any = (), chars: Any = ()) -> None:
        begins, ends, chars = (np.asarray(row, np.int64) for row in (begins, ends, chars))
        self._parts.append((begins, _narrow(ends - begins), _narrow(chars + len(self._ending))))


def _narrow(values: Any) -> Ids:
    """Counts as small integers where all fit: there may be many millions."""
    wide = np.asarray(values, np.int64)
    return wide if len(wide) and int(wide.max()) >= 1 << 31 else wide.astype(np.int32)


def _joined(parts: list[Any]) -> Iterator[Any]:
    """Each column of the rows as one array; the rows are given back at once."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    for column in columns:
        yield np.concatenate(column)
        column.clear()


def _blank_lines(data: bytes, begins: Offsets, ends: Offsets) -> Flags:
    """Which lines of a text are empty or white space."""
    blank: Flags = begins == ends
    firsts = np.frombuffer(data, np.uint8)[np.minimum(begins, len(data) - 1)]
    for i in np.flatnonzero(_MAY_BE_BLANK[firsts] & ~blank).tolist():
        line = data[begins[i] : ends[i]]
        blank[i] = line.decode("utf-8", "surrogatepass").isspace()
    return blank
