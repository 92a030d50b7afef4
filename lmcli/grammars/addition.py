"""Binary sums in which the length of the longest carry is known: the carry is the memory.

**In:** `AdditionSettings`: digits, order, longest carry, size, seed.
**Out:** `Addition`: a text whose best possible perplexity is known in closed form, and held-out
items that ask whether a carry of exactly so many digits arrives.

A document is ``010+011=101``, all three numbers with the same number of digits; the first digit of
an operand is 0, so that the sum fits. With ``order=least`` the digits come in the order in which
one adds, and the same sum is ``010+110=101``. Characters are the tokens (``--tokenizer char``).

A carry is born where both operands have a 1, runs on where just one has, and ends where neither or
both have. Its length is the number of digits of the sum that it changes. For operands drawn blindly
the longest carry has about the logarithm of their digits, and long ones all but never come (Burks,
Goldstine and von Neumann 1946). So here the length of the longest carry is drawn first, from 0 to
the longest possible, all equally likely, and then the operands, all pairs with just that longest
carry equally likely. The length follows from the operands, so the entropies of both draws add up,
and there is no other: the sum is certain.

Items come in twins, which ask for the same two sums: where in one problem the longest carry is born
(1 and 1), the other has 0 and 0, and all other digits are the same. The sums differ in just the
digits that the carry changes. Whoever does not know the operands is right in one of two twins: 50 %
and no more. At length 0, the control, twins differ in one digit of one operand and nothing carries.
Length is not all that makes a carry hard: a longer one leaves less choice for where it is born and
for the other digits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Literal

from lmcli.errors import UsageError
from lmcli.grammars.base import Draws, Grammar, Item, Optimum
from lmcli.settings import setting

DOCUMENTS = {"small": 18_000, "default": 100_000, "long": 400_000}
"""how many sums a text has; small stays below 1 MB"""
TWINS_PER_LENGTH = 150
TRIES = 100

Pair = tuple[int, int]
PAIRS: tuple[Pair, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""the digits of both operands at one place"""


@dataclasses.dataclass(frozen=True)
class AdditionSettings:
    """How long the numbers and their carries are, which digit comes first, and how much text."""

    size: Literal["small", "default", "long"] = setting(
        "default", "small: 18,000 sums, below 1 MB; default: 100,000; long: 400,000"
    )
    digits: int = setting(12, "binary digits of every number", least=3, most=64)
    order: Literal["least", "most"] = setting(
        "least", "the significance of the digit that is first"
    )
    carry_length: int | None = setting(
        None, "longest carry in the text; items ask for longer ones too", least=0, most=63
    )
    seed: int = setting(0, "another seed, another text", least=0)


