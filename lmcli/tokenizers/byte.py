"""UTF-8 bytes: 256 tokens, every text can be written in them and nothing is ever unknown.

**In:** nothing; the vocabulary is the same for every text.
**Out:** one id a byte. A lone surrogate, which UTF-8 cannot write, is read as "?".
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.tokenizers.base import Chunk, Decoder, Encoded, Ids, Offsets, Tokenizer


@dataclass(frozen=True)
class ByteSettings:
    """Bytes need no settings."""


class ByteTokenizer(Tokenizer):
    """A byte is a token, and its value the id."""

    name = "byte"
    spells = True
    Settings = ByteSettings

    @classmethod
    def train(cls, documents: Iterable[str], settings: ByteSettings) -> ByteTokenizer:
        return cls()

    @property
    def size(self) -> int:
        return 256

    @property
    def unknown(self) -> None:
        return None

    def encode(self, text: str) -> Ids:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def encode_all(self, chunks: Iterable[Chunk]) -> Iterator[Ids]:
        for chunk in chunks:
            ids = np.frombuffer(utf8(chunk.text), np.uint8)
            begins = chunk.begins
            if len(ids) > len(chunk.text):  # some characters are several bytes
                firsts = np.append(np.flatnonzero((ids & 0xC0) != 0x80), len(ids))
                begins = firsts[begins]
            yield np.insert(ids.astype(np.uint16), begins, self.start)

    def encode_with_ends(self, text: str) -> Encoded:
        data = utf8(text)
        return Encoded(np.frombuffer(data, np.uint8).astype(np.int32), character_ends(data))

    def decoder(self) -> Utf8Decoder:
        return Utf8Decoder([bytes([value]) for value in range(256)])

    def symbol(self, token: int) -> str:
        return printable(bytes([token]))

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ByteTokenizer:
        return cls()


class Utf8Decoder(Decoder):
    """Tokens that stand for bytes as text; a byte that fits nowhere becomes U+FFFD."""

    def __init__(self, token_bytes: list[bytes]) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._token_bytes[token])

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


def utf8(text: str) -> bytes:
    """A text as UTF-8, whatever is in it.

    >>> utf8("é"), utf8("\\udc80")
    (b'\\xc3\\xa9', b'?')
    """
    return text.encode("utf-8", "replace")


def character_ends(data: bytes) -> Offsets:
    """How many characters of a UTF-8 text are complete after each of its bytes.

    >>> character_ends("aé".encode()).tolist()
    [1, 1, 2]
    """
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    begun = np.cumsum(begins, dtype=np.int64)
    return np.append(begun[1:] - 1, begun[-1:])


def printable(data: bytes) -> str:
    """Bytes as visible text: what is no printable character is escaped.

    >>> printable(b"a"), printable(b"\\n"), printable(b"\\xe2")
    ('a', '\\\\n', '\\\\xe2')
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
        return "".join(c if c.isascii() and c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


Member = ByteTokenizer
