"""TEXT arguments -> documents: bytes from anywhere, decoded, cut where documents begin.

**In:** files, globs, folders, ``-`` for standard input, compressed files, URLs, and `TextOptions`.
**Out:** `Document`s; what is missing, empty or no text is a TextError that says where.
"""

from __future__ import annotations

import bz2
import codecs
import difflib
import glob
import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from lmcli.errors import TextError, did_you_mean
from lmcli.settings import setting

_UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_SUFFIXES = (".txt", *(f".txt{packed}" for packed in _UNPACK))
_ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252")
_TIMEOUT = 60  # seconds
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclass(frozen=True)
class TextOptions:
    """How bytes become documents."""

    encoding: str = setting("utf-8", "how bytes stand for characters")
    errors: Literal["strict", "replace", "ignore"] = setting(
        "strict", "what becomes of bytes that do not fit the encoding"
    )
    newlines: Literal["keep", "lf"] = setting("keep", "lf turns every line end into \\n")
    documents: Literal["file", "line", "paragraph"] = setting("file", "what a document is")


class Document(NamedTuple):
    """A text that is read from the start state. The name is a file, or file:line."""

    name: str
    text: str


def read_documents(texts: Sequence[str], options: TextOptions) -> list[Document]:
    """The documents of TEXT arguments in order; a text that cannot be read is a TextError."""
    return cut_documents(read_files(texts, options), options)


def cut_documents(files: list[Document], options: TextOptions) -> list[Document]:
    if options.documents == "file":
        return files
    cut = _lines if options.documents == "line" else _paragraphs
    return [
        Document(f"{file.name}:{line}", text) for file in files for line, text in cut(file.text)
    ]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line and not line.isspace():
            yield number, line + "\n"


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    lines = enumerate(text.split("\n"), 1)
    for blank, run in groupby(lines, key=lambda pair: not pair[1] or pair[1].isspace()):
        if not blank:
            block = list(run)
            yield block[0][0], "\n".join(line for _, line in block) + "\n\n"


def read_files(texts: Sequence[str], options: TextOptions) -> list[Document]:
    """Each file of TEXT once, as one document."""
    if not texts:
        raise TextError("no text given", "name a file, a folder, a pattern, a URL, or - for stdin")
    _check_encoding(options.encoding)
    names: dict[str, str] = {}
    for text in texts:
        try:
            for name in _find(text):
                names.setdefault(name if _is_special(name) else str(Path(name).resolve()), name)
        except OSError as error:
            raise _unreadable(text, error) from None
    return [Document(name, _read_text(name, options)) for name in names.values()]


def _is_special(name: str) -> bool:
    return name == "-" or "://" in name


def _find(text: str) -> list[str]:
    """The files or URLs that one TEXT argument means."""
    if _is_special(text):
        return _find_urls(text) if "*" in text else [text]
    path = Path(text)
    if path.is_dir():
        return _find_in_folder(path)
    if path.exists():
        return [text]
    if glob.has_magic(text):
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path takes no absolute pattern
        if found := sorted(name for name in matches if Path(name).is_file()):
            return found
        raise TextError(f"no file matches '{text}'", "check the pattern")
    if not path.parent.is_dir():
        raise TextError(f"no file named '{text}'", f"there is no folder named '{path.parent}'")
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean '{path.with_name(near[0])}'?" if near else "check the spelling"
    raise TextError(f"no file named '{text}'", hint)


def _find_in_folder(folder: Path) -> list[str]:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    texts = [name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]
    if not texts:
        raise TextError(
            f"no texts in folder '{folder}'",
            f"of a folder, files {', '.join(f'*{suffix}' for suffix in _SUFFIXES)} are read",
        )
    return [str(folder / name) for name in texts]


def _find_urls(pattern: str) -> list[str]:
    import fsspec

    try:
        found = [file.full_name for file in fsspec.open_files(pattern, "rb")]
    except Exception as error:  # each file system raises what it likes
        raise _unreadable(pattern, error) from None
    if not found:
        raise TextError(f"no file matches '{pattern}'", "check the pattern")
    return found


def _read_text(name: str, options: TextOptions) -> str:
    text = _decode(name, _read_bytes(name), options).removeprefix(_BOM)
    if not text or text.isspace():
        raise TextError(f"'{name}' is empty", "a text needs words in it")
    if options.newlines == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _read_bytes(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read()
        data = _download(name) if _is_special(name) else Path(name).read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from None
    unpack = _UNPACK.get(Path(name).suffix)
    try:
        return unpack(data) if unpack else data
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        raise TextError(
            f"'{name}' is damaged: it does not unpack", "make or download it again"
        ) from None


def _download(url: str) -> bytes:
    """http(s) by the standard library, as fsspec needs more packages for it; the rest by fsspec."""
    if url.startswith(("http://", "https://")):
        from urllib.request import urlopen

        with urlopen(url, timeout=_TIMEOUT) as reply:
            return bytes(reply.read())
    import fsspec

    try:
        packed = Path(url).suffix in _UNPACK
        with fsspec.open(url, "rb", compression=None if packed else "infer") as file:
            return bytes(file.read())
    except Exception as error:  # each file system raises what it likes
        raise _unreadable(url, error) from None


def _unreadable(name: str, error: Exception) -> TextError:
    known = isinstance(error, FileNotFoundError) and "no such file"
    reason = known or getattr(error, "strerror", None) or str(error).partition("\n")[0]
    reason = reason[:1].lower() + reason[1:].rstrip(".")
    hint = "check the address" if _is_special(name) else "check the path and its permissions"
    return TextError(f"cannot read '{name}': {reason or 'it failed'}", hint)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # refuses what turns bytes into bytes, such as base64
    except (LookupError, ValueError):
        raise TextError(
            f"no encoding named '{encoding}'", did_you_mean(encoding, _ENCODINGS)
        ) from None


def _decode(name: str, data: bytes, options: TextOptions) -> str:
    try:
        return data.decode(options.encoding, options.errors)
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        looks_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        other = "utf-16" if looks_utf16 else "latin-1"
        raise TextError(
            f"'{name}' is not {options.encoding}: byte 0x{data[place]:02x} at offset {place}",
            f"try --encoding {other}, or --errors replace",
        ) from None