class Addition(Grammar):
    """Sums; ``Addition(AdditionSettings(size="small", digits=16))``."""

    name = "addition"
    Settings = AdditionSettings

    def __init__(self, settings: AdditionSettings | None = None) -> None:
        self.settings = settings or AdditionSettings()
        self.places = self.settings.digits - 1  # of an operand, less the 0 in front
        wanted = self.settings.carry_length
        self.longest = self.places if wanted is None else min(wanted, self.places)
        self._sums: dict[tuple[int, int, int, bool], list[int]] = {}

    def _draws(self, stream: str) -> Draws:
        s = self.settings
        recipe = f"{s.digits} {s.order} {self.longest} {s.seed}"
        return Draws(f"addition {stream} {recipe}")

    # -------------------------------------------------------------- the text

    def documents(self) -> Iterator[str]:
        """So many sums as the size says."""
        draws = self._draws("text")
        for _ in range(DOCUMENTS[self.settings.size]):
            yield self.document(*self.operands(draws.index(self.longest + 1), draws))

    def operands(self, length: int, draws: Draws) -> Pair:
        """Two operands whose longest carry is `length`; all such pairs are equally likely."""
        a = b = carry = 0
        there = length == 0
        for place in range(self.places):
            left = self.places - place - 1
            first, second = PAIRS[draws.weighted(self._weights(length, left, carry, there))]
            carry = run_on(carry, first, second)
            there = there or carry == length
            a, b = a | first << place, b | second << place
        return a, b

    def _weights(self, length: int, left: int, carry: int, there: bool) -> list[int]:
        """How many pairs begin with each of `PAIRS`, cumulated; `there`: has come to `length`."""
        key = length, left, carry, there
        if key not in self._sums:
            runs = [run_on(carry, *pair) for pair in PAIRS]
            ways = (_ways(length, left, r, there or r == length) for r in runs)
            self._sums[key] = list(accumulate(ways))
        return self._sums[key]

    def write(self, number: int) -> str:
        """A number in binary digits, in the order of the text."""
        digits = format(number, f"0{self.settings.digits}b")
        return digits if self.settings.order == "most" else digits[::-1]

    def document(self, a: int, b: int) -> str:
        """The sum of two operands as the text has it."""
        return f"{self.write(a)}+{self.write(b)}={self.write(a + b)}"

    # -------------------------------------------------------------- what is asked

    def lengths(self) -> list[int]:
        """The lengths of carries that items ask for: 0, powers of two, and the longest."""
        powers = [2**i for i in range(self.places.bit_length()) if 2**i < self.places]
        return [0, *powers, self.places]

    def items(self) -> Iterator[Item]:
        """Held-out twins (kind ``carry``) for each length, which is their `gap`.

        A length of which the text has every sum is left out; if it has all there are, it is a
        UsageError.
        """
        seen, draws, count = set(self.documents()), self._draws("items"), 0
        for length in self.lengths():
            for _ in range(TWINS_PER_LENGTH):
                for twins in self._unseen(length, draws, seen):
                    count += 1
                    sums = tuple(self.write(a + b) for a, b in twins)
                    for (a, b), answer in zip(twins, sums, strict=True):
                        text = f"{self.write(a)}+{self.write(b)}="
                        yield Item(text, answer, sums, length, "carry")
        if not count:
            digits = self.settings.digits
            problem = f"digits={digits}: the text has every sum, and none is left to ask for"
            raise UsageError(problem, f"--set digits={digits + 8}, or a smaller --size")

    def _unseen(self, length: int, draws: Draws, seen: set[str]) -> Iterator[tuple[Pair, Pair]]:
        """The first twins of which neither is known; none when there seem to be none."""
        for _ in range(TRIES):
            a, b = self.operands(length, draws)
            twins = (a, b), self._twin(a, b, length, draws)
            documents = {self.document(*pair) for pair in twins}
            if seen.isdisjoint(documents):
                seen |= documents
                yield twins
                return

    def _twin(self, a: int, b: int, length: int, draws: Draws) -> Pair:
        """The same without the longest carry, or without carries: with one other digit."""
        if length:
            born = 1 << carries(a, b).index(length) - length + 1
            return a ^ born, b ^ born
        place = 1 << draws.index(self.places)
        return (a, b ^ place) if b & place else (a ^ place, b)

    # -------------------------------------------------------------- the optimum

    def optimum(self) -> Optimum:
        """What a model reaches that can add; its tokens are characters."""
        nats = [math.log(self.pairs(length)) for length in range(self.longest + 1)]
        characters = 3 * self.settings.digits + 3
        total = math.log(len(nats)) + sum(nats) / len(nats)
        return Optimum(total, characters, characters)

    def pairs(self, length: int) -> int:
        """How many pairs of operands have a longest carry of just this length."""
        return _ways(length, self.places, 0, length == 0)

    def about(self) -> dict[str, Any]:
        return {
            "recipe": {"grammar": self.name} | dataclasses.asdict(self.settings),
            "seed": self.settings.seed,
            "tokenizer": "char",
            "longest_carry": self.longest,
            "gaps": self.lengths(),
            "chance": {"carry": 1 / 2},
        }

    def token_log_probabilities(self, document: str) -> list[float]:
        """ln p of every character given all before it, and of the line end: the oracle.

        It sums over all operands that agree with what has been read, digit by digit. Raises
        ValueError if this grammar cannot make the document.
        """
        places, count = self.places, self.settings.digits
        order = range(count) if self.settings.order == "least" else range(count - 1, -1, -1)
        options = [PAIRS] * places
        nats, before = list[float](), 1.0
        for operand in (0, 1):
            for place in order:
                digit = document[len(nats) : len(nats) + 1]
                if place < places:
                    options[place] = tuple(p for p in options[place] if str(p[operand]) == digit)
                now = self._share(options) if place < places else before * (digit == "0")
                nats.append(math.log(now / before) if now else -math.inf)
                before = now or 1.0
            nats.append(0.0)
        a, b = (sum(o[0][i] << p for p, o in enumerate(options) if o) for i in (0, 1))
        if -math.inf in nats or document != self.document(a, b):
            raise ValueError(f"the grammar cannot make {document!r}")
        return nats + [0.0] * (count + 1)

    def _share(self, options: Sequence[Sequence[Pair]]) -> float:
        """The probability that the operands are among the options of each place."""
        upto = [0, *(_count(options, most) for most in range(self.longest + 1))]
        exact = (upto[i + 1] - upto[i] for i in range(self.longest + 1))
        return sum(n / self.pairs(i) for i, n in enumerate(exact)) / (self.longest + 1)


def run_on(carry: int, a: int, b: int) -> int:
    """How far the carry has run behind a place where the operands have a and b."""
    if a and b:
        return 1
    return carry + 1 if carry and a != b else 0


def carries(a: int, b: int) -> list[int]:
    """How far the carry has run behind each place, from the least significant on.

    >>> carries(0b0011, 0b0101)  # born at the least digit, it runs through two more
    [1, 2, 3]
    """
    found, carry = [], 0
    for place in range(max(a, b).bit_length()):
        carry = run_on(carry, a >> place & 1, b >> place & 1)
        found.append(carry)
    return found


@cache
def _ways(length: int, left: int, carry: int, there: bool) -> int:
    """Ways to fill so many places so that the longest carry of all is `length`.

    `carry` is how far the present one has run, `there` whether one has come to `length`.
    """
    if carry > length:
        return 0
    if left == 0:
        return int(there)
    runs = [run_on(carry, *pair) for pair in PAIRS]
    return sum(_ways(length, left - 1, r, there or r == length) for r in runs)


def _count(options: Sequence[Sequence[Pair]], most: int) -> int:
    """Ways to choose a pair at each place so that no carry is longer than `most`."""
    ways = [1] + [0] * most  # by how far the present carry has run
    for pairs in options:
        after = [0] * (most + 1)
        for carry, count in enumerate(ways):
            for pair in pairs if count else ():
                run = run_on(carry, *pair)
                if run <= most:
                    after[run] += count
        ways = after
    return sum(ways)


Member = Addition
