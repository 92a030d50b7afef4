"""Words, punctuation marks and line ends; the text comes back exactly, blanks included.

**In:** the training part of a text.
**Out:** one id a token; id 0 is `<unk>`, then separators, then words by falling frequency.

Between two tokens of a line an *expected* separator, one space or nothing, costs no token: a space
between words; around each punctuation mark, and at line starts and ends, whichever training saw
more often. Any other separator is a token: the blanks as they are, or a `<join>`, the empty text,
where a space was expected. So text of known words and separators decodes to itself, and
pre-tokenised text ("in France .") has one token for each chunk between blanks and each line end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmcli.settings import setting
from lmcli.tokenizers.base import (
    UNKNOWN,
    Chunk,
    Chunked,
    Decoder,
    Encoded,
    Ids,
    Tokenizer,
    good_turing,
    saved_rate,
)
from lmcli.tokenizers.byte import printable
from lmcli.tokenizers.word.spacing import Spacing, TokenCounts
from lmcli.tokenizers.word.splitting import find_in, find_pairs, find_split, pair_ends, parted

_NONE = np.empty(0, np.int64)
_MEMO = 1 << 20  # gap-and-token pairs remembered by an encoder

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WordSettings:
    """What is a word, and which of them get an id."""

    min_count: int = setting(1, "words seen less often in training are unknown", least=1)
    max_vocabulary: int | None = setting(
        None, "keep this many words, the most frequent; none keeps all", least=1, unset="none"
    )
    split: Literal["auto", "punctuation", "space"] = setting(
        "auto", "cut at punctuation marks, or at white space only; auto sees what the text is"
    )


class WordTokenizer(Tokenizer):
    """A word, a punctuation mark or a line end is a token."""

    name = "word"
    unknown = 0
    Settings = WordSettings

    def __init__(
        self,
        split: str,
        words: list[str],
        separators: list[str],
        spacing: Spacing,
        unknown_rate: float | None = None,
    ) -> None:
        self._split, self._words, self._separators = split, words, separators
        self._spacing = spacing
        self._symbols = [UNKNOWN, *separators, *words]
        super().__init__(len(self._symbols), unknown_rate)
        ids = {symbol: number for number, symbol in enumerate(self._symbols)}
        self._pairs = _Pairs(ids, len(self._symbols))
        # arrays over token ids and, last, the start id: a document begins like a line
        self._before = np.array([*map(spacing.before, self._symbols), False])
        self._after = np.array([*map(spacing.after, self._symbols), spacing.line_start])
        gap_ids = [ids.get("", 0), ids.get(" ", 0), *range(self.size)]
        self._gap_ids = np.array(gap_ids, np.int32)

    @classmethod
    def train(cls, documents: Iterable[str], settings: WordSettings) -> WordTokenizer:
        documents = documents if isinstance(documents, Sequence | Chunked) else list(documents)
        split = find_split(documents) if settings.split == "auto" else settings.split
        counts = TokenCounts(documents, split)
        spacing = counts.spacing()
        counted = dict(counts.words())
        marked = counted.pop(UNKNOWN, 0)
        frequent = [word for word, n in counted.items() if n >= settings.min_count]
        words = frequent[: settings.max_vocabulary]
        gaps = counts.unexpected_gaps(spacing, set(words))
        separators = [gap for gap, n in sorted(gaps.items()) if n >= settings.min_count]
        first_out = counted[frequent[len(words)]] if len(words) < len(frequent) else 0
        least = max(settings.min_count, first_out)
        rare = sum(n for n in counted.values() if n <= least)
        rare += sum(n for n in gaps.values() if n <= settings.min_count)
        tokens = marked + sum(counted.values()) + sum(gaps.values())
        # where <unk> is a word of the text, as in WikiText, its chance is the model's to learn
        rate = good_turing(rare + marked, tokens) if marked <= rare else None
        return cls(split, words, separators, spacing, rate)

    def encode(self, text: str) -> Ids:
        ids = (ids for _, ids, _ in self._encoded(text, self.start))
        return np.concatenate([np.empty(0, np.int32), *ids])

    def encode_all(self, chunks: Iterable[Chunk]) -> Iterator[Ids]:
        previous = self.start
        for part in (part for chunk in chunks for part in chunk.lines()):
            for pairs, firsts in find_in(part, self._split):
                numbers, written = self._read(pairs, previous, firsts)
                ids = numbers[written]
                if len(firsts):  # a start id where a document begins
                    places = np.cumsum(np.append(0, written.sum(1)))[firsts]
                    ids = np.insert(ids, places, self.start)
                yield ids
                previous = int(numbers[-1, 1])
            if empty := part.empty_at_end():
                yield np.full(empty, self.start, np.int32)
                previous = self.start

    def encode_with_ends(self, text: str) -> Encoded:
        return self.encode_rest_with_ends(text, self.start)

    def encode_rest_with_ends(self, text: str, previous: int) -> Encoded:
        ids: list[Ids] = [np.empty(0, np.int32)]
        ends, offset = [np.empty(0, np.int64)], 0
        for pairs, some, written in self._encoded(text, previous):
            ids.append(some)
            ends.append(offset + pair_ends(pairs)[written])
            offset += sum(map(len, pairs))
        return Encoded(np.concatenate(ids), np.concatenate(ends))

    def _encoded(self, text: str, previous: int) -> Iterator[tuple[list[str], Ids, Flags]]:
        """Some pairs at a time, their ids, and which gaps and tokens of them are written."""
        for pairs in find_pairs(text, self._split):
            numbers, written = self._read(pairs, previous, _NONE)
            yield pairs, numbers[written], written
            previous = int(numbers[-1, 1])

    def _read(self, pairs: list[str], previous: int, firsts: Ids) -> tuple[Ids, Flags]:
        """Gap id and token id of each pair, and which of them are written as tokens.

        The `firsts` are pairs at which a document begins.
        Shapes: (pairs, 2) both.
        """
        packed = np.fromiter(map(self._pairs.__getitem__, pairs), np.int64, len(pairs))
        gaps, tokens = np.divmod(packed, self.size + 1)
        expected = self._before[tokens]
        expected[0] &= self._after[previous]
        expected[1:] &= self._after[tokens[:-1]]
        expected[firsts] = self._before[tokens[firsts]] & self._after[self.start]
        ids = np.stack([self._gap_ids[gaps], tokens.astype(np.int32)], axis=1)
        return ids, np.stack([gaps != expected, tokens < self.size], axis=1)

    def decoder(self) -> WordDecoder:
        return WordDecoder(
            self._symbols, 1 + len(self._separators), self._before.tolist(), self._after.tolist()
        )

    def symbol(self, token: int) -> str:
        return printable(self._symbols[token].encode()) or "<join>"

    def known_texts(self) -> Sequence[str]:
        return self._symbols[1:]

    def unknown_text(self, piece: str) -> str:
        gap, symbol = parted(piece)  # the gap is implied, or is itself the token
        return symbol or gap

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "split": self._split,
            "no_space_before": sorted(self._spacing.no_space_before),
            "no_space_after": sorted(self._spacing.no_space_after),
            "line_start": self._spacing.line_start,
            "line_end": self._spacing.line_end,
            "separators": self._separators,
            "words": self._words,
            "unknown_rate": self.unknown_rate,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WordTokenizer:
        if data["split"] not in ("punctuation", "space"):
            raise ValueError(f"no split named {data['split']!r}")
        words, separators = _texts(data, "words"), _texts(data, "separators")
        if len({UNKNOWN, *separators, *words}) < 1 + len(separators) + len(words):
            raise ValueError("a token comes twice")
        spacing = Spacing(
            frozenset(_texts(data, "no_space_before")),
            frozenset(_texts(data, "no_space_after")),
            bool(data["line_start"]),
            bool(data["line_end"]),
        )
        return cls(data["split"], words, separators, spacing, saved_rate(data))


class WordDecoder(Decoder):
    """Writes the expected separator before a token, unless a separator token has just been read."""

    def __init__(
        self, symbols: list[str], first_word: int, before: list[bool], after: list[bool]
    ) -> None:
        self._symbols, self._first_word = symbols, first_word
        self._before, self._after = before, after
        self._space = after[-1]  # whether the token before expects a space after it

    def push(self, token: int) -> str:
        if 0 < token < self._first_word:
            self._space = False
            return self._symbols[token]
        gap = " " if self._space and self._before[token] else ""
        self._space = self._after[token]
        return gap + self._symbols[token]


class _Pairs(dict[str, int]):
    """A gap with the token after it -> gap number * (size + 1) + token id.

    Gap numbers: 0 nothing, 1 a space, else 2 + the separator's id. A gap that ends the text has the
    start id for its token.
    """

    def __init__(self, ids: dict[str, int], size: int) -> None:
        self._ids, self._size = ids, size

    def __missing__(self, pair: str) -> int:
        gap, symbol = parted(pair)
        token = self._ids.get(symbol, 0) if symbol else self._size
        number = ("", " ").index(gap) if gap in ("", " ") else 2 + self._ids.get(gap, 0)
        if len(self) >= _MEMO:
            self.clear()
        self[pair] = packed = number * (self._size + 1) + token
        return packed


def _texts(data: dict[str, Any], key: str) -> list[str]:
    values = data[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} must be a list of texts")
    "".join(values).encode()  # a lone surrogate is a ValueError
    return values
