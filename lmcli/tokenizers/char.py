"""Characters: one token for each Unicode character of the training part, in code point order.

**In:** the training part of a text.
**Out:** one id a character; id 0 is any other character, decoded as U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.settings import setting
from lmcli.tokenizers.base import (
    UNKNOWN,
    Chunk,
    Decoder,
    Encoded,
    Ids,
    Tokenizer,
    chunks_of,
    good_turing,
    saved_rate,
)
from lmcli.tokenizers.byte import printable

_CODE_POINTS = 0x110000
_SURROGATES = slice(0xD800, 0xE000)  # no characters, and JSON cannot keep them apart
_SLICE = 1 << 18  # characters handled at a time, so that temporary arrays stay small


@dataclass(frozen=True)
class CharSettings:
    """What may become a token."""

    min_count: int = setting(1, "characters seen less often in training are unknown", least=1)


class CharTokenizer(Tokenizer):
    """A character is a token."""

    name = "char"
    spells = True
    unknown = 0
    Settings = CharSettings

    def __init__(self, characters: str, unknown_rate: float | None = None) -> None:
        super().__init__(1 + len(characters), unknown_rate)
        self._characters = characters
        self._ids = np.zeros(_CODE_POINTS, np.int32)
        self._ids[_code_points(characters)] = np.arange(1, len(characters) + 1)

    @classmethod
    def train(cls, documents: Iterable[str], settings: CharSettings) -> CharTokenizer:
        counts = np.zeros(_CODE_POINTS, np.int64)
        for chunk in chunks_of(documents):
            for begin in range(0, len(chunk.text), _SLICE):
                part = np.bincount(_code_points(chunk.text[begin : begin + _SLICE]))
                counts[: len(part)] += part
        counts[_SURROGATES] = 0
        rare = int(counts[counts <= settings.min_count].sum())
        known = "".join(map(chr, np.flatnonzero(counts >= settings.min_count).tolist()))
        return cls(known, good_turing(rare, int(counts.sum())))

    def encode(self, text: str) -> Ids:
        ids = np.empty(len(text), np.int32)
        for begin in range(0, len(text), _SLICE):
            codes = _code_points(text[begin : begin + _SLICE])
            np.take(self._ids, codes, out=ids[begin : begin + _SLICE], mode="clip")
        return ids

    def encode_all(self, chunks: Iterable[Chunk]) -> Iterator[Ids]:
        for chunk in chunks:
            yield np.insert(self.encode(chunk.text), chunk.begins, self.start)

    def encode_with_ends(self, text: str) -> Encoded:
        return Encoded(self.encode(text), np.arange(1, len(text) + 1, dtype=np.int64))

    def decoder(self) -> CharDecoder:
        return CharDecoder(self._characters)

    def symbol(self, token: int) -> str:
        return printable(self._characters[token - 1].encode()) if token else UNKNOWN

    def known_texts(self) -> Sequence[str]:
        return self._characters

    def to_json(self) -> dict[str, Any]:
        data = {"name": self.name, "characters": self._characters}
        return data | {"unknown_rate": self.unknown_rate}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CharTokenizer:
        characters = data["characters"]
        if not isinstance(characters, str) or len(set(characters)) < len(characters):
            raise ValueError("characters must be a text in which none comes twice")
        characters.encode()  # a lone surrogate is a ValueError
        return cls(characters, saved_rate(data))


class CharDecoder(Decoder):
    """Each id is a character at once."""

    def __init__(self, characters: str) -> None:
        self._symbols = "\N{REPLACEMENT CHARACTER}" + characters

    def push(self, token: int) -> str:
        return self._symbols[token]


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


Member = CharTokenizer
