"""What every tokenizer does: text <-> token ids, losslessly for known symbols.

**In:** the training part of a text (the vocabulary comes from nothing else).
**Out:** ids from 0 to size - 1. One more id, `start` = size, marks where a document begins; it is
read by models and never predicted, so it has no place in the output distribution.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from lmcli.report.progress import Message, OnProgress
from lmcli.settings import Settings

Ids = npt.NDArray[np.integer[Any]]
Offsets = npt.NDArray[np.int64]
UNKNOWN = "<unk>"
SAFE_SPLIT = re.compile(r"(?<=\S)(?=[ \n]\S)")
"""where a text can be cut: no tokenizer looks across such a place"""
_JOINED = 1 << 20
"""characters of small documents that are laid end to end"""


@dataclass(frozen=True)
class Chunk:
    """Documents end to end, and the characters at which one begins.

    A text before the first begin goes on with the last document of the chunk before; it was cut at
    a safe split point, where a word ends and a single blank or line end follows.
    """

    text: str
    begins: Offsets

    def texts(self) -> list[str]:
        """The documents; the first may be the rest of the last one before, or nothing."""
        edges = [0, *self.begins.tolist(), len(self.text)]
        return [self.text[a:b] for a, b in pairwise(edges)]

    def empty_at_end(self) -> int:
        """How many documents begin after the last character."""
        return int(np.count_nonzero(self.begins == len(self.text)))

    def lines(self) -> Iterator[Chunk]:
        """The same in parts within which documents begin after line ends and nowhere else."""
        edges, text = self.begins.tolist(), self.text
        cuts = [i for i, begin in enumerate(edges) if begin and text[begin - 1] != "\n"]
        begins = [0, *(edges[i] for i in cuts), len(text)]
        for (low, high), (begin, end) in zip(
            pairwise([0, *cuts, len(edges)]), pairwise(begins), strict=True
        ):
            yield Chunk(text[begin:end], self.begins[low:high] - begin)


@runtime_checkable
class Chunked(Protocol):
    """Documents that give themselves in chunks."""

    def chunks(self) -> Iterator[Chunk]: ...


def chunks_of(documents: Iterable[str]) -> Iterator[Chunk]:
    """Any documents end to end, many small ones at a time."""
    if isinstance(documents, Chunked):
        yield from documents.chunks()
        return
    remaining = iter(documents)
    for document in remaining:
        joined, chars = [document], len(document)
        while chars < _JOINED and (following := next(remaining, None)) is not None:
            joined.append(following)
            chars += len(following)
        yield Chunk("".join(joined), np.cumsum([0, *map(len, joined[:-1])], dtype=np.int64))


@dataclass(frozen=True)
class Encoded:
    """A text as tokens. `ends[i]` is the offset in characters just after token i; the last is
    len(text).

    Token i covers text[ends[i-1]:ends[i]], an implied space counting to the token after it.
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
    unknown: ClassVar[int | None] = None
    """The id of the unknown symbol, or None where every text can be encoded."""

    def __init__(self, size: int, unknown_rate: float | None = None) -> None:
        self.size = size
        """How many tokens can be predicted: ids 0 .. size - 1."""
        self.start = size
        """The id that marks the beginning of a document; read, never predicted."""
        self.unknown_rate = unknown_rate
        """The chance that a token of an unseen text is unknown (`good_turing`); None where it
        was not saved, or where the text has an `<unk>` of its own."""

    @classmethod
    @abc.abstractmethod
    def train(cls, documents: Iterable[str], settings: Any) -> Tokenizer:
        """A tokenizer whose vocabulary comes from these documents.

        They may be more than the memory holds: `chunks_of` gives some at a time.
        """

    @abc.abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, without the start id."""

    def encode_all(self, chunks: Iterable[Chunk]) -> Iterator[Ids]:
        """The ids of all documents end to end, the start id before each; some at a time.

        The rest of a document of the chunk before is encoded as if it began here: members whose
        tokens depend on those before override this.
        """
        start = np.array([self.start], np.int32)
        for chunk in chunks:
            rest, *texts = chunk.texts()
            yield np.concatenate(
                [self.encode(rest), *(ids for t in texts for ids in (start, self.encode(t)))]
            )

    @abc.abstractmethod
    def encode_with_ends(self, text: str) -> Encoded:
        """The same ids, with the place in the text where each token ends."""

    def encode_rest_with_ends(self, text: str, previous: int) -> Encoded:
        """The same of a text that goes on after the token `previous` at a safe split point.

        Members whose tokens depend on those before override this.
        """
        return self.encode_with_ends(text)

    @abc.abstractmethod
    def decoder(self) -> Decoder:
        """A fresh decoder for one stream of ids."""

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of some ids; for known symbols decode(encode(text)) == text."""
        decoder = self.decoder()
        return "".join([decoder.push(int(i)) for i in ids]) + decoder.finish()

    @abc.abstractmethod
    def symbol(self, token: int) -> str:
        """One token in printable form: the word, the character, the byte."""

    def known_texts(self) -> Sequence[str]:
        """What the tokens that are not unknown stand for."""
        return [self.symbol(token) for token in range(self.size) if token != self.unknown]

    def unknown_text(self, piece: str) -> str:
        """What an unknown token stands for, of the text that it covers."""
        return piece

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All that from_json needs, as plain JSON values, "name" among them."""

    @classmethod
    @abc.abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Tokenizer:
        """The tokenizer that to_json was called on."""


def good_turing(unknown: int, tokens: int) -> float:
    """The chance that the next token is unknown.

    `unknown` of the N training `tokens` would be unknown if their own occurrence were left out of
    the vocabulary. Half a token is added on either side (Krichevsky and Trofimov 1981),
    so that nothing is impossible.

    >>> good_turing(2, 99)
    0.025
    """
    return (unknown + 0.5) / (tokens + 1)


def saved_rate(data: dict[str, Any]) -> float | None:
    """The unknown rate in the JSON of a tokenizer; earlier versions saved none."""
    rate = data.get("unknown_rate")
    if rate is not None and not 0 < rate < 1:
        raise ValueError(f"an unknown rate of {rate}")
    return rate


def warn_unknown(tokenizer: Tokenizer, text: str, on_progress: OnProgress) -> None:
    """Warn of the symbols of a text that are not in the vocabulary."""
    if tokenizer.unknown is None or not text:
        return
    encoded = tokenizer.encode_with_ends(text)
    begins = [0, *encoded.ends[:-1].tolist()]
    spans = zip(encoded.ids.tolist(), begins, encoded.ends.tolist(), strict=True)
    unknown = [text[b:e].strip() or text[b:e] for i, b, e in spans if i == tokenizer.unknown]
    if unknown:
        symbols = list(dict.fromkeys(map(repr, unknown)))
        more = f" and {len(symbols) - 8} more" if len(symbols) > 8 else ""
        problem = f"the model has never seen {', '.join(symbols[:8])}{more}: read as unknown"
        on_progress(Message(problem, "warning"))
