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

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmcli.settings import setting
from lmcli.tokenizers.base import UNKNOWN, Decoder, Encoded, Ids, Offsets, Tokenizer
from lmcli.tokenizers.byte import printable

_BREAKS = ("\n", "\r\n", "\r")
_GAP = re.compile(r"[^\S\r\n]*")
_SLICE = 1 << 20  # characters split at a time
_MEMO = 1 << 20  # gap-and-token pairs remembered by an encoder
_AUTO_SHARE = 0.05  # of all chunks may be cut by the punctuation rule for split=auto to mean space

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WordSettings:
    """What is a word, and which of them are kept."""

    min_count: int = setting(1, "words seen less often in training are unknown", least=1)
    max_vocabulary: int | None = setting(
        None, "keep this many words, the most frequent; none keeps all", least=1
    )
    split: Literal["auto", "punctuation", "space"] = setting(
        "auto", "cut at punctuation marks, or at white space only; auto sees what the text is"
    )


@dataclass(frozen=True)
class Spacing:
    """Where a single space is expected."""

    no_space_before: frozenset[str]
    no_space_after: frozenset[str]
    line_start: bool
    line_end: bool

    def before(self, symbol: str) -> bool:
        """Whether a space is expected before this token."""
        return self.line_end if symbol in _BREAKS else symbol not in self.no_space_before

    def after(self, symbol: str) -> bool:
        """Whether a space is expected after this token."""
        return self.line_start if symbol in _BREAKS else symbol not in self.no_space_after


class WordTokenizer(Tokenizer):
    """A word, a punctuation mark or a line end is a token."""

    name = "word"
    Settings = WordSettings

    def __init__(
        self, split: str, words: list[str], separators: list[str], spacing: Spacing
    ) -> None:
        self._split, self._words, self._separators = split, words, separators
        self._spacing = spacing
        self._symbols = [UNKNOWN, *separators, *words]
        ids = {symbol: number for number, symbol in enumerate(self._symbols)}
        self._pairs = _Pairs(ids, len(self._symbols))
        # arrays over token ids and, last, the start id: a document begins like a line
        self._before = np.array([*map(spacing.before, self._symbols), False])
        self._after = np.array([*map(spacing.after, self._symbols), spacing.line_start])
        gap_ids = [ids.get("", 0), ids.get(" ", 0), *range(self.size)]
        self._gap_ids = np.array(gap_ids, np.int32)

    @classmethod
    def train(cls, pieces: Iterable[str], settings: WordSettings) -> WordTokenizer:
        pieces = list(pieces)
        split = _find_split(pieces) if settings.split == "auto" else settings.split
        seen = _Seen(pieces, split)
        spacing = seen.spacing(split)
        kept = [w for w, n in seen.words() if n >= settings.min_count and w != UNKNOWN]
        words = kept[: settings.max_vocabulary]
        gaps = seen.unexpected_gaps(spacing, set(words))
        separators = [gap for gap, n in sorted(gaps.items()) if n >= settings.min_count]
        return cls(split, words, separators, spacing)

    @property
    def size(self) -> int:
        return len(self._symbols)

    @property
    def unknown(self) -> int:
        return 0

    def encode(self, text: str) -> Ids:
        ids, previous = [np.empty(0, np.int32)], self.start
        for found in _found(text, self._split):
            pairs, written = self._read(found, previous)
            ids.append(pairs[written])
            previous = int(pairs[-1, 1])
        return np.concatenate(ids)

    def encode_with_ends(self, text: str) -> Encoded:
        ids, ends = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        previous, offset = self.start, 0
        for found in _found(text, self._split):
            pairs, written = self._read(found, previous)
            ids.append(pairs[written])
            ends.append(offset + _pair_ends(found)[written])
            previous, offset = int(pairs[-1, 1]), offset + sum(map(len, found))
        return Encoded(np.concatenate(ids), np.concatenate(ends))

    def _read(self, found: list[str], previous: int) -> tuple[Ids, Flags]:
        """Gap id and token id of each pair, and which of them are written as tokens.

        Shapes: (pairs, 2) both.
        """
        packed = np.fromiter(map(self._pairs.__getitem__, found), np.int64, len(found))
        gaps, tokens = np.divmod(packed, self.size + 1)
        expected = self._before[tokens]
        expected[0] &= self._after[previous]
        expected[1:] &= self._after[tokens[:-1]]
        ids = np.stack([self._gap_ids[gaps], tokens.astype(np.int32)], axis=1)
        return ids, np.stack([gaps != expected, tokens < self.size], axis=1)

    def decoder(self) -> WordDecoder:
        return WordDecoder(
            self._symbols, 1 + len(self._separators), self._before.tolist(), self._after.tolist()
        )

    def symbol(self, token: int) -> str:
        return printable(self._symbols[token].encode()) or "<join>"

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
        return cls(data["split"], words, separators, spacing)


