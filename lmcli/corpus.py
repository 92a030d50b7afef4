"""Texts from anywhere, cut into a training, a validation and a test part.

**In:** TEXT arguments (files, globs, folders, ``-``, compressed files, fsspec URLs) and options.
**Out:** `Document`s, or a `Corpus`: the parts, a sha256 of the content, a record of the split.
"""

from __future__ import annotations

import bz2
import codecs
import dataclasses
import difflib
import glob
import gzip
import hashlib
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lmcli.errors import TextError, did_you_mean
from lmcli.settings import setting

MINIMUM_CHARACTERS = 400
BLOCK = 10_000  # characters
CYCLE = 20  # of so many blocks one goes to each held-out part
HELD_OUT = (9, 10)  # which ones: the beginning of a text stays in training

_UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
_SUFFIXES = (".txt", *(f".txt{packed}" for packed in _UNPACK))
_ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252")
_TIMEOUT = 60  # seconds
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_WORD_STEP = 1 << 20  # characters split into words at a time


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


@dataclass(frozen=True)
class Part:
    """One part of a corpus; each piece begins from the start state."""

    pieces: tuple[str, ...]

    @cached_property
    def chars(self) -> int:
        """Unicode characters."""
        return sum(map(len, self.pieces))

    @cached_property
    def bytes(self) -> int:
        """Bytes in UTF-8."""
        return sum(
            len(p) if p.isascii() else len(p.encode("utf-8", "replace")) for p in self.pieces
        )

    @cached_property
    def words(self) -> int:
        """What stands between white space."""
        return sum(map(_count_words, self.pieces))


@dataclass(frozen=True)
class HeldOut:
    """A part that came from files of its own."""

    names: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """All that is needed to split the same text the same way again."""

    kind: Literal["interleaved", "tail"]
    block: int
    options: TextOptions
    valid: HeldOut | None = None
    test: HeldOut | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SplitRecord:
        """The record that to_json was called on."""
        held_out = [
            given and HeldOut(tuple(given["names"]), given["sha256"])
            for given in (data["valid"], data["test"])
        ]
        return cls(data["kind"], data["block"], TextOptions(**data["options"]), *held_out)


@dataclass(frozen=True)
class Corpus:
    """A text in parts. `sha256` is over the content of TEXT, never over paths."""

    names: tuple[str, ...]
    sha256: str
    train: Part
    valid: Part
    test: Part | None
    split: SplitRecord


def read_documents(texts: Sequence[str], options: TextOptions) -> list[Document]:
    """The documents of TEXT arguments in order; a text that cannot be read is a TextError."""
    return _documents(_read_files(texts, options), options)


def load_corpus(
    texts: Sequence[str],
    options: TextOptions,
    split: Literal["interleaved", "tail"] = "interleaved",
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
) -> Corpus:
    """Read and split. Parts given as files are taken whole and not cut off TEXT.

    With `valid` alone there is no test part; with `test` alone validation is cut off TEXT.
    """
    files = _read_files(texts, options)
    valid_files = _read_files(valid, options) if valid else []
    test_files = _read_files(test, options) if test else []
    if valid or test:
        _check_apart(files, valid_files, test_files)
    wanted = () if valid else ("valid",) if test else ("valid", "test")
    documents = _documents(files, options)
    parts, block = _split(documents, options, split, wanted)
    record = SplitRecord(
        split, block, options, _held_out(valid_files, options), _held_out(test_files, options)
    )
    for name, given in (("valid", valid_files), ("test", test_files)):
        if given:
            parts[name] = Part(tuple(d.text for d in _documents(given, options)))
    names = tuple(file.name for file in files)
    sha256 = _sha256(documents)
    return Corpus(names, sha256, parts["train"], parts["valid"], parts.get("test"), record)


