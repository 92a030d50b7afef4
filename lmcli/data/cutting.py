"""One pass over a text: is it text, what is in it, where do documents or blocks begin.

**In:** a `Text`, what a document is, and a `Digest` of what all documents say.
**Out:** `Segments`: the places of its documents, or of the blocks of the one document that it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lmcli.data.documents import DocumentOffsets, Offsets, character_places
from lmcli.data.texts import ProgressCounter, Text
from lmcli.errors import TextError

BLOCK = 10_000  # characters
ENDINGS = {"file": "", "line": "\n", "paragraph": "\n\n"}
"""what a document ends in, whatever stands behind it in the text"""

_BLANK_BYTES = (*range(9, 14), *range(28, 33), 0xC2, 0xE1, 0xE2, 0xE3)
_MAY_BE_BLANK = np.isin(np.arange(256), _BLANK_BYTES)
"""of the first byte of a line: white space, or the first of several bytes that are"""

Integers = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]


class Digest:
    """The sha256 of documents, kept apart by a zero byte."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._begun = False

    def begin(self) -> None:
        """The next document begins."""
        if self._begun:
            self._sha256.update(b"\0")
        self._begun = True

    def add(self, data: bytes) -> None:
        """More of a document."""
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """Of all that was added."""
        return self._sha256.hexdigest()


@dataclass(frozen=True)
class Segments:
    """What a text is split into: `whole` documents, or blocks of one.

    `chars` counts the characters of each, `numbers` the lines at which documents begin.
    """

    spans: DocumentOffsets
    chars: Integers
    numbers: Integers
    whole: bool

    def documents(self) -> DocumentOffsets:
        """The documents: themselves, or the one that the blocks make up."""
        if self.whole:
            return self.spans
        text = self.spans.text
        return DocumentOffsets(
            text, np.zeros(1, np.int64), np.array([text.size]), self.spans.ending
        )


def scan(
    text: Text,
    unit: str,
    digest: Digest,
    own: Digest | None = None,
    meter: ProgressCounter | None = None,
) -> Segments:
    """Read a text once. The `own` digest is of the text alone, as it stands.

    One that is empty or not UTF-8 is a TextError.
    """
    cutters: dict[str, type[_Cutter]] = {"file": _Blocks, "line": _Lines, "paragraph": _Paragraphs}
    cutter = cutters[unit](digest)
    blank = True
    for begin, data in text.windows():
        shown = text.decode(data, begin)
        blank = blank and shown.isspace()
        if own:
            own.add(data)
        cutter.feed(data, shown)
        if meter:
            meter.add(len(data))
    if blank:
        raise TextError(f"'{text.name}' is empty", "a text needs words in it")
    cutter.finish()
    return cutter.places.units(text, ENDINGS[unit], whole=unit != "file")


def cut_blocks(text: Text, size: int) -> Segments:
    """A text in blocks of at most `size` characters."""
    blocks = _Blocks(Digest(), size)
    for begin, data in text.windows():
        blocks.feed(data, text.decode(data, begin))
    blocks.finish()
    return blocks.places.units(text, "", whole=False)


class _Places:
    """Places as they are found, many at a time."""

    def __init__(self) -> None:
        self._begins: list[Offsets] = []
        self._lengths: list[Integers] = []
        self._chars: list[Integers] = []
        self._numbers: list[Integers] = []

    def add(self, begins: Any, lengths: Any, chars: Any, numbers: Any) -> None:
        self._begins.append(np.asarray(begins, np.int64))
        for kept, new in (
            (self._lengths, lengths),
            (self._chars, chars),
            (self._numbers, numbers),
        ):
            wide = np.asarray(new, np.int64)
            narrow = not len(wide) or int(wide.max()) < 1 << 31
            kept.append(wide.astype(np.int32) if narrow else wide)

    def units(self, text: Text, ending: str, whole: bool) -> Segments:
        spans = DocumentOffsets(text, _emptied(self._begins), _emptied(self._lengths), ending)
        return Segments(spans, _emptied(self._chars), _emptied(self._numbers), whole)


def _emptied(parts: list[Any]) -> Any:
    """All parts as one array; they are given back at once, as there may be many millions."""
    whole = np.concatenate(parts) if parts else np.empty(0, np.int64)
    parts.clear()
    return whole


class _Cutter(Protocol):
    places: _Places

    def __init__(self, digest: Digest) -> None: ...

    def feed(self, data: bytes, shown: str) -> None: ...

    def finish(self) -> None: ...


