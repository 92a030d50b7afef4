"""Text -> gap-and-token pairs: where a word begins and ends, and what is between two of them.

**In:** a text and the rule: ``punctuation`` cuts at punctuation marks, ``space`` at blanks only.
**Out:** pairs, each the blanks before a token with the token; together they are the text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from lmcli.tokenizers.base import UNKNOWN, Chunk, Offsets, chunks_of

BREAKS = ("\n", "\r\n", "\r")

_GAP = re.compile(r"[^\S\r\n]*")
_SLICE = 1 << 15  # characters split at a time: their tokens fit into the cache
_LOOKED_AT = 1 << 22  # characters that split=auto looks at
_COMMON = r" ?(?:[A-Za-z0-9]++(?=[ \n;:!?]|[.,](?!\d))|[.,;:!?\n])"
"""a plain word that surely ends there, or a common mark, after at most one space"""
_AUTO_SHARE = 0.05  # of the words between white space, cut by punctuation: less means space


def find_pairs(text: str, split: str) -> Iterator[list[str]]:
    """The gap-and-token pairs of a text, some thousands at a time; together they are the text."""
    pattern, begin = _pattern(split), 0
    while begin < len(text):
        end = text.rfind("\n", begin, begin + _SLICE) + 1 or text.find("\n", begin + _SLICE) + 1
        end = end if end and len(text) - begin > _SLICE else len(text)
        yield pattern.findall(text, begin, end)
        begin = end


def find_in(part: Chunk, split: str) -> Iterator[tuple[list[str], Offsets]]:
    """The same of documents that begin after line ends, and at which of the pairs one begins."""
    begins, offset = part.begins, 0
    for pairs in find_pairs(part.text, split):
        if not len(begins) or begins[-1] == offset:  # no document begins after the first pair
            yield pairs, np.zeros(len(begins), np.int64)
            begins = begins[:0]
            continue
        ends = offset + np.cumsum(np.fromiter(map(len, pairs), np.int64, len(pairs)))
        mine, begins = np.split(begins, [np.searchsorted(begins, ends[-1])])
        yield pairs, np.searchsorted(ends, mine, "right")
        offset = int(ends[-1])


def parted(pair: str) -> tuple[str, str]:
    """Gap and token."""
    gap = pair[: _gap_length(pair)]
    return gap, pair[len(gap) :]


def _gap_length(pair: str) -> int:
    found = _GAP.match(pair)
    return found.end() if found else 0


def pair_ends(pairs: list[str]) -> Offsets:
    """Where the gap and where the token of each pair ends. Shapes: (pairs, 2)."""
    lengths = np.fromiter(map(len, pairs), np.int64, len(pairs))
    gaps = np.fromiter(map(_gap_length, pairs), np.int64, len(pairs))
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths + gaps, ends], axis=1)


def is_mark(symbol: str) -> bool:
    """Whether it is a punctuation mark or another sign."""
    return symbol not in ("", UNKNOWN, *BREAKS) and not symbol[0].isalnum()


def find_split(documents: Iterable[str]) -> Literal["punctuation", "space"]:
    """`space` if the punctuation rule would cut hardly any of the words between white space."""
    counts, chars = Counter[str](), 0
    for part in (part for chunk in chunks_of(documents) for part in chunk.lines()):
        counts.update(part.text[: _LOOKED_AT - chars].split())
        chars += len(part.text)
        if chars >= _LOOKED_AT:
            break
    whole = re.compile(_token("punctuation"))
    cut = sum(n for word, n in counts.items() if not whole.fullmatch(word))
    return "space" if cut < _AUTO_SHARE * counts.total() else "punctuation"


@functools.cache
def _pattern(split: str) -> re.Pattern[str]:
    """The next pair; what most pairs are is looked for first, as a class of few letters is fast."""
    return re.compile(
        rf"{_COMMON}|{_any_pair(split)}" if split == "punctuation" else _any_pair(split)
    )


def _any_pair(split: str) -> str:
    """A gap and the token after it, or the gap that ends the text."""
    return rf"[^\S\r\n]*+(?:{_token(split)}|\r\n?|\n)|[^\S\r\n]++"


@functools.cache
def _token(split: str) -> str:
    if split == "space":
        return r"\S+"
    letters = r"[^\W_]++"
    inner = rf"(?:['’-]|(?<=\d)[.,](?=\d)){letters}|[{_combining_marks()}]++(?:{letters})?"
    return rf"{letters}(?:{inner})*+|{UNKNOWN}|\S"


def _combining_marks() -> str:
    """The marks that belong to the letter before them, and the joiners, as ranges of a regex."""
    codes = [c for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M"]
    codes = sorted([*codes, 0x200C, 0x200D])
    begins = [c for c, before in zip(codes, [0, *codes], strict=False) if c != before + 1]
    ends = [c for c, following in zip(codes, [*codes[1:], 0], strict=True) if c != following - 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(begins, ends, strict=True))
