"""A name -> its bytes, some at a time, unpacked.

**In:** a file, ``-`` for standard input, a URL; packed or not.
**Out:** bytes in parts; what cannot be read, or does not unpack, is a TextError.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from lmcli.data.locating import PACKED, is_special, unreadable
from lmcli.errors import TextError

_OPEN: dict[str, Callable[[Any], Any]] = dict(
    zip(PACKED, (gzip.open, bz2.open, lzma.open), strict=True)
)
_TIMEOUT = 60  # seconds


def is_packed(name: str) -> bool:
    """Whether a file is unpacked before it is read."""
    return Path(name).suffix in _OPEN


def fetch(name: str, step: int) -> Iterator[bytes]:
    """The unpacked bytes, `step` at a time."""
    if name == "-":
        yield from _steps(name, nullcontext(sys.stdin.buffer), step)
    elif not is_packed(name):
        yield from _steps(name, _open(name), step)
    else:
        with tempfile.TemporaryFile() as packed:
            source: IO[bytes] = packed
            if is_special(name):  # so that a network that fails does not look like a damaged file
                for data in _steps(name, _open(name), step):
                    packed.write(data)
                packed.seek(0)
            else:
                source = _open_file(name)
            with source:
                yield from _unpacked(name, source, step)


def _steps(name: str, opened: AbstractContextManager[IO[bytes]], step: int) -> Iterator[bytes]:
    try:
        with opened as file:
            while data := file.read(step):
                yield data
    except OSError as error:
        raise unreadable(name, error) from None
    except Exception as error:
        if not is_special(name):
            raise
        raise unreadable(name, error) from None  # each file system raises what it likes


def _unpacked(name: str, packed: IO[bytes], step: int) -> Iterator[bytes]:
    try:
        with _OPEN[Path(name).suffix](packed) as file:
            while data := file.read(step):
                yield data
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        if getattr(error, "errno", None):  # the disk, not the content
            raise unreadable(name, error) from None
        raise TextError(
            f"'{name}' is damaged: it does not unpack", "make or download it again"
        ) from None


def _open_file(name: str) -> IO[bytes]:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise unreadable(name, error) from None


def _open(name: str) -> AbstractContextManager[IO[bytes]]:
    """http(s) by the standard library, as fsspec needs more packages for it; the rest by fsspec."""
    if not is_special(name):
        return _open_file(name)
    try:
        if name.startswith(("http://", "https://")):
            from urllib.request import urlopen

            reply: AbstractContextManager[IO[bytes]] = urlopen(name, timeout=_TIMEOUT)
            return reply
        import fsspec

        compression = None if is_packed(name) else "infer"
        opened: AbstractContextManager[IO[bytes]] = fsspec.open(name, "rb", compression=compression)
        return opened
    except Exception as error:  # each file system raises what it likes
        raise unreadable(name, error) from None