class _Blocks:
    """Blocks of at most `size` characters, cut behind a line end, else before a blank."""

    def __init__(self, digest: Digest, size: int = BLOCK) -> None:
        digest.begin()
        self.places = _Places()
        self._digest, self._size = digest, size
        self._place = 0  # in bytes, of what is held
        self._held = ""  # characters that are in no block yet

    def feed(self, data: bytes, shown: str) -> None:
        self._digest.add(data)
        held = self._held + shown
        begin, blocks = 0, []
        while begin + self._size < len(held):
            end = begin + self._size
            least = begin + (self._size + 1) // 2
            end = held.rfind("\n", least, end) + 1 or max(0, held.rfind(" ", least, end)) or end
            blocks.append(held[begin:end])
            begin = end
        self._held = held[begin:]
        self._add(blocks)

    def finish(self) -> None:
        self._add([self._held] if self._held else [])

    def _add(self, blocks: list[str]) -> None:
        lengths = [
            len(b) if b.isascii() else len(b.encode("utf-8", "surrogatepass")) for b in blocks
        ]
        ends = self._place + np.cumsum(lengths, dtype=np.int64)
        self.places.add(ends - lengths, lengths, [*map(len, blocks)], [1] * len(blocks))
        self._place += sum(lengths)


class _Lines:
    """Lines with anything in them, each a document."""

    ending = ENDINGS["line"]

    def __init__(self, digest: Digest) -> None:
        self.places = _Places()
        self._digest = digest
        self._held: list[bytes] = []  # of a line whose end is still to come
        self._place = 0  # in bytes, of what is held
        self._line = 1

    def feed(self, data: bytes, shown: str) -> None:
        cut = data.rfind(b"\n") + 1
        if cut:
            self._take(b"".join([*self._held, data[:cut]]))
            self._held = []
        self._held.append(data[cut:])

    def finish(self) -> None:
        if rest := b"".join(self._held):
            self._take(rest)

    def _take(self, data: bytes) -> None:
        """Lines that are whole."""
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        begins = np.concatenate([[0], ends[:-1] + 1])
        self._cut(data, begins, ends, ~_blank_lines(data, begins, ends))
        self._place += len(data)
        self._line += len(ends)

    def _cut(self, data: bytes, begins: Offsets, ends: Offsets, full: Flags) -> None:
        numbers = self._line + np.flatnonzero(full)
        if not len(numbers):
            return
        begins, ends = begins[full], ends[full]
        self._digest.begin()
        if np.all(begins[1:] == ends[:-1] + 1):
            self._digest.add(data[begins[0] : ends[-1]].replace(b"\n", b"\n\0"))
        else:
            lines = [data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
            self._digest.add(b"\n\0".join(lines))
        self._digest.add(b"\n")
        chars = _chars_between(data, begins, ends) + 1
        self.places.add(self._place + begins, ends - begins, chars, numbers)


class _Paragraphs(_Lines):
    """Runs of lines with anything in them, each a document."""

    ending = ENDINGS["paragraph"]

    def __init__(self, digest: Digest) -> None:
        super().__init__(digest)
        self._open: list[int] = []  # begin, length, characters and line of one that may go on

    def finish(self) -> None:
        super().finish()
        self._close()

    def _cut(self, data: bytes, begins: Offsets, ends: Offsets, full: Flags) -> None:
        edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
        firsts, lasts = edges[::2], edges[1::2] - 1
        chars = _chars_between(data, begins[firsts], ends[lasts]).tolist()
        if not full[0]:
            self._close()
        for first, last, count in zip(firsts.tolist(), lasts.tolist(), chars, strict=True):
            begin, end = int(begins[first]), int(ends[last])
            if self._open:  # it goes on behind a line end
                self._digest.add(b"\n" + data[begin:end])
                self._open[1] += 1 + end - begin
                self._open[2] += 1 + count
            else:
                self._digest.begin()
                self._digest.add(data[begin:end])
                self._open = [self._place + begin, end - begin, count, self._line + first]
            if last + 1 < len(full):
                self._close()

    def _close(self) -> None:
        if self._open:
            begin, length, chars, line = self._open
            self._digest.add(self.ending.encode())
            self.places.add([begin], [length], [chars + len(self.ending)], [line])
            self._open = []


def _chars_between(data: bytes, begins: Offsets, ends: Offsets) -> Offsets:
    places = character_places(data, np.concatenate([begins, ends]))
    return places[len(begins) :] - places[: len(begins)]


def _blank_lines(data: bytes, begins: Offsets, ends: Offsets) -> Flags:
    """Which lines of a text are empty or white space."""
    blank: Flags = begins == ends
    firsts = np.frombuffer(data, np.uint8)[np.minimum(begins, len(data) - 1)]
    for i in np.flatnonzero(_MAY_BE_BLANK[firsts] & ~blank).tolist():
        line = data[begins[i] : ends[i]]
        blank[i] = line.decode("utf-8", "surrogatepass").isspace()
    return blank
