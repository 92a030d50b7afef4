"""Where a text puts a single space, and which words it has: what a word tokenizer learns.

**In:** the training part of a text, read once, and the rule by which it is split.
**Out:** `TokenCounts`: counts of words, and of gaps that the `Spacing` does not expect.

Nothing here grows with the length of the text, but with the number of different words in it. To
say where a space is expected it is enough to know punctuation marks and line ends from each other;
all other symbols are of one class, the plain ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lmcli.tokenizers.base import Chunk, Ids, chunks_of
from lmcli.tokenizers.word.splitting import BREAKS, find_in, is_mark, parted

_PLAIN = "plain"  # the class of all words
_FEW = 1 << 20  # combinations that are counted by an array rather than by sorting


@dataclass(frozen=True)
class Spacing:
    """Where a single space is expected."""

    no_space_before: frozenset[str]
    no_space_after: frozenset[str]
    line_start: bool
    line_end: bool

    def before(self, symbol: str) -> bool:
        """Whether a space is expected before this token."""
        return self.line_end if symbol in BREAKS else symbol not in self.no_space_before

    def after(self, symbol: str) -> bool:
        """Whether a space is expected after this token."""
        return self.line_start if symbol in BREAKS else symbol not in self.no_space_after


class _Numbers(dict[str, int]):
    """Texts numbered in the order in which they are first looked up."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        super().__init__({text: number for number, text in enumerate(known)})
        self.new: list[str] = []
        """those that came since this list was last emptied"""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        self.new.append(text)
        return number


class TokenCounts:
    """How often each token came in training, and each gap between symbols of two classes.

    The edge of a document is a token too, the empty one.
    """

    def __init__(self, documents: Iterable[str], split: str) -> None:
        self._split = split
        self._pairs, self._symbols = _Numbers(), _Numbers([""])
        self._gaps = _Numbers(["", " "])
        self._classes = _Numbers([_PLAIN, "", *BREAKS])  # and each mark
        self._kinds: dict[tuple[int, int], int] = {}  # gap and class of a token -> number
        self._of_pair = np.empty((0, 3), np.int32)  # symbol, class, kind
        self._counts = np.zeros(0, np.int64)  # of pairs
        self._table: Counter[tuple[int, int]] = Counter()  # by class before and kind
        previous = self._classes[""]
        for chunk in chunks_of(documents):
            for part in chunk.lines():
                previous = self._count(part, previous)

    def _count(self, part: Chunk, previous: int) -> int:
        """Count what is between documents' edges; the class of the last token."""
        for found, firsts in find_in(part, self._split):
            places = np.fromiter(map(self._pairs.__getitem__, found), np.int64, len(found))
            self._describe()
            np.add.at(self._counts, places, 1)
            _, classes, kinds = self._of_pair[places].T
            before = np.concatenate([[previous], classes[:-1]])
            before[firsts] = self._classes[""]
            self._tabulate(before * len(self._kinds) + kinds)
            previous = int(classes[-1])
        return previous

    def _describe(self) -> None:
        """Note what the pairs are that were met for the first time."""
        rows = []
        for gap, symbol in map(parted, self._pairs.new):
            own = symbol in ("", *BREAKS) or (self._split == "punctuation" and is_mark(symbol))
            of_token = self._classes[symbol if own else _PLAIN]
            kind = self._kinds.setdefault((self._gaps[gap], of_token), len(self._kinds))
            rows.append((self._symbols[symbol], of_token, kind))
        known, self._pairs.new = len(self._pairs) - len(rows), []
        if len(self._pairs) > len(self._counts):  # twice as many, so that it happens rarely
            more = 2 * len(self._pairs) - len(self._counts)
            self._counts = np.pad(self._counts, (0, more))
            self._of_pair = np.pad(self._of_pair, ((0, more), (0, 0)))
        if rows:
            self._of_pair[known : known + len(rows)] = rows

    def _tabulate(self, codes: Ids) -> None:
        width = len(self._kinds)
        if width * len(self._classes) <= _FEW:
            counts = np.bincount(codes)
            found = np.flatnonzero(counts)
            counts = counts[found]
        else:
            found, counts = np.unique(codes, return_counts=True)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._table[divmod(code, width)] += count

    def words(self) -> list[tuple[str, int]]:
        """All tokens with their counts, by falling count."""
        known = len(self._pairs)
        counts = np.zeros(len(self._symbols), np.int64)
        np.add.at(counts, self._of_pair[:known, 0], self._counts[:known])
        found = list(zip(self._symbols, counts.tolist(), strict=True))[1:]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def _gaps_between(self) -> Iterable[tuple[str, int, str, int]]:
        """Class before, number of the gap, class of the token, and how often."""
        classes, kinds = list(self._classes), list(self._kinds)
        for (before, kind), count in self._table.items():
            gap, token = kinds[kind]
            yield classes[before], gap, classes[token], count

    def spacing(self) -> Spacing:
        """Where most gaps are a single space."""
        starts, ends = Counter[bool](), Counter[bool]()
        before_mark, after_mark = Counter[str](), Counter[str]()
        edges = ("", *BREAKS)
        for before, gap, token, count in self._gaps_between():
            space = gap == 1
            if before in edges and token != "":
                starts[space] += count
            elif before not in edges and token in BREAKS:
                ends[space] += count
            elif before not in edges and token not in edges:
                before_mark[token] += count if space else -count
                after_mark[before] += count if space else -count
        return Spacing(
            frozenset(m for m, balance in before_mark.items() if balance < 0 and m != _PLAIN),
            frozenset(m for m, balance in after_mark.items() if balance < 0 and m != _PLAIN),
            starts[True] > starts[False],
            ends[True] > ends[False],
        )

    def unexpected_gaps(self, spacing: Spacing, known: set[str]) -> dict[str, int]:
        """How often each gap stands where another is expected."""
        gaps, found = list(self._gaps), Counter[str]()
        for before, gap, token, count in self._gaps_between():
            after = (
                spacing.line_start
                if before == ""
                else (before not in known or before == _PLAIN or spacing.after(before))
            )
            ahead = token != "" and (token not in known or token == _PLAIN or spacing.before(token))
            if gap != (after and ahead):
                found[gaps[gap]] += count
        return dict(found)
