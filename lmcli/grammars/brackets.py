"""Brackets that close long after they open: which ones are still open is the memory.

**In:** `BracketsSettings`: size, longest gap, letters, share of brackets, seed.
**Out:** `Brackets`: a text whose best possible perplexity is known in closed form, and held-out
items that ask at exact gaps whether a bracket is still open.

A document is ``bead(cab(d)ae.)`` or ``beadhcab(d)ae..``: random letters and brackets, a first full
stop, and then what the brackets before it demand, the closer of one that is still open or a second
full stop. There is one kind of bracket (the Dyck language of one kind, Dyck-1), so that the
question is never *which* closer, only whether one is due. Characters are the tokens
(``--tokenizer char``).

*Inner text* of n characters: at each place, where at least 2 characters are left, a pair opens with
probability `share`; it holds inner text of g characters, P(g) proportional to 1 / (g + 1),
0 <= g <= left - 2. Elsewhere stands a letter, all equally likely. So the gaps of all pairs are
log-uniform, and pairs that are complete hide the one that counts.

*Document*, each with probability 1/2: inner text of a characters, an opener, inner text of g, and
``.)``; or inner text of n characters and ``..``. a + 1 and g + 1 are log-uniform in 1..longest, and
n is distributed as a + 1 + g, so length tells nothing. The gap is g + 1 characters: g and the first
full stop. A text can be made in one way only, so the entropies of all draws add up.

Items come in twins: one has a letter in place of the opener, and what is right after ``.`` changes
from ``)`` to ``.``. A reader who has forgotten the opener is right in one of two: 50 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from lmcli.grammars.base import Draws, Grammar, Item, Optimum
from lmcli.settings import setting

CHARACTERS = {"small": 900_000, "default": 3_000_000, "long": 10_000_000}
"""at which the text ends, after a whole document"""
LONGEST = {"small": 100, "default": 400, "long": 1000}
"""gap in the text"""
ALL_GAPS = (3, 5, 10, 20, 50, 100, 200, 400, 700, 1000)
GAPS = {
    size: tuple(gap for gap in ALL_GAPS if gap <= most)
    for size, most in {"small": 200, "default": 700, "long": 1000}.items()
}
"""of the items; some are longer than any in the text"""
TWINS_PER_GAP = 150
TRIES = 100
OPENER, CLOSER, STOP, LINE_END = "().\n"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"

Weights = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class BracketsSettings:
    """Size of the text, gaps, letters, complete pairs."""

    size: Literal["small", "default", "long"] = setting(
        "default", "small: below 1 MB, gaps to 100; default: 3 MB, to 400; long: 10 MB, to 1000"
    )
    longest: int | None = setting(
        None, "longest gap in the text, in characters", least=1, most=5000, unset="by size"
    )
    letters: int = setting(8, "how many letters there are", least=1, most=26)
    share: float = setting(0.05, "share of places at which a pair opens", least=0.0, most=0.5)
    seed: int = setting(0, "another seed, another text", least=0)


class Brackets(Grammar):
    """Brackets among letters; ``Brackets(BracketsSettings(size="small", share=0.1))``."""

    name = "brackets"
    Settings = BracketsSettings

    def __init__(self, settings: BracketsSettings | None = None) -> None:
        self.settings = settings or BracketsSettings()
        s = self.settings
        self.longest = s.longest or LONGEST[s.size]
        self.letters = ALPHABET[: s.letters]
        self.inverse: Weights = 1 / np.arange(1.0, 2 * self.longest + 1)
        """1 / (g + 1) for the g characters within a pair"""
        self.harmonic: Weights = self.inverse.cumsum()
        """the sum of these for 0..g"""
        self._sums: list[float] = self.harmonic.tolist()
        self.gap: Weights = self.inverse[: self.longest] / self.harmonic[self.longest - 1]
        """P(g) of the text within the bracket that counts, and P(a) of that before it"""
        self.plain: Weights = np.append(0.0, np.convolve(self.gap, self.gap))
        """P(n) of a text without it: that of a + 1 + g"""

    def _draws(self, stream: str) -> Draws:
        s = self.settings
        return Draws(f"brackets {stream} {self.longest} {s.letters} {s.share} {s.seed}")

    # -------------------------------------------------------------- the text

    def documents(self) -> Iterator[str]:
        """The documents of the text, up to its size."""
        draws, characters = self._draws("text"), 0
        while characters < CHARACTERS[self.settings.size]:
            document = self._document(draws)
            characters += len(document) + 1
            yield document

    def _document(self, draws: Draws) -> str:
        before, within = self._length(draws), self._length(draws)
        if draws.index(2):
            return f"{self.inner(before + 1 + within, draws)}{STOP}{STOP}"
        return f"{self.inner(before, draws)}{OPENER}{self.inner(within, draws)}{STOP}{CLOSER}"

    def _length(self, draws: Draws) -> int:
        return draws.weighted(self._sums[: self.longest])

    def inner(self, length: int, draws: Draws) -> str:
        """Letters and complete pairs, `length` characters in all."""
        share, letters = self.settings.share, self.letters
        each = (1 - share) / len(letters)
        options = [each * (i + 1) for i in range(len(letters))] + [1.0] * (share > 0)
        parts, left = list[str](), length
        while left:
            place = draws.weighted(options) if left > 1 else draws.index(len(letters))
            if place < len(letters):
                parts.append(letters[place])
                left -= 1
            else:
                gap = draws.weighted(self._sums[: left - 1])
                parts += [OPENER, self.inner(gap, draws), CLOSER]
                left -= gap + 2
        return "".join(parts)

    # -------------------------------------------------------------- items

    def items(self) -> Iterator[Item]:
        """Held-out twins (kind ``closer``) at every exact gap."""
        used, draws = set(self.documents()), self._draws("items")
        for gap in GAPS[self.settings.size]:
            for _ in range(TWINS_PER_GAP):
                for _ in range(TRIES):
                    items = self._twins(gap, draws)
                    if used.isdisjoint(item.document for item in items):
                        used |= {item.document for item in items}
                        yield from items
                        break

    def _twins(self, gap: int, draws: Draws) -> tuple[Item, Item]:
        """The same text with an opener, and with a letter in its place."""
        before = self.inner(self._length(draws), draws)
        after = self.inner(gap - 1, draws) + STOP
        candidates = CLOSER, STOP
        opened = Item(before + OPENER + after, CLOSER, candidates, gap, "closer")
        letter = draws.choose(self.letters)
        return opened, Item(before + letter + after, STOP, candidates, gap, "closer")

    # -------------------------------------------------------------- the optimum

    def optimum(self) -> Optimum:
        """The optimum of a model that forgets no bracket; its tokens are characters."""
        inner, lengths = self._inner_entropies(), np.arange(self.longest)
        one = _entropy(self.gap) + self.gap @ inner[: self.longest]
        plain = _entropy(self.plain) + self.plain @ inner
        characters = float(2 * self.gap @ lengths + 4)  # of both kinds, the line end counted
        nats = math.log(2) + one + plain / 2  # one: the same before the opener and after it
        return Optimum(float(nats), characters, characters)

    def _inner_entropies(self) -> Weights:
        """The entropy of inner text of 0, 1, 2, ... characters, in nats."""
        letter, share = math.log(len(self.letters)), self.settings.share
        h = np.zeros(2 * self.longest)
        choice = _entropy(np.array([share, 1 - share]))
        for n in range(1, len(h)):
            h[n] = letter + h[n - 1]
            if n > 1:
                p = self.inverse[: n - 1] / self.harmonic[n - 2]
                pair = _entropy(p) + p @ (h[: n - 1] + h[: n - 1][::-1])
                h[n] = choice + (1 - share) * h[n] + share * pair
        return h

    def amnesic(self) -> Optimum:
        """The optimum of a model that has forgotten at the end whether one is open: ln 2 more."""
        best = self.optimum()
        return dataclasses.replace(best, nats_per_document=best.nats_per_document + math.log(2))

    def about(self) -> dict[str, Any]:
        return {
            "recipe": {"grammar": self.name} | dataclasses.asdict(self.settings),
            "seed": self.settings.seed,
            "tokenizer": "char",
            "longest_gap": self.longest,
            "gaps": list(GAPS[self.settings.size]),
            "chance": {"closer": 1 / 2},
            "amnesic": self.amnesic().as_dict(),
        }

    def token_log_probabilities(self, document: str) -> list[float]:
        """ln p of every character given all before it, and of the line end: the oracle.

        Raises ValueError if this grammar cannot make the document.
        """
        oracle = Filter(self)
        return [oracle.read(symbol) for symbol in document + LINE_END]


def _entropy(p: Weights) -> float:
    some = p[p > 0]
    return float(-some @ np.log(some))


@dataclasses.dataclass
class Level:
    """Inner text that is being read, of unknown length.

    Weights are those of each length and of what comes after the text, given all that was read
    before it: in a pair its closer, in a document the first full stop or the opener that counts.
    """

    closer: Weights
    stop: Weights
    opener: Weights
    content: Weights
    """the likelihood of what was read, by the length of the whole, in units of exp(`scale`)"""
    base: float = 0.0
    """ln p of all before it, the unit of the weights"""
    scale: float = 0.0
    done: int = 0
    """characters read"""

    def ways(self) -> Weights:
        """The weight of each length, whatever comes after."""
        ways: Weights = (self.closer + self.stop + self.opener) * self.content
        return ways

    def extend(self, characters: int, first: int, factor: Any) -> None:
        """The content goes on, with this likelihood for lengths from `first` on, 0 for others."""
        self.content[:first] = 0.0
        self.content[first:] *= factor
        self.done += characters
        if largest := float(self.content.max()):
            self.content /= largest
            self.scale += math.log(largest)


class Filter:
    """The best possible model: reads a document, gives ln p of each character.

    Forward filtering over the unknown lengths: one `Level` for the document and one for each
    bracket that is open. An opener at the lowest level may be that of a pair or the one that
    counts. The closed form is not used, so each tests the other.
    """

    def __init__(self, grammar: Brackets) -> None:
        self.grammar = grammar
        nothing = np.zeros(2 * grammar.longest)
        before = nothing.copy()
        before[: grammar.longest] = grammar.gap / 2
        self.levels = [Level(nothing, grammar.plain / 2, before, np.ones_like(nothing))]
        self.rest = ""
        """what must come, once that is certain"""
        self.log = 0.0

    def read(self, symbol: str) -> float:
        """ln p of a character given all before it; one that cannot come is a ValueError."""
        if self.rest and symbol == self.rest[0]:
            self.rest = self.rest[1:]
            return 0.0
        weight = 0.0 if self.rest else self._weight_after(symbol)
        if not weight:
            raise ValueError(f"the grammar cannot go on with {symbol!r}")
        level, before = self.levels[-1], self.log
        self.log = level.base + level.scale + math.log(weight)
        return self.log - before

    def _weight_after(self, symbol: str) -> float:
        """The weight of all ways to go on after this character."""
        level, count = self.levels[-1], len(self.levels)
        if symbol == STOP and count < 3:
            self.rest = (STOP if count == 1 else CLOSER) + LINE_END
            return float(level.stop[level.done] * level.content[level.done])
        if symbol == OPENER:
            self._open(level)
        elif symbol == CLOSER and count > 1:
            self._close()
        elif symbol in self.grammar.letters:
            letter = 1 / len(self.grammar.letters)
            factor = np.full(len(level.content) - level.done - 1, letter)
            factor[1:] *= 1 - self.grammar.settings.share  # where a pair could have opened
            level.extend(1, level.done + 1, factor)
        else:
            return 0.0
        return float(self.levels[-1].ways().sum())

    def _open(self, level: Level) -> None:
        """A level for what is within: a pair, or, if no pair is open, what counts."""
        g = self.grammar
        size = len(level.content) - level.done - 1
        pair, stop = np.zeros(size), np.zeros(size)
        outer = g.settings.share * level.ways()[level.done + 2 :] / g.harmonic[: size - 1]
        pair[: size - 1] = g.inverse[: size - 1] * outer[::-1].cumsum()[::-1]
        counts = g.gap[:size]  # longer texts cannot stand here
        stop[: len(counts)] = level.opener[level.done] * level.content[level.done] * counts
        total = float(pair.sum() + stop.sum()) or 1.0
        base = level.base + level.scale + math.log(total)
        none = np.zeros(size)
        self.levels.append(Level(pair / total, stop / total, none, np.ones(size), base))

    def _close(self) -> None:
        """The pair becomes part of the level below it."""
        g, pair = self.grammar, self.levels.pop()
        level, gap = self.levels[-1], pair.done
        likelihood = pair.content[gap] if pair.closer[gap] else 0.0
        level.scale += pair.scale
        first = level.done + 2 + gap
        left = len(level.content) - first
        factor = g.settings.share * g.inverse[gap] * likelihood / g.harmonic[gap : gap + left]
        level.extend(gap + 2, first, factor)


Member = Brackets
