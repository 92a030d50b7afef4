"""A text as UTF-8 bytes, of which any range can be read; it may be larger than the memory.

**In:** names of files, of URLs, ``-`` for standard input; `TextOptions`.
**Out:** `Text`s. One that cannot be read, is not text, or changes while it is used is a TextError.

A local file of UTF-8 is read where it lies. Any other text is first written as UTF-8 to a temporary
file ($TMPDIR says where). Files are read, not memory-mapped: a mapped file that another program
shortens would kill the process.
"""

from __future__ import annotations

import codecs
import hashlib
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

import numpy as np

from lmcli.data.files import fetch, is_packed, is_special, unreadable
from lmcli.errors import StorageError, TextError, did_you_mean
from lmcli.report.progress import ProgressCounter
from lmcli.settings import setting
from lmcli.tokenizers.base import Offsets

_ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252")
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


class TextFile:
    """A file of UTF-8, guarded against changes; one that is held in memory may change.

    Sent to another process it is read from its path there, and must not have changed.
    """

    def __init__(self, name: str, path: str, hold: bool = False) -> None:
        self.name = name
        self.path = Path(path).absolute()
        self.stamp = self._stamp(self.path.stat())
        self.size = self.stamp[1]
        self.held: bytes | None = None
        self.checksum: int | None = None
        """of all its bytes, when they were first read from beginning to end"""
        if hold:
            self.held = self.read(0, self.size)

    @staticmethod
    def _stamp(status: os.stat_result) -> tuple[int, int, int]:
        return status.st_ino, status.st_size, status.st_mtime_ns

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"held": None}

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end; size and time of the file are checked before and after."""
        if self.held is not None:
            return self.held[begin:end]
        try:
            with self.path.open("rb", buffering=0) as file:
                same = self._stamp(os.fstat(file.fileno())) == self.stamp
                file.seek(begin)
                data = _read(file, end - begin)
                same = same and self._stamp(os.fstat(file.fileno())) == self.stamp
        except OSError:
            same, data = False, b""
        if not same or len(data) < end - begin:
            raise self.changed()
        return data

    def check(self, checksum: int) -> None:
        """A TextError if all bytes read now have another checksum than those read first."""
        if self.checksum is None:
            self.checksum = checksum
        elif self.checksum != checksum:
            raise self.changed()

    def changed(self) -> TextError:
        """The error for a file that is no longer what it was."""
        return TextError(
            f"'{self.name}' has changed while it was read",
            "run it again when nothing writes to that file",
        )


def _read(file: io.FileIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the file: a single read may stop earlier."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True)
class Text:
    """A text as bytes of UTF-8, after the byte order mark if there is one.

    A `decoded` one was written by `open_texts` and may hold lone surrogates; any other shows what
    is wrong with it when it is read.
    """

    name: str
    source: TextFile | bytes
    skipped: int = 0
    """bytes of the byte order mark"""
    decoded: bool = False
    window: int = Limits.window

    @property
    def size(self) -> int:
        """Bytes."""
        source = self.source
        return (len(source) if isinstance(source, bytes) else source.size) - self.skipped

    @property
    def checksum(self) -> int | None:
        """Of all bytes of a file, when they have been read from beginning to end."""
        return None if isinstance(self.source, bytes) else self.source.checksum

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end."""
        begin, end = begin + self.skipped, end + self.skipped
        if isinstance(self.source, bytes):
            return self.source[begin:end]
        return self.source.read(begin, end)

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """All bytes, whole characters at a time, and where each part begins.

        A file whose bytes are not those of the first reading is a TextError at the end.
        """
        begin = checksum = 0
        while begin < self.size:
            data = self.read(begin, min(begin + self.window, self.size))
            if begin + len(data) < self.size:
                data = data[: last_whole(data)]
            checksum = zlib.crc32(data, checksum)
            yield begin, data
            begin += len(data)
        if isinstance(self.source, TextFile):
            self.source.check(checksum)

    def check_unchanged(self) -> None:
        """A TextError if the file holds other bytes than those that were read first."""
        if isinstance(self.source, TextFile) and self.source.held is None:
            for _ in self.windows():
                pass

    def equals(self, other: Text) -> bool:
        """Whether another text has the same bytes."""
        if (self.size, self.checksum) != (other.size, other.checksum):
            return False
        pairs = zip(self.windows(), other.windows(), strict=True)
        return all(mine == theirs for mine, theirs in pairs)

    def decode(self, data: bytes, begin: int) -> str:
        """Bytes of the text that lie from `begin` on, as characters."""
        if self.decoded:
            return data.decode("utf-8", "surrogatepass")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            place = self.skipped + begin + error.start
            wrong = data[error.start]
            head = self.read(0, min(2, self.size))
            raise not_text(self.name, "utf-8", wrong, place, head) from None


