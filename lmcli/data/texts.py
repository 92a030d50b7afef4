"""A text as UTF-8 bytes, wherever they lie: in memory, in its file, in a temporary file.

**In:** bytes put into a `Spool`, or a file that is read where it stands.
**Out:** `Text`: any stretch of it, when it is asked for. A text may be larger than the memory.
"""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lmcli.errors import TextError
from lmcli.report.progress import OnProgress, Stage


@dataclass(frozen=True)
class Limits:
    """How much of a text is held at once, in bytes."""

    window: int = 1 << 20
    """read at a time; at least the 4 bytes of the longest character"""
    memory: int = 1 << 26
    """kept in memory rather than read again"""


class ProgressCounter:
    """How far a long stage is; says so to a callback, if there is one."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self.stage = ""
        self.done = 0
        self.total = 0
        self.unit = ""
        self._on_progress = on_progress

    def begin(self, stage: str, total: int, unit: str = "MB") -> None:
        """A new stage, of `total` characters, bytes or tokens; 0 where that is not known."""
        self.stage, self.done, self.total, self.unit = stage, 0, total, unit
        self.add(0)

    def add(self, amount: int) -> None:
        """`amount` more is done."""
        self.done += amount
        if self._on_progress:
            self._on_progress(Stage(self.stage, self.done, self.total, self.unit))


class Spool:
    """Bytes put aside: in memory while they are few, else in a temporary file without a name."""

    def __init__(self, memory: int) -> None:
        self.size = 0
        self._memory = memory
        self._bytes = bytearray()
        self._file: IO[bytes] | None = None

    def _keep(self, file: IO[bytes]) -> IO[bytes]:
        """The file lives as long as the spool."""
        weakref.finalize(self, file.close)
        self._file = file
        return file

    def write(self, data: bytes) -> None:
        """Put bytes behind all others."""
        if self._file is None and self.size + len(data) > self._memory:
            self._keep(tempfile.TemporaryFile()).write(self._bytes)  # noqa: SIM115
            self._bytes = bytearray()
        if self._file is None:
            self._bytes += data
        else:
            self._file.write(data)
        self.size += len(data)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end."""
        if self._file is None:
            return bytes(memoryview(self._bytes)[begin:end])
        self._file.flush()
        if hasattr(os, "pread"):  # leaves alone where another process reads
            return _pread(self._file.fileno(), begin, end)
        self._file.seek(begin)
        data = self._file.read(end - begin)
        self._file.seek(0, os.SEEK_END)
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a copy of what is in memory, and shares the file."""
        if self._file is None or sys.platform == "win32":
            return _filled, (self.read(0, self.size),)
        from multiprocessing import reduction

        self._file.flush()
        return _adopted, (reduction.DupFd(self._file.fileno()), self.size)


def _filled(data: bytes) -> Spool:
    spool = Spool(len(data))
    spool.write(data)
    return spool


def _adopted(duplicate: Any, size: int) -> Spool:
    spool = Spool(0)
    spool._keep(os.fdopen(duplicate.detach(), "r+b"))
    spool.size = size
    return spool


def _pread(descriptor: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end and (part := os.pread(descriptor, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


class InPlace:
    """The bytes of a file, read where they stand. A file that changes is a TextError."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path(name).absolute()
        self.stamp = self._stamp(self.path.stat())
        self.size = self.stamp[1]

    @staticmethod
    def _stamp(status: os.stat_result) -> tuple[int, int, int]:
        return status.st_ino, status.st_size, status.st_mtime_ns

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end."""
        try:
            with self.path.open("rb", buffering=0) as file:
                same = self._stamp(os.fstat(file.fileno())) == self.stamp
                file.seek(begin)
                parts = []
                while begin < end and (part := file.read(end - begin)):
                    parts.append(part)
                    begin += len(part)
        except OSError:
            same = False
        if not same or begin < end:
            raise TextError(
                f"'{self.name}' has changed while it was read",
                "run it again when nothing writes to that file",
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True)
class Text:
    """A text as bytes of UTF-8.

    A `proven` one has been decoded before and may hold lone surrogates; any other shows what is
    wrong with it when it is read.
    """

    name: str
    source: Spool | InPlace
    begin: int
    """where in the source its first byte is"""
    size: int
    proven: bool
    skipped: int = 0
    """bytes in front of the text that are none of it: a byte order mark"""
    window: int = Limits.window

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from begin to end."""
        return self.source.read(self.begin + begin, self.begin + end)

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """The bytes from beginning to end, whole characters at a time, and where each part is."""
        begin = 0
        while begin < self.size:
            data = self.read(begin, min(begin + self.window, self.size))
            if begin + len(data) < self.size:
                data = data[: last_whole(data)]
            yield begin, data
            begin += len(data)

    def decode(self, data: bytes, begin: int) -> str:
        """Its bytes from `begin` on as characters."""
        if self.proven:
            return data.decode("utf-8", "surrogatepass")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            place = self.skipped + begin + error.start
            wrong = data[error.start]
            head = self.read(0, min(2, self.size))
            raise not_text(self.name, "utf-8", wrong, place, head) from None


def last_whole(data: bytes) -> int:
    """Where the last character begins that may go on behind the data, else the end.

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
    """The error for bytes that are no text, with the first of them and where it is."""
    looks_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    other = "utf-16" if looks_utf16 else "latin-1"
    return TextError(
        f"'{name}' is not {encoding}: byte 0x{byte:02x} at offset {place}",
        f"try --encoding {other}, or --errors replace",
    )
