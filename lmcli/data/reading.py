"""TEXT arguments -> texts: bytes from anywhere as UTF-8, ready to be cut into documents.

**In:** files, globs, folders, ``-`` for standard input, compressed files, URLs, and `TextOptions`.
**Out:** `Text`s, or `Document`s; what is missing, empty or no text is a TextError that says where.

A file of UTF-8 is read where it stands. All else is decoded once and put aside, in memory while it
is little, and then in a temporary file ($TMPDIR says where).
"""

from __future__ import annotations

import codecs
import io
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from lmcli.data.cutting import Digest, Segments, scan
from lmcli.data.documents import Documents
from lmcli.data.fetching import fetch, is_packed
from lmcli.data.locating import find_texts, is_special, unreadable
from lmcli.data.texts import InPlace, Limits, ProgressCounter, Spool, Text, not_text
from lmcli.errors import TextError, did_you_mean
from lmcli.settings import setting

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


class Document(NamedTuple):
    """A text that is read from the start state. The name is a file, or file:line."""

    name: str
    text: str


def read_documents(texts: Sequence[str], options: TextOptions) -> list[Document]:
    """The documents of TEXT arguments in order; a text that cannot be read is a TextError."""
    names, pieces = find_documents(texts, options)
    return [Document(name, piece) for name, piece in zip(names, pieces, strict=True)]


def find_documents(
    texts: Sequence[str], options: TextOptions, reader: Reader | None = None
) -> tuple[Iterator[str], Documents]:
    """Names of the documents, and the documents, which are read when they are asked for."""
    reader = reader or Reader()
    opened = open_texts(find_texts(texts), options, reader)
    units = [scan(text, options.documents, Digest(), meter=reader.meter) for text in opened]
    chars = sum(int(u.chars.sum(dtype="int64")) for u in units)
    pieces = Documents([u.documents() for u in units], chars)
    return chain.from_iterable(map(_names, units)), pieces


def _names(units: Segments) -> Iterator[str]:
    name = units.spans.text.name
    if not units.whole:
        yield name
        return
    for number in units.numbers:
        yield f"{name}:{number}"


class Reader:
    """What texts are read with: how much at a time, where they are put aside, who looks on."""

    def __init__(self, limits: Limits | None = None, meter: ProgressCounter | None = None) -> None:
        self.limits = limits or Limits()
        self.spool = Spool(self.limits.memory)
        self.meter = meter or ProgressCounter()


def open_texts(names: Iterable[str], options: TextOptions, reader: Reader) -> Iterator[Text]:
    """Each file as one text."""
    _check_encoding(options.encoding)
    plain = codecs.lookup(options.encoding).name == "utf-8" and options.errors == "strict"
    for name in names:
        try:
            stands = plain and options.newlines == "keep" and _is_file(name)
        except OSError as error:
            raise unreadable(name, error) from None
        yield _in_place(name, reader) if stands else _put_aside(name, options, reader)


def _is_file(name: str) -> bool:
    special = is_special(name) or is_packed(name)
    return not special and stat.S_ISREG(Path(name).stat().st_mode)


def _in_place(name: str, reader: Reader) -> Text:
    """A file as it stands; a small one is remembered, as it may be edited while it is used."""
    try:
        with Path(name).open("rb") as file:
            mark = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        source = InPlace(name)
    except OSError as error:
        raise unreadable(name, error) from None
    skipped = len(codecs.BOM_UTF8) if mark else 0
    size, limits, spool = source.size - skipped, reader.limits, reader.spool
    if spool.size + size > limits.memory:
        return Text(name, source, skipped, size, False, skipped, limits.window)
    begin = spool.size
    spool.write(source.read(skipped, source.size))
    return Text(name, spool, begin, size, False, skipped, limits.window)


def _put_aside(name: str, options: TextOptions, reader: Reader) -> Text:
    """A text that must be fetched or decoded first."""
    spool, window = reader.spool, reader.limits.window
    begin = spool.size
    reader.meter.begin("fetching", 0)
    for text in _clean(_decode(name, fetch(name, window), options), options):
        data = text.encode("utf-8", "surrogatepass")
        spool.write(data)
        reader.meter.add(len(data))
    return Text(name, spool, begin, spool.size - begin, True, 0, window)


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
        "".encode(encoding)  # refuses what turns bytes into bytes, such as base64
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