def _split(
    documents: list[Document], options: TextOptions, split: str, wanted: Sequence[str]
) -> tuple[dict[str, Part], int]:
    """The parts cut off the documents, by name, and the block size."""
    if not wanted:
        return {"train": Part(tuple(d.text for d in documents))}, 0
    total = sum(len(d.text) for d in documents)
    if total < MINIMUM_CHARACTERS:
        raise TextError(
            f"the text is too short: {total} characters",
            f"a split needs at least {MINIMUM_CHARACTERS}; or name --valid and --test files",
        )
    size = min(BLOCK, total // (CYCLE if split == "interleaved" else 2 * CYCLE))
    whole = options.documents != "file"
    units = [
        (owner, text)
        for owner, document in enumerate(documents)
        for text in ([document.text] if whole else _blocks(document.text, size))
    ]
    begins = np.cumsum([0, *(len(text) for _, text in units)])[:-1]
    if split == "tail":
        labels = _tail_labels(begins / total, len(wanted))
    else:
        blocks = _groups(begins, size) if whole else np.arange(len(units))
        labels = _cycle_labels(blocks, len(wanted))
    if len(set(labels.tolist())) <= len(wanted):
        raise TextError(
            f"too few documents for a split: {len(documents)}",
            f"a split needs at least {CYCLE} of like size; or name --valid and --test files",
        )
    return _parts(units, labels.tolist(), ("train", *wanted)), size


def _parts(
    units: list[tuple[int, str]], labels: list[int], names: Sequence[str]
) -> dict[str, Part]:
    """Units (owner, text) by label; neighbours of one owner in one part become one piece."""
    pieces: dict[str, list[str]] = {name: [] for name in names}
    labelled = zip(units, labels, strict=True)
    for (_, label), run in groupby(labelled, key=lambda pair: (pair[0][0], pair[1])):
        pieces[names[label]].append("".join(text for (_, text), _ in run))
    return {name: Part(tuple(texts)) for name, texts in pieces.items()}


def _blocks(text: str, size: int) -> Iterator[str]:
    """The text in blocks of at most `size`, cut behind a line end, else before a blank."""
    begin = 0
    while begin < len(text):
        end = begin + size
        if end < len(text):
            least = begin + (size + 1) // 2
            end = text.rfind("\n", least, end) + 1 or max(0, text.rfind(" ", least, end)) or end
        yield text[begin:end]
        begin = end


def _groups(begins: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Whole documents numbered by block; blocks shrink until there are enough of them."""
    while True:
        groups = np.cumsum(np.diff(begins // size, prepend=0) > 0, dtype=np.int64)
        if groups[-1] + 1 >= CYCLE or size == 1:
            return groups
        size = max(1, size // 2)


def _cycle_labels(blocks: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.int64]:
    """0 for training, then 1, 2 for the held-out parts, from the number of each unit's block."""
    labels = np.zeros(len(blocks), np.int64)
    for label, place in enumerate(HELD_OUT[:parts], 1):
        labels[blocks % CYCLE == place] = label
    return labels


def _tail_labels(begins: npt.NDArray[np.float64], parts: int) -> npt.NDArray[np.int64]:
    """0 for training, then 1, 2 for the last parts, from where in the text each unit begins."""
    bounds = [1 - (parts - part) / CYCLE for part in range(parts)]
    return np.searchsorted(bounds, begins, side="right")


def _documents(files: list[Document], options: TextOptions) -> list[Document]:
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


def _sha256(documents: Iterable[Document]) -> str:
    """Of one document the sha256 of its UTF-8 bytes; several are kept apart by a zero byte."""
    text = "\0".join(document.text for document in documents)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _held_out(files: list[Document], options: TextOptions) -> HeldOut | None:
    if not files:
        return None
    return HeldOut(tuple(f.name for f in files), _sha256(_documents(files, options)))


def _check_apart(*parts: list[Document]) -> None:
    """A file in two parts would be trained and tested on; compared by content."""
    seen: dict[str, tuple[int, str]] = {}
    for part, files in enumerate(parts):
        for file in files:
            owner, name = seen.setdefault(_sha256([file]), (part, file.name))
            if owner != part:
                raise TextError(
                    f"the same text is in two parts: '{name}' and '{file.name}'",
                    "training, validation and test texts must differ: leave it out of one",
                )


def _count_words(text: str) -> int:
    count = 0
    for begin in range(0, len(text), _WORD_STEP):
        step = text[begin : begin + _WORD_STEP]
        cut = begin > 0 and not (text[begin - 1].isspace() or step[0].isspace())
        count += len(step.split()) - cut
    return count


def _read_files(texts: Sequence[str], options: TextOptions) -> list[Document]:
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
