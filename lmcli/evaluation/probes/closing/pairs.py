"""Text -> what is opened and closed in it: brackets, quotation marks, tags of markup.

**In:** the text of a document.
**Out:** `Pair`s, in their order, none within another of its sort: without its opener nothing of the
sort is open at its closer.

- Brackets ``( ) [ ] { }`` and their wide and Chinese forms: by a stack for each sort, through the
  whole document; one that is never closed, or was never opened, is left out.
- Quotation marks with a direction, in the manners of many languages (the German opener is the
  English closer, and guillemets point either way): by a stack that begins anew in each paragraph.
- Straight double quotes: the first of a paragraph opens, the second closes, and so on. Left out
  are paragraphs in which their number is odd, doubled ones, and a pair that has a blank inside
  next to a mark: there the count began at the wrong one. A paragraph ends at an empty line; in a
  text without empty lines at each line end.
- Single quotation marks are left out: most are apostrophes.
- Tags: ``<b>`` up to ``</b>`` of the same name; attributes do not belong to the opener.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BRACKETS = ("()", "[]", "{}", "（）", "【】", "［］", "｛｝")
QUOTES = {
    "“": "”", "„": "“”", "«": "»", "»": "«", "‹": "›", "›": "‹", "「": "」", "『": "』", "《": "》",
}  # fmt: skip
"""openers, and what may close each"""
MARKS = frozenset("".join((*BRACKETS, *QUOTES, *QUOTES.values())) + "\"'‘’<>")
"""what can open or close, ambiguous signs too"""

_BRACKET = re.compile("[" + re.escape("".join(BRACKETS)) + "]")
_QUOTE = re.compile("[" + "".join({*QUOTES, *"".join(QUOTES.values())}) + "]")
_STRAIGHT = re.compile(r'(?<!["\\])"(?!")')
_TAG = re.compile(r"<(/?)([A-Za-z][\w:.-]*)(?:\s[^<>]*)?(?<!/)>")
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")
_LINE_END = re.compile(r"\n")

Span = tuple[int, int]
"""characters, the end not among them"""


@dataclass(frozen=True, order=True)
class Pair:
    """An opener and its closer."""

    opener: Span
    closer: Span
    kind: str
    """bracket, quote or tag"""


def find_pairs(text: str) -> list[Pair]:
    """All pairs of a document."""
    pairs = [*_brackets(text), *_tags(text)]
    for begin, end in _paragraphs(text):
        pairs += _outermost(_directed(text, begin, end), "quote")
        pairs += _outermost(_straight(text, begin, end), "quote")
    return sorted(pairs)


def _outermost(found: Iterable[tuple[Span, Span]], kind: str) -> list[Pair]:
    """Those that are not within another."""
    pairs = list[Pair]()
    for opener, closer in sorted(found):
        if not pairs or opener > pairs[-1].closer:
            pairs.append(Pair(opener, closer, kind))
    return pairs


def _matched(marks: Iterable[tuple[Span, bool]]) -> Iterator[tuple[Span, Span]]:
    """Closers with the last opener before them that is still open."""
    stack = list[Span]()
    for span, opens in marks:
        if opens:
            stack.append(span)
        elif stack:
            yield stack.pop(), span


def _brackets(text: str) -> Iterator[Pair]:
    marks: dict[str, list[tuple[Span, bool]]] = {}
    sort_of = {mark: sort for sort in BRACKETS for mark in sort}
    for match in _BRACKET.finditer(text):
        sort = sort_of[match[0]]
        marks.setdefault(sort, []).append((match.span(), match[0] == sort[0]))
    for some in marks.values():
        yield from _outermost(_matched(some), "bracket")


def _tags(text: str) -> Iterator[Pair]:
    marks: dict[str, list[tuple[Span, bool]]] = {}
    for match in _TAG.finditer(text):
        span = (match.start(), match.end() if match[1] else match.end(2))
        marks.setdefault(match[2], []).append((span, not match[1]))
    for some in marks.values():
        yield from _outermost(_matched(some), "tag")


def _paragraphs(text: str) -> Iterator[Span]:
    begin = 0
    pattern = _PARAGRAPH_END if _PARAGRAPH_END.search(text) else _LINE_END
    for match in pattern.finditer(text):
        yield begin, match.start()
        begin = match.end()
    yield begin, len(text)


def _directed(text: str, begin: int, end: int) -> Iterator[tuple[Span, Span]]:
    stack = list[tuple[Span, str]]()
    for match in _QUOTE.finditer(text, begin, end):
        if stack and match[0] in stack[-1][1]:
            yield stack.pop()[0], match.span()
        elif match[0] in QUOTES:
            stack.append((match.span(), QUOTES[match[0]]))


def _straight(text: str, begin: int, end: int) -> Iterator[tuple[Span, Span]]:
    spans = [match.span() for match in _STRAIGHT.finditer(text, begin, end)]
    if len(spans) % 2 == 0:
        for opener, closer in zip(spans[::2], spans[1::2], strict=True):
            if not (text[opener[1]].isspace() or text[closer[0] - 1].isspace()):
                yield opener, closer