class WordDecoder(Decoder):
    """Writes the expected separator before a token, unless a separator token has just been read."""

    def __init__(
        self, symbols: list[str], first_word: int, before: list[bool], after: list[bool]
    ) -> None:
        self._symbols, self._first_word = symbols, first_word
        self._before, self._after = before, after
        self._space = after[-1]  # whether the token before expects a space behind it

    def push(self, token: int) -> str:
        if 0 < token < self._first_word:
            self._space = False
            return self._symbols[token]
        gap = " " if self._space and self._before[token] else ""
        self._space = self._after[token]
        return gap + self._symbols[token]


class _Pairs(dict[str, int]):
    """A gap with the token behind it -> gap number * (size + 1) + token id.

    Gap numbers: 0 nothing, 1 a space, else 2 + the separator's id. A gap that ends the text has the
    start id for its token.
    """

    def __init__(self, ids: dict[str, int], size: int) -> None:
        self._ids, self._size = ids, size

    def __missing__(self, pair: str) -> int:
        gap, symbol = _parted(pair)
        token = self._ids.get(symbol, 0) if symbol else self._size
        number = ("", " ").index(gap) if gap in ("", " ") else 2 + self._ids.get(gap, 0)
        if len(self) >= _MEMO:
            self.clear()
        self[pair] = packed = number * (self._size + 1) + token
        return packed