class Digest:
    """The sha256 of documents, with a zero byte between two."""

    def __init__(self) -> None:
        self._sha256, self._begun = hashlib.sha256(), False

    def update(self, data: bytes, starts: Offsets) -> None:
        """More bytes, and at which of them documents begin."""
        if len(starts):
            data = np.insert(np.frombuffer(data, np.uint8), starts, 0).tobytes()
            data = data if self._begun else data[1:]
        self._sha256.update(data)
        self._begun = True

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        return self._sha256.hexdigest()


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
    """The error for bytes that are no text: the first wrong one and its offset."""
    looks_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    other = "utf-16" if looks_utf16 else "latin-1"
    return TextError(
        f"'{name}' is not {encoding}: byte 0x{byte:02x} at offset {place}",
        f"try --encoding {other}, or --errors replace",
    )


def open_texts(
    names: Iterable[str],
    options: TextOptions,
    limits: Limits,
    counter: ProgressCounter,
) -> Iterator[Text]:
    """Each file as one text; small ones are held in memory, as they may be edited meanwhile."""
    _check_encoding(options.encoding)
    plain = codecs.lookup(options.encoding).name == "utf-8" and options.errors == "strict"
    plain = plain and options.newlines == "keep"
    room = limits.memory
    for name in names:
        try:
            in_place = plain and _is_plain_file(name)
            path = name if in_place else _write_utf8(name, options, limits, counter)
            hold = Path(path).stat().st_size <= room
            source = TextFile(name, path, hold)
        except OSError as error:
            raise unreadable(name, error) from None
        if not in_place:
            weakref.finalize(source, _remove, path, os.getpid())
        if hold:
            room -= source.size
        bom = in_place and source.read(0, min(3, source.size)) == codecs.BOM_UTF8
        yield Text(name, source, len(codecs.BOM_UTF8) * bom, not in_place, limits.window)


def _is_plain_file(name: str) -> bool:
    special = is_special(name) or is_packed(name)
    return not special and stat.S_ISREG(Path(name).stat().st_mode)


def _write_utf8(name: str, options: TextOptions, limits: Limits, counter: ProgressCounter) -> str:
    """Fetch and decode a text, and write it as UTF-8; the path of the file."""
    counter.begin("fetching", 0)
    parts = _clean(_decode(name, fetch(name, limits.window), options), options)
    path = ""
    try:
        with tempfile.NamedTemporaryFile(prefix="lmcli-", suffix=".txt", delete=False) as file:
            path = file.name
            for text in parts:
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


def _remove(path: str, owner: int) -> None:
    """Remove a temporary file, unless this is a copy of the process that made it."""
    if os.getpid() == owner:
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)


def _clean(texts: Iterator[str], options: TextOptions) -> Iterator[str]:
    """Without the byte order mark, and with the line ends that are wanted."""
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    first = next(filter(None, texts), "").removeprefix(_BOM)
    for text in chain([first], texts):
        yield line_ends.decode(text) if options.newlines == "lf" else text
    yield line_ends.decode("", final=True)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # refuses codecs from bytes to bytes, such as base64
    except (LookupError, ValueError):
        raise TextError(
            f"no encoding named '{encoding}'", did_you_mean(encoding, _ENCODINGS)
        ) from None


def _decode(name: str, parts: Iterator[bytes], options: TextOptions) -> Iterator[str]:
    """Bytes in parts as characters in parts."""
    first = next(parts, b"")
    encoding = codecs.lookup(options.encoding).name
    if encoding in _WHOLE:
        first, parts = b"".join([first, *parts]), iter(())
    if encoding in _EITHER_ORDER and not first.startswith(_EITHER_ORDER[encoding]):
        encoding += "-le" if sys.byteorder == "little" else "-be"
    decoder = codecs.getincrementaldecoder(encoding)(options.errors)
    given = 0
    try:
        for data in chain([first], parts):
            given += len(data)
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        data = getattr(error, "object", b"\0")
        start = getattr(error, "start", 0)
        place = given - len(data) + start
        raise not_text(name, options.encoding, data[start], place, first[:2]) from None
