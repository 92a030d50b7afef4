"""A text as UTF-8 bytes, of which any range can be read; it may be larger than the memory.

**In:** names of files, of URLs, ``-`` for standard input; `TextOptions`.
**Out:** `Text`s. One that cannot be read, is not text, or changes while it is used is a TextError.

A local file of UTF-8 is read where it lies. Any other text is first written as UTF-8 to a temporary
file ($TMPDIR says where). Files are read, not memory-mapped: a mapped file that another program
shortens would kill the process.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lmcli.data.files import fetch, is_packed, is_special, unreadable
from lmcli.errors import StorageError, TextError, did_you_mean
from lmcli.report.progress import ProgressCounter
from lmcli.settings import setting

_ENCODINGS = ("utf-8", "utf-16", "cp1252", "latin-1")
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_EITHER_ORDER = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_WHOLE = ("punycode", "idna", "undefined")  # encodings that mean another thing when read in parts


@dataclass(frozen=True)
class TextOptions:
    """How bytes become documents."""

    encoding: str = setting("utf-8", "how bytes stand for characters")
    errors: Literal["strict", "replace", "ignore"] = setting(
        "strict", "what becomes of bytes that do not fit the encoding"
    )
    newlines: Literal["keep", "lf"] = setting("keep", "lf turns every line end into \\n")
    documents: Literal["file", "line", "paragraph"] = setting("file", "what a document is")


@dataclass(frozen=True)
class Limits:
    """How much of a text, or of its ids, is held in memory, in bytes."""

    window: int = 1 << 20
    """read at a time; at least the 4 bytes of the longest character"""
    memory: int = 1 << 26
    """up to this size all of it is held"""


class Text:
    """A text as bytes of UTF-8, after the byte order mark if there is one.

    A small one is held in memory, and its file may change. Any other is read from its file, which
    must not change; so is every text that was sent to another process.

    A `decoded` one was written by `open_texts` and may hold lone surrogates; any other shows what
    is wrong with it when it is read.
    """

    def __init__(
        self, name: str, path: Path, limits: Limits | None = None, decoded: bool = False
    ) -> None:
        limits = limits or Limits()
        self.name, self.path, self.decoded = name, path.absolute(), decoded
        self.window = limits.window
        self.stamp = _stamp(self.path.stat())
        self.size, self.skipped = self.stamp[1], 0
        self.held: bytes | None = None
        self.checksum: int | None = None
        """of all bytes, when they were first read from beginning to end; None if they are held"""
        if not decoded and self.read(0, min(3, self.size)) == codecs.BOM_UTF8:
            self.skipped = len(codecs.BOM_UTF8)
            self.size -= self.skipped
        if self.size <= limits.memory:
            self.held = self.read(0, self.size)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"held": None}

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end; size and time of a file are checked before and after."""
        if self.held is not None:
            return self.held[begin:end]
        try:
            with self.path.open("rb") as file:
                before = _stamp(os.fstat(file.fileno()))
                file.seek(self.skipped + begin)
                data = file.read(end - begin)
                same = before == _stamp(os.fstat(file.fileno())) == self.stamp
        except OSError:
            same = False
        if not same or len(data) < end - begin:
            raise self._changed()
        return data

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """All bytes, whole characters at a time, and where each part begins.

        A file whose bytes are not those of the first reading is a TextError at the end.
        """
        begin = checksum = 0
        while begin < self.size:
            data = self.read(begin, min(begin + self.window, self.size))
            if begin + len(data) < self.size:
                data = data[: last_whole(data)]
            if self.held is None:
                checksum = zlib.crc32(data, checksum)
            yield begin, data
            begin += len(data)
        if self.checksum is None and self.held is None:
            self.checksum = checksum
        if self.checksum not in (None, checksum):
            raise self._changed()

    def is_blank(self) -> bool:
        """Whether there is nothing in it but white space."""
        return all(self.decode(data, begin).isspace() for begin, data in self.windows())

    def check_unchanged(self) -> None:
        """A TextError if the file holds other bytes than those that were read first."""
        if self.held is None:
            for _ in self.windows():
                pass

    def equals(self, other: Text) -> bool:
        """Whether another text has the same bytes."""
        pairs = zip(self.windows(), other.windows(), strict=True)
        return self.size == other.size and all(mine == theirs for mine, theirs in pairs)

    def decode(self, data: bytes, begin: int) -> str:
        """Bytes of the text that lie from `begin` on, as characters."""
        if self.decoded:
            return data.decode("utf-8", "surrogatepass")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            place = self.skipped + begin + error.start
            head = self.read(0, min(2, self.size))
            raise not_text(self.name, "utf-8", data[error.start], place, head) from None

    def _changed(self) -> TextError:
        return TextError(
            f"'{self.name}' has changed while it was read",
            "run it again when nothing writes to that file",
        )


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def last_whole(data: bytes) -> int:
    """Where the last character begins if it may go on after the data, else the end.

    >>> last_whole("aé".encode()), last_whole("aé".encode()[:2]), last_whole(b"ab")
    (3, 1, 2)
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if length <= back else len(data) - back
    return len(data)


def not_text(name: str, encoding: str, byte: int, place: int, head: bytes) -> TextError:
    """The error for bytes that are no text: the first wrong one and its offset.

    The encoding to try is that of Windows: it is latin-1 but for the bytes 0x80 to 0x9f, which are
    quotes and dashes there and control characters in latin-1.
    """
    looks_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    other = "utf-16" if looks_utf16 else "cp1252"
    return TextError(
        f"'{name}' is not {encoding}: byte 0x{byte:02x} at offset {place}",
        f"try --encoding {other}, or --errors replace",
    )


def open_texts(
    names: Iterable[str], options: TextOptions, limits: Limits, counter: ProgressCounter
) -> Iterator[Text]:
    """Each file as one text; small ones are held in memory, as they may be edited meanwhile."""
    _check_encoding(options.encoding)
    plain = codecs.lookup(options.encoding).name == "utf-8" and options.errors == "strict"
    plain = plain and options.newlines == "keep"
    memory = limits.memory
    for name in names:
        try:
            in_place = plain and _is_plain_file(name)
            path = Path(name) if in_place else _write_utf8(name, options, limits, counter)
            text = Text(name, path, Limits(limits.window, memory), decoded=not in_place)
        except OSError as error:
            raise unreadable(name, error) from None
        if not in_place:
            weakref.finalize(text, _remove, path, os.getpid())
        memory -= len(text.held or b"")
        yield text


def _is_plain_file(name: str) -> bool:
    special = is_special(name) or is_packed(name)
    return not special and stat.S_ISREG(Path(name).stat().st_mode)


def _write_utf8(name: str, options: TextOptions, limits: Limits, counter: ProgressCounter) -> Path:
    """Fetch and decode a text, and write it as UTF-8 without a byte order mark."""
    counter.begin("fetching", 0)
    if is_special(name) and name != "-":
        counter.note(f"fetching from {urlsplit(name).netloc or name}")
    parts = _decode(name, fetch(name, limits.window), options)
    path = Path()
    try:
        with tempfile.NamedTemporaryFile(prefix="lmcli-", suffix=".txt", delete=False) as file:
            path = Path(file.name)
            first = next(filter(None, parts), "").removeprefix(_BOM)
            for text in chain([first], parts):
                data = text.encode("utf-8", "surrogatepass")
                file.write(data)
                counter.add(len(data))
    except BaseException as error:
        _remove(path, os.getpid())
        if not isinstance(error, OSError):  # those of reading are TextErrors by now
            raise
        reason = os.strerror(error.errno or 0).lower()
        raise StorageError(
            f"cannot write a temporary copy of '{name}': {reason}",
            "set TMPDIR to a folder with more space",
        ) from None
    return path


def _remove(path: Path, owner: int) -> None:
    """Remove a temporary file, unless this is a copy of the process that made it."""
    if os.getpid() == owner:
        with suppress(OSError):
            path.unlink()


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # refuses codecs from bytes to bytes, such as base64
    except (LookupError, ValueError):
        raise TextError(
            f"no encoding named '{encoding}'", did_you_mean(encoding, _ENCODINGS)
        ) from None


def _decode(name: str, parts: Iterator[bytes], options: TextOptions) -> Iterator[str]:
    """Bytes in parts as characters in parts, with the line ends that are wanted."""
    first = next(parts, b"")
    encoding = codecs.lookup(options.encoding).name
    if encoding in _WHOLE:
        first, parts = b"".join([first, *parts]), iter(())
    if encoding in _EITHER_ORDER and not first.startswith(_EITHER_ORDER[encoding]):
        encoding += "-le" if sys.byteorder == "little" else "-be"
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)(options.errors), options.newlines == "lf"
    )
    size = 0  # bytes so far
    try:
        for data in chain([first], parts):
            size += len(data)
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        data, start = getattr(error, "object", b"\0"), getattr(error, "start", 0)
        place = size - len(data) + start
        raise not_text(name, options.encoding, data[start], place, first[:2]) from None