class _Numbers(dict[str, int]):
    """Texts numbered in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


class _Seen:
    """What training saw: at each place a gap, the token behind it and the token before it.

    The edge of a piece is a token too, the empty one.
    """

    def __init__(self, pieces: Iterable[str], split: str) -> None:
        pairs, gaps, symbols = _Numbers(), _Numbers({"": 0, " ": 1}), _Numbers({"": 0})
        places = [np.empty(0, np.int32)]
        for piece in pieces:
            places.append(np.full(1, pairs[""], np.int32))
            for found in _found(piece, split):
                places.append(np.fromiter(map(pairs.__getitem__, found), np.int32, len(found)))
        place = np.concatenate(places)
        parts = [(gaps[gap], symbols[symbol]) for gap, symbol in map(_parted, pairs)]
        of_pair = np.array(parts, np.int32).reshape(-1, 2)
        self.gap = of_pair[place[1:], 0]
        self.token = of_pair[place[1:], 1]
        self.before = of_pair[place[:-1], 1]
        self.gaps, self.symbols = list(gaps), list(symbols)

    def words(self) -> list[tuple[str, int]]:
        """All tokens with their counts, by falling count."""
        counts = np.bincount(self.token, minlength=len(self.symbols)).tolist()
        found = list(zip(self.symbols, counts, strict=True))[1:]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def spacing(self, split: str) -> Spacing:
        """Where most gaps are a single space."""
        inner = np.array([s not in ("", *_BREAKS) for s in self.symbols])
        breaks = np.array([s in _BREAKS for s in self.symbols])
        space = self.gap == 1
        starts = space[~inner[self.before] & (self.token > 0)]
        ends = space[inner[self.before] & breaks[self.token]]
        within = inner[self.before] & inner[self.token]
        marks = [split == "punctuation" and _is_mark(s) for s in self.symbols]
        return Spacing(
            self._unspaced(marks, self.token[within], space[within]),
            self._unspaced(marks, self.before[within], space[within]),
            bool(2 * starts.sum() > len(starts)),
            bool(2 * ends.sum() > len(ends)),
        )

    def _unspaced(self, marks: list[bool], token: Ids, space: Flags) -> frozenset[str]:
        """Those of the marks that mostly have no space."""
        balance = np.bincount(token, weights=2.0 * space - 1, minlength=len(self.symbols))
        unspaced = np.flatnonzero((balance < 0) & marks)
        return frozenset(self.symbols[i] for i in unspaced)

    def unexpected_gaps(self, spacing: Spacing, known: set[str]) -> dict[str, int]:
        """How often each gap stands where another is expected."""
        before = [s not in known or spacing.before(s) for s in self.symbols]
        after = [s not in known or spacing.after(s) for s in self.symbols]
        before[0], after[0] = False, spacing.line_start
        expected = np.array(after)[self.before] & np.array(before)[self.token]
        counts = np.bincount(self.gap[self.gap != expected], minlength=len(self.gaps))
        return {self.gaps[i]: int(counts[i]) for i in np.flatnonzero(counts)}


def _found(text: str, split: str) -> Iterator[list[str]]:
    """The gap-and-token pairs of a text, some thousands at a time; together they are the text."""
    pattern, begin = _pattern(split), 0
    while begin < len(text):
        end = text.rfind("\n", begin, begin + _SLICE) + 1 or text.find("\n", begin + _SLICE) + 1
        end = end if end and len(text) - begin > _SLICE else len(text)
        yield pattern.findall(text, begin, end)
        begin = end


def _parted(pair: str) -> tuple[str, str]:
    gap = pair[: _gap_length(pair)]
    return gap, pair[len(gap) :]


def _gap_length(pair: str) -> int:
    found = _GAP.match(pair)
    return found.end() if found else 0


def _pair_ends(found: list[str]) -> Offsets:
    """Where the gap and where the token of each pair ends. Shapes: (pairs, 2)."""
    ends = np.cumsum(np.fromiter(map(len, found), np.int64, len(found)))
    gaps = np.fromiter(map(_gap_length, found), np.int64, len(found))
    begins = np.append(0, ends[:-1])
    return np.stack([begins + gaps, ends], axis=1)


def _is_mark(symbol: str) -> bool:
    return symbol not in ("", UNKNOWN, *_BREAKS) and not symbol[0].isalnum()


def _find_split(pieces: Iterable[str]) -> Literal["punctuation", "space"]:
    """`space` if the punctuation rule would cut hardly any of the chunks between white space."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        for begin in range(0, len(piece), _SLICE):
            counts.update(piece[begin : begin + _SLICE].split())
    whole = re.compile(_token("punctuation"))
    cut = sum(n for chunk, n in counts.items() if not whole.fullmatch(chunk))
    return "space" if cut < _AUTO_SHARE * counts.total() else "punctuation"


@functools.cache
def _pattern(split: str) -> re.Pattern[str]:
    """A gap and the token behind it, or the gap that ends the text."""
    return re.compile(rf"[^\S\r\n]*(?:{_token(split)}|\r\n?|\n)|[^\S\r\n]+")


@functools.cache
def _token(split: str) -> str:
    if split == "space":
        return r"\S+"
    letters = r"[^\W_]+"
    inner = rf"(?:['’-]|(?<=\d)[.,](?=\d)){letters}|[{_combining_marks()}]+(?:{letters})?"
    return rf"{letters}(?:{inner})*|{UNKNOWN}|\S"


def _combining_marks() -> str:
    """The marks that belong to the letter before them, and the joiners, as ranges of a regex."""
    codes = [c for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M"]
    codes = sorted([*codes, 0x200C, 0x200D])
    begins = [c for c, before in zip(codes, [0, *codes], strict=False) if c != before + 1]
    ends = [c for c, behind in zip(codes, [*codes[1:], 0], strict=True) if c != behind - 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(begins, ends, strict=True))


def _texts(data: dict[str, Any], key: str) -> list[str]:
    values = data[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} must be a list of texts")
    return values


Member = WordTokenizer
