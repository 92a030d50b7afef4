"""A text as sentences, as they stand in it; in verse and code, as lines.

**In:** pieces of a text, in any language.
**Out:** a `Script`, which says how the text is written, and sentences that need only be put end to
end.

Sentences end at . ! ? and their like in other scripts, with the closing quotes and brackets that
follow. A line end is an end as well, unless the lines are those of paragraphs that were wrapped to
a width. Each line end becomes one blank, so that a document stays on one line; the blanks with
which a line begins (the indentation of code) are kept. Inside a wrapped sentence that is written
without blanks between words, as Chinese is, the line end vanishes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Unit = Literal["words", "characters"]
"""what gaps are counted in: words stand between blanks"""

LONG, CUT = 100, 20
"""a sentence of more than LONG units is cut into pieces of CUT: some texts have no punctuation"""
LEAST_WIDTH = {"words": 40, "characters": 20}
"""columns; narrower lines are verse"""
WRAPPED_SHARE = 0.6
"""of lines that had no room for the first word of the next, in a wrapped text"""

MARKED_SHARE = 0.07
"""of words with a mark stuck to them: with fewer, a tokenizer may cut at blanks only"""

_LINE_END = re.compile(r"\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_CLOSING = r"[\"'”’»›)\]」』）》〉】]*"
_END = {
    "words": re.compile(rf"[.!?…؟۔।॥։።。！？｡]+{_CLOSING}(?:\s+|$)"),
    "characters": re.compile(rf"[。！？｡…؟]+{_CLOSING}\s*|[.!?]+{_CLOSING}(?:\s+|$)"),
}
_INITIAL = re.compile(r"(?:^|\W)[^\W\d_]$")
_NO_BLANKS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_LONGEST_WORD = 5
"""letters between blanks, on average, in a text of such scripts whose words are set apart"""


@dataclass(frozen=True)
class Script:
    """How a text is written."""

    unit: Unit
    wrapped: bool
    """whether its lines are those of paragraphs, cut at a width"""
    spaced: bool
    """whether punctuation marks stand apart from words, or there are hardly any"""

    @classmethod
    def of(cls, text: str) -> Script:
        """The script of a text, or of enough of it."""
        unit = _unit(text)
        return cls(unit, _is_wrapped(text, unit), unit == "words" and _is_spaced(text))

    @property
    def joint(self) -> str:
        """What stands between two sentences."""
        return " " if self.unit == "words" else ""

    def measure(self, text: str) -> int:
        """The length of whole sentences."""
        return len(text.split()) if self.unit == "words" else len(text)

    def gap(self, between: str) -> int:
        """The length of what is between a cue and an answer.

        The parts of words that stick to either of them do not count.

        >>> Script("words", False, False).gap(". She speaks fluent ")
        3
        """
        if self.unit == "characters":
            return len(between)
        chunks = between.split()
        stuck = [not part.isspace() for part in (between[:1], between[-1:]) if part]
        return max(0, len(chunks) - sum(stuck))

    def tail(self, text: str, length: int) -> str:
        """The last words or characters."""
        if self.unit == "characters":
            return text[-length:]
        words = [found.start() for found in re.finditer(r"\S+", text)]
        return text[words[-length] :]

    def tokens(self, text: str) -> list[str]:
        """The words, or the letters, in lower case, without marks."""
        pattern = r"[^\W\d_]+" if self.unit == "words" else r"[^\W\d_]"
        return re.findall(pattern, text.casefold())

    def sentences(self, pieces: Iterable[str]) -> list[str]:
        """The sentences of all pieces, in order."""
        return [
            part
            for piece in pieces
            for block in self._blocks(piece)
            for sentence in self._split(block)
            for part in self._cut(sentence)
        ]

    def _blocks(self, piece: str) -> Iterator[str]:
        """Paragraphs of a wrapped text on one line each, else lines; each ends in a blank."""
        lines = [line.rstrip() for line in _LINE_END.split(piece)]
        if not self.wrapped:
            yield from (line + " " for line in lines if line)
            return
        held: list[str] = []
        for line in [*lines, ""]:
            if line:
                held.append(line.strip())
            elif held:
                yield self.joint.join(held) + " "
                held = []

    def _split(self, block: str) -> Iterator[str]:
        begin = 0
        for found in _END[self.unit].finditer(block):
            follows = block[found.end() : found.end() + 1]
            initial = found[0].startswith(".") and _INITIAL.search(block[begin : found.start()])
            if not follows.islower() and not initial:
                yield block[begin : found.end()]
                begin = found.end()
        if block[begin:].strip():
            yield block[begin:]

    def _cut(self, sentence: str) -> Iterator[str]:
        """The sentence itself, or pieces of one that is too long."""
        if self.measure(sentence) <= LONG:
            yield sentence
        elif self.unit == "characters":
            yield from (sentence[i : i + CUT] for i in range(0, len(sentence), CUT))
        else:
            yield from re.findall(rf"\s*(?:\S+\s*){{1,{CUT}}}", sentence)


def _unit(text: str) -> Unit:
    """Characters, if most letters are of scripts without blanks between words."""
    letters, without = len(_LETTER.findall(text)), len(_NO_BLANKS.findall(text))
    apart = letters <= _LONGEST_WORD * len(text.split())
    return "words" if 2 * without <= letters or apart else "characters"


def _is_wrapped(text: str, unit: Unit) -> bool:
    """Whether most lines that go on end where the next word would have been too much.

    A line goes on in the next one unless that is empty or begins farther to the right.
    """
    lines = [line.rstrip() for line in _LINE_END.split(text)]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return False
    width = lengths[int(0.95 * (len(lengths) - 1))]
    inner = [(a, b.split()) for a, b in pairwise(lines) if a and b and _indent(b) <= _indent(a)]
    if width < LEAST_WIDTH[unit] or not inner:
        return False
    step = 1 if unit == "characters" else 0
    full = sum(len(a) + (step or 1 + len(b[0])) >= width for a, b in inner)
    return full >= WRAPPED_SHARE * len(inner)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_spaced(text: str) -> bool:
    """Whether few words have a mark stuck to them."""
    words = text.split()
    stuck = sum(len(w) > 1 and w[-1] in '.,;:!?…"”»)' for w in words)
    return stuck < MARKED_SHARE * len(words)
