"""What every tokenizer does: text <-> token ids, losslessly for known symbols.

**In:** the training part of a text (the vocabulary comes from nothing else).
**Out:** ids from 0 to size - 1. One more id, `start` = size, marks where a document begins; it is
read by models and never predicted, so it has no place in the output distribution.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lmcli.settings import Settings

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Encoded:
    """A text as tokens. `ends[i]` is the offset in characters just behind token i; the last is
    len(text).

    Token i covers text[ends[i-1]:ends[i]], an implied space counting to the token behind it.
    """

    ids: Ids
    ends: Offsets


class Decoder(abc.ABC):
    """Turns ids into text one at a time, holding back what is not yet a whole symbol."""

    @abc.abstractmethod
    def push(self, token: int) -> str:
        """The text that this token makes certain; may be empty."""

    def finish(self) -> str:
        """What is still held back at the end."""
        return ""


class Tokenizer(abc.ABC):
    """Text <-> ids. A member is made by `train` or `from_json`, never by hand."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    spells: ClassVar[bool] = False
    """True where words are spelled out of smaller tokens, so that a word has no end of its own."""

    @classmethod
    @abc.abstractmethod
    def train(cls, pieces: Iterable[str], settings: Any) -> Tokenizer:
        """A tokenizer whose vocabulary comes from these pieces of text (iterated once)."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many tokens can be predicted: ids 0 .. size - 1."""

    @property
    def start(self) -> int:
        """The id that marks the beginning of a document; read, never predicted."""
        return self.size

    @property
    @abc.abstractmethod
    def unknown(self) -> int | None:
        """The id of the unknown symbol, or None where every text can be encoded."""

    @abc.abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, without the start id."""

    @abc.abstractmethod
    def encode_with_ends(self, text: str) -> Encoded:
        """The same ids, with the place in the text where each token ends."""

    @abc.abstractmethod
    def decoder(self) -> Decoder:
        """A fresh decoder for one stream of ids."""

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of some ids; for known symbols decode(encode(text)) == text."""
        decoder = self.decoder()
        return "".join([decoder.push(int(i)) for i in ids]) + decoder.finish()

    @abc.abstractmethod
    def symbol(self, token: int) -> str:
        """One token in a form fit to show: the word, the character, the byte."""

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that from_json needs, as plain JSON values, "name" among them."""

    @classmethod
    @abc.abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Tokenizer:
        """The tokenizer that to_json was called on."""
