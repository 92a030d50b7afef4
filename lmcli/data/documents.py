"""Documents of a text, each read from the start state: where they lie, not what is in them.

**In:** a `Text` and what a document is: the whole file, a line, a paragraph.
**Out:** `DocumentOffsets`: arrays of byte offsets; `Documents`: a sequence of texts, each read from
its file when it is taken, or all of them end to end as `Chunk`s.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from lmcli.data.text import Text, last_whole
from lmcli.errors import TextError
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import SAFE_SPLIT, Chunk, Ids, Offsets

BLOCK = 10_000  # characters
ENDINGS = {"file": "", "line": "\n", "paragraph": "\n\n"}
"""what a document ends in, whatever follows it in the text"""

_FAR = 1 << 16  # bytes between two documents that are not worth reading
_MANY = 1 << 16  # documents looked at together
_LONGEST = 64  # windows read in search of a safe split point
_UP_TO_SAFE_SPLIT = re.compile(f"(?s:.*){SAFE_SPLIT.pattern}")
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
    skipped: int = 0
    """empty lines that are no documents, where each line is one"""

    def select(self, which: Flags) -> DocumentOffsets:
        """Some of them."""
        begins, lengths, chars = self.begins[which], self.lengths[which], self.chars[which]
        return DocumentOffsets(self.text, begins, lengths, chars, self.ending)

    def merge(self, firsts: Offsets) -> DocumentOffsets:
        """Those that follow each other as larger ones, which begin with `firsts`."""
        lasts = np.append(firsts[1:], len(self.begins))[: len(firsts)] - 1
        begins = self.begins[firsts]
        lengths = _narrow(self.begins[lasts] + self.lengths[lasts] - begins)
        chars = _narrow(np.add.reduceat(self.chars, firsts, dtype=np.int64))
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
        window = self.text.window
        for first in range(0, len(self.begins), _MANY):
            begins = self.begins[first : first + _MANY]
            ends = begins + self.lengths[first : first + _MANY]
            long = ends - begins > window
            apart = (begins[1:] - ends[:-1] > _FAR) | (np.diff(ends // window) > 0) | long[:-1]
            for low, high in pairwise([0, *(np.flatnonzero(apart) + 1).tolist(), len(begins)]):
                if long[low]:
                    yield from self._long(int(begins[low]), int(ends[low]))
                else:
                    yield self._short(begins[low:high], ends[low:high])

    def _short(self, begins: Offsets, ends: Offsets) -> tuple[int, bytes, Offsets]:
        """Documents that are read together."""
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
        starts, window = np.zeros(1, np.int64), self.text.window
        while begin < end:
            data = self.text.read(begin, min(begin + window, end))
            if begin + len(data) < end:
                data = data[: last_whole(data)]
                if window < _LONGEST * self.text.window:
                    data = self._up_to_safe_split(data, begin)
                    if not data:
                        window *= 2
                        continue
            place, begin = begin, begin + len(data)
            yield place, data if begin < end else data + self.ending.encode(), starts
            starts, window = starts[:0], self.text.window

    def _up_to_safe_split(self, data: bytes, begin: int) -> bytes:
        """The data before the last safe split point, nothing if there is none."""
        text = self.text.decode(data, begin)
        safe = _UP_TO_SAFE_SPLIT.match(text)
        rest = text[safe.end() if safe else 0 :]
        return data[: len(data) - len(rest.encode("utf-8", "surrogatepass"))]


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
        number = range(len(self))[index]
        owner = bisect.bisect_right(self._firsts, number) - 1
        return self.offsets[owner].document(number - self._firsts[owner])

    def __iter__(self) -> Iterator[str]:
        document: list[str] = []  # the last one so far, in parts
        for chunk in self.chunks():
            rest, *texts = chunk.texts()
            document.append(rest)
            if texts:
                yield from ["".join(document)] if any(document) else []
                yield from texts[:-1]
                document = [texts[-1]]
        yield from ["".join(document)] if document else []

    def excerpts(self, count: int, chars: int) -> tuple[str, ...]:
        """At most `count` texts of at most `chars` characters, spread evenly, none twice.

        They are whole lines where there are any; an excerpt ends where its document ends.
        """
        texts = []
        edges = np.cumsum([0, *(int(o.lengths.sum(dtype=np.int64)) for o in self.offsets)])
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


class Digest:
    """The sha256 of documents, with a zero byte between two."""

    def __init__(self) -> None:
        self._sha256, self._empty = hashlib.sha256(), True

    def update(self, data: bytes, starts: Offsets) -> None:
        """More bytes, and at which of them documents begin."""
        if len(starts):
            data = np.insert(np.frombuffer(data, np.uint8), starts, 0).tobytes()
            data = data[1:] if self._empty else data
        self._sha256.update(data)
        self._empty = False

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        return self._sha256.hexdigest()


def find_offsets(
    text: Text,
    unit: str,
    counter: ProgressCounter,
    digest: Digest | None = None,
    block: int = BLOCK,
) -> DocumentOffsets:
    """Where the documents of a text lie: its lines, its paragraphs, or the blocks of a file.

    A block has at most `block` characters. The digest is updated with the documents. A text that
    is empty or not UTF-8 is a TextError.
    """
    windows = _read(text, counter, digest if unit == "file" else None)
    lines = _Counted(windows) if unit == "line" else None
    if unit == "file":
        lengths, chars = _joined(_block_sizes(windows, block))
        return DocumentOffsets(text, np.cumsum(lengths, dtype=np.int64) - lengths, lengths, chars)
    parts = _find_lines(text, lines or windows)
    if unit == "paragraph":
        parts = map(_merge_lines, parts)
    begins, lengths, chars = _joined((p.begins, p.lengths, p.chars) for p in parts)
    skipped = lines.count() - len(begins) if lines else 0
    offsets = DocumentOffsets(text, begins, lengths, chars, ENDINGS[unit], skipped)
    if unit == "paragraph":  # it may go on in the next window, and ends in a blank line
        offsets = _merge_lines(offsets)
        offsets = replace(offsets, chars=offsets.chars + 1)
    if digest:
        for _, data, starts in offsets.byte_chunks():
            digest.update(data, starts)
    return offsets


class _Counted:
    """Windows of a text whose lines are counted as they pass."""

    def __init__(self, windows: Iterable[tuple[bytes, str]]) -> None:
        self._windows, self._ends, self._last = windows, 0, b"\n"

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        for data, decoded in self._windows:
            self._ends += data.count(b"\n")
            self._last = data[-1:] or self._last
            yield data, decoded

    def count(self) -> int:
        """The lines so far; the last one needs no end."""
        return self._ends + (self._last != b"\n")


def _read(
    text: Text, counter: ProgressCounter, digest: Digest | None
) -> Iterator[tuple[bytes, str]]:
    """The windows of a text, as bytes and as characters."""
    blank = True
    counter.begin("reading", text.size)
    for begin, data in text.windows():
        decoded = text.decode(data, begin)
        blank = blank and decoded.isspace()
        if digest:
            digest.update(data, np.arange(int(begin == 0)))
        yield data, decoded
        counter.add(len(data))
    if blank:
        what = "holds nothing but blanks and line ends" if text.size else "is empty"
        raise TextError(f"'{text.name}' {what}", "a text needs words in it")


def _block_sizes(windows: Iterable[tuple[bytes, str]], size: int) -> Iterator[tuple[Ids, Ids]]:
    """Bytes and characters of blocks, which end after a line end, else before a blank."""
    held = ""  # characters that are in no block yet
    for _, decoded in windows:
        held += decoded
        begin, blocks = 0, []
        while begin + size < len(held):
            end = begin + size
            least = begin + (size + 1) // 2
            end = held.rfind("\n", least, end) + 1 or max(0, held.rfind(" ", least, end)) or end
            blocks.append(held[begin:end])
            begin = end
        held = held[begin:]
        yield _sizes(blocks)
    yield _sizes([held])


def _sizes(blocks: list[str]) -> tuple[Ids, Ids]:
    lengths = [len(b) if b.isascii() else len(b.encode("utf-8", "surrogatepass")) for b in blocks]
    return _narrow(lengths), _narrow([len(b) for b in blocks])


def _find_lines(text: Text, windows: Iterable[tuple[bytes, str]]) -> Iterator[DocumentOffsets]:
    """Lines that are not blank, those of a window at a time."""
    place = 0
    for data in _whole_lines(windows):
        begins, ends = _full_lines(data)
        edges = character_offsets(data, np.concatenate([begins, ends]))
        chars = edges[len(begins) :] - edges[: len(begins)] + 1
        yield DocumentOffsets(text, begins + place, _narrow(ends - begins), _narrow(chars))
        place += len(data)


def _whole_lines(windows: Iterable[tuple[bytes, str]]) -> Iterator[bytes]:
    held: list[bytes] = []  # of a line whose end is still to come
    for data, _ in windows:
        cut = data.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, data[:cut]])
            held = []
        held.append(data[cut:])
    if any(held):
        yield b"".join(held)


def _full_lines(data: bytes) -> tuple[Offsets, Offsets]:
    """Begins and ends of the lines that are neither empty nor white space."""
    signs = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(signs == ord("\n"))
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    begins = np.append(0, ends[:-1] + 1)
    full = begins < ends
    for i in np.flatnonzero(_MAY_BE_BLANK[signs[begins]] & full).tolist():
        full[i] = not data[begins[i] : ends[i]].decode("utf-8", "surrogatepass").isspace()
    return begins[full], ends[full]


def _merge_lines(lines: DocumentOffsets) -> DocumentOffsets:
    """Lines, or paragraphs in parts, with nothing but a line end between two of them as one."""
    ends = lines.begins + lines.lengths
    return lines.merge(np.flatnonzero(lines.begins > np.append(-2, ends)[:-1] + 1))


def _narrow(values: Any) -> Ids:
    """Counts as small integers where all fit: there may be many millions."""
    wide = np.asarray(values, np.int64)
    return wide if wide.max(initial=0) >= 1 << 31 else wide.astype(np.int32)


def _joined(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Each column as one array; its parts are given back at once."""
    columns = list(zip(*rows, strict=True))
    return [np.concatenate(columns.pop(0)) for _ in range(len(columns))]
