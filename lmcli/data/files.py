"""TEXT arguments -> the files and URLs they name, and the bytes of each, unpacked.

**In:** files, globs, folders, ``-`` for standard input, URLs; compressed or not.
**Out:** names, each file once, in order; bytes in parts. A file that is missing, cannot be read or
does not unpack is a TextError, with the nearest name as a hint where there is one.
"""

from __future__ import annotations

import bz2
import difflib
import glob
import gzip
import lzma
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from lmcli.data.download import download
from lmcli.errors import TextError, did_you_mean

_OPEN: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SUFFIXES = (".txt", *(f".txt{suffix}" for suffix in _OPEN))
SCHEMES = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""the kinds of address that are opened: others can read local files or what is in the environment
(`reference`), chain (``::``), or send credentials"""
_MOST_RATIO, _LEAST_CHECKED = 500, 1 << 28
"""a packed text that is larger than the second may unpack to the first times its size"""
MOST_LOOKED_AT = 2000
"""files of a folder without texts"""


def find_files(texts: Sequence[str]) -> list[str]:
    """The files and URLs that TEXT arguments name, each once."""
    if not texts:
        raise TextError("no text given", "name a file, a folder, a pattern, a URL, or - for stdin")
    names: dict[str, str] = {}
    for text in texts:
        try:
            for name in _find(text):
                names.setdefault(name if is_special(name) else str(Path(name).resolve()), name)
        except OSError as error:
            raise unreadable(text, error) from None
    return list(names.values())


def is_special(name: str) -> bool:
    """Whether it is standard input or a URL."""
    return name == "-" or "://" in name


def check_address(name: str) -> None:
    """A TextError for an address of a kind that is not opened."""
    scheme = urlsplit(name).scheme if "::" not in name else "::"
    if scheme == "::":
        raise TextError(f"'{name}': chained addresses are not opened", "download it first")
    if scheme not in SCHEMES:
        near = did_you_mean(scheme, SCHEMES)
        raise TextError(f"'{name}': addresses of kind '{scheme}' are not opened", near)


def is_packed(name: str) -> bool:
    """Whether a file is unpacked before it is read."""
    return Path(name).suffix in _OPEN


def unreadable(name: str, error: Exception) -> TextError:
    """The error for a file that the system or the network refuses."""
    missing = isinstance(error, FileNotFoundError) and "no such file"
    reason = missing or getattr(error, "strerror", None) or str(error).partition("\n")[0]
    reason = reason[:1].lower() + reason[1:].rstrip(".")
    hint = "check the address" if is_special(name) else "check the path and its permissions"
    return TextError(f"cannot read '{name}': {reason or 'it failed'}", hint)


def _find(text: str) -> list[str]:
    """The files or URLs that one TEXT argument names."""
    if is_special(text):
        if text != "-":
            check_address(text)
        return _find_urls(text) if "*" in text else [text]
    path = Path(text)
    if path.is_dir():
        return _find_in_folder(path)
    if path.exists():
        return [text]
    if glob.has_magic(text):
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path takes no absolute pattern
        if files := sorted(name for name in matches if Path(name).is_file()):
            return files
        raise TextError(f"no file matches '{text}'", "check the pattern")
    if not path.parent.is_dir():
        raise TextError(f"no file named '{text}'", f"there is no folder named '{path.parent}'")
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean '{path.with_name(near[0])}'?" if near else "check the spelling"
    raise TextError(f"no file named '{text}'", hint)


def _find_in_folder(folder: Path) -> list[str]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    texts = [str(f) for f in files if f.name.endswith(_SUFFIXES) and not f.name.startswith(".")]
    if not texts:
        patterns = ", ".join(f"*{suffix}" for suffix in _SUFFIXES)
        hint = f"of a folder, files {patterns} are read"
        if suffix := _usual_suffix(folder):
            hint += f"; a pattern takes others: '{folder}/**/*{suffix}'"
        raise TextError(f"no texts in folder '{folder}'", hint)
    return texts


def _usual_suffix(folder: Path) -> str | None:
    """What most names of files in a folder and below it end in; None where there are none."""
    seen = (file for file in islice(folder.rglob("*"), MOST_LOOKED_AT) if file.suffix)
    plain = (file for file in seen if not any(p[:1] == "." for p in file.relative_to(folder).parts))
    counts = Counter(file.suffix for file in plain if file.is_file())
    return counts.most_common(1)[0][0] if counts else None


def _find_urls(pattern: str) -> list[str]:
    import fsspec

    try:
        names = [file.full_name for file in fsspec.open_files(pattern, "rb")]
    except Exception as error:  # file systems of fsspec raise exceptions of any class
        raise unreadable(pattern, error) from None
    if not names:
        raise TextError(f"no file matches '{pattern}'", "check the pattern")
    return names


def fetch(name: str, step: int) -> Iterator[bytes]:
    """The unpacked bytes of a file, of standard input or of a URL, `step` at a time."""
    if not is_packed(name):
        yield from _read(name, step)
        return
    with tempfile.TemporaryFile() as packed:  # a network that fails is no damaged file
        for data in _read(name, step):
            packed.write(data)
        most = max(_LEAST_CHECKED, _MOST_RATIO * packed.tell())
        packed.seek(0)
        size = 0
        try:
            with _OPEN[Path(name).suffix](packed) as file:
                while data := file.read(step):
                    size += len(data)
                    if size > most:
                        break
                    yield data
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            raise TextError(
                f"'{name}' is damaged: it does not unpack", "make or download it again"
            ) from None
        if size > most:
            problem = f"'{name}' unpacks to more than {_MOST_RATIO} times its size"
            raise TextError(problem, "unpack it yourself if it is a text")


def _read(name: str, step: int) -> Iterator[bytes]:
    try:
        if urlsplit(name).scheme in ("http", "https"):
            yield from download(name, step)
            return
        with _open(name) as file:
            while data := file.read(step):
                yield data
    except Exception as error:  # file systems of fsspec raise exceptions of any class
        if not is_special(name) and not isinstance(error, OSError):
            raise
        raise unreadable(name, error) from None


def _open(name: str) -> AbstractContextManager[IO[bytes]]:
    opened: AbstractContextManager[IO[bytes]]
    if name == "-":
        opened = nullcontext(sys.stdin.buffer)
    elif not is_special(name):
        opened = Path(name).open("rb")  # noqa: SIM115
    else:
        import fsspec

        opened = fsspec.open(name, "rb", compression=None if is_packed(name) else "infer")
    return opened
