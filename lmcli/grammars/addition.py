"""Binary sums in which the length of the longest carry is known: the carry is the memory.

**In:** `AdditionSettings`: digits, order, longest carry, size, seed.
**Out:** `Addition`: a text whose best possible perplexity is known in closed form, and held-out
items that test whether a model computes a carry of exactly N digits.

A document is ``010+011=101``, all three numbers with the same number of digits; the first digit of
an operand is 0, so that the sum fits. With ``order=least`` the least significant digit comes first,
as in written addition, and the same sum is ``010+110=101``. Characters are the tokens
(``--tokenizer char``).

A carry starts where both operands have a 1, continues where exactly one has, and ends where neither
or both have. Its length is the number of digits of the sum that it changes. For uniform operands
long ones are very rare (Burks, Goldstine and von Neumann 1946). So the length of the longest carry
is drawn first, from 0 to the longest possible, all equally likely, and then the operands, all pairs
with exactly that longest carry equally likely. The length follows from the operands, so the
entropies of both draws add up to that of a document: the sum is certain.

Items come in twins, which test the same two sums: where in one problem the longest carry starts
(1 and 1), the other has 0 and 0, and all other digits are equal. The sums differ in exactly the
digits that the carry changes. Without the operands a model is right in one of two twins: 50 %. At
length 0, the control, twins differ in one digit of one operand and nothing carries. A longer carry
is also harder in that it leaves less choice for where it starts and for the other digits.
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
"""sums in a text; small stays below 1 MB"""
ENOUGH_DIGITS = {"small": 8, "default": 9, "long": 10}
"""with fewer the text has nearly every sum"""
TWINS_PER_LENGTH = 150
TRIES = 100

Pair = tuple[int, int]
PAIRS: tuple[Pair, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""the digits of both operands at one position"""


@dataclasses.dataclass(frozen=True)
class AdditionSettings:
    """Length of numbers and carries, order of the digits, size of the text."""

    size: Literal["small", "default", "long"] = setting(
        "default", "small: 18,000 sums, below 1 MB; default: 100,000; long: 400,000"
    )
    digits: int = setting(12, "binary digits of every number", least=3, most=64)
    order: Literal["least", "most"] = setting(
        "least", "whether the least or the most significant digit is first"
    )
    carry_length: int | None = setting(
        None, "longest carry in the text; items also test longer ones", least=0, most=63
    )
    seed: int = setting(0, "another seed, another text", least=0)


class Addition(Grammar):
    """Sums; ``Addition(AdditionSettings(size="small", digits=16))``."""

    name = "addition"
    Settings = AdditionSettings

    def __init__(self, settings: AdditionSettings | None = None) -> None:
        self.settings = settings or AdditionSettings()
        self.places = self.settings.digits - 1  # digits of an operand after the leading 0
        wanted = self.settings.carry_length
        self.longest = self.places if wanted is None else min(wanted, self.places)

    def _draws(self, stream: str) -> Draws:
        s = self.settings
        return Draws(f"addition {stream} {s.digits} {s.order} {self.longest} {s.seed}")

    # -------------------------------------------------------------- the text

    def documents(self) -> Iterator[str]:
        """The sums of the text, as many as the size says."""
        draws = self._draws("text")
        for _ in range(DOCUMENTS[self.settings.size]):
            yield self.document(*self.operands(draws.index(self.longest + 1), draws))

    def operands(self, length: int, draws: Draws) -> Pair:
        """Two operands whose longest carry is `length`; all such pairs are equally likely."""
        a = b = carry = 0
        reached = length == 0
        for place in range(self.places):
            left = self.places - place - 1
            first, second = PAIRS[draws.weighted(_cumulated_ways(length, left, carry, reached))]
            carry = run_on(carry, first, second)
            reached = reached or carry == length
            a, b = a | first << place, b | second << place
        return a, b

    def write(self, number: int) -> str:
        """A number in binary digits, in the order of the text."""
        digits = format(number, f"0{self.settings.digits}b")
        return digits if self.settings.order == "most" else digits[::-1]

    def document(self, a: int, b: int) -> str:
        """The sum of two operands as the text has it."""
        return f"{self.write(a)}+{self.write(b)}={self.write(a + b)}"

    # -------------------------------------------------------------- items

    def lengths(self) -> list[int]:
        """The lengths of carries in the items: 0, powers of two, and the longest."""
        powers = [2**i for i in range(self.places.bit_length()) if 2**i < self.places]
        return [0, *powers, self.places]

    def items(self) -> Iterator[Item]:
        """Held-out twins (kind ``carry``) for each length, which is their `gap`.

        A length whose sums are all in the text is left out; if no length remains, it is a
        UsageError.
        """
        used, draws, count = set(self.documents()), self._draws("items"), 0
        for length in self.lengths():
            for _ in range(TWINS_PER_LENGTH):
                for twins in self._new_twins(length, draws, used):
                    count += 1
                    sums = tuple(self.write(a + b) for a, b in twins)
                    for (a, b), answer in zip(twins, sums, strict=True):
                        text = f"{self.write(a)}+{self.write(b)}="
                        yield Item(text, answer, sums, length, "carry")
        if not count:
            digits = self.settings.digits
            problem = f"digits={digits}: the text has every sum, and none is left for the items"
            least = ENOUGH_DIGITS[self.settings.size]
            raise UsageError(problem, f"at size {self.settings.size}: --digits {least} or more")

    def _new_twins(self, length: int, draws: Draws, used: set[str]) -> Iterator[tuple[Pair, Pair]]:
        """The first drawn twins that are both new; none if there seem to be none left."""
        for _ in range(TRIES):
            a, b = self.operands(length, draws)
            twins = (a, b), self._twin(a, b, length, draws)
            documents = {self.document(*pair) for pair in twins}
            if used.isdisjoint(documents):
                used |= documents
                yield twins
                return

    def _twin(self, a: int, b: int, length: int, draws: Draws) -> Pair:
        """The pair without its longest carry; at length 0 with one digit changed."""
        if length:
            start = 1 << carries(a, b).index(length) - length + 1
            return a ^ start, b ^ start
        place = 1 << draws.index(self.places)
        return (a, b ^ place) if b & place else (a ^ place, b)

    # -------------------------------------------------------------- the optimum

    def optimum(self) -> Optimum:
        """The optimum of a model that can add; its tokens are characters."""
        nats = [math.log(self.pairs(length)) for length in range(self.longest + 1)]
        characters = 3 * self.settings.digits + 3
        total = math.log(len(nats)) + sum(nats) / len(nats)
        return Optimum(total, characters, characters)

    def pairs(self, length: int) -> int:
        """How many pairs of operands have a longest carry of exactly this length."""
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

        It sums over all operands that agree with the digits read so far. Raises ValueError if this
        grammar cannot make the document.
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
        """The probability that the operands are among the options of each position."""
        upto = [0, *(_count(options, most) for most in range(self.longest + 1))]
        exact = (upto[i + 1] - upto[i] for i in range(self.longest + 1))
        return sum(n / self.pairs(i) for i, n in enumerate(exact)) / (self.longest + 1)


def run_on(carry: int, a: int, b: int) -> int:
    """The length of the carry after a position where the operands have a and b."""
    if a and b:
        return 1
    return carry + 1 if carry and a != b else 0


def carries(a: int, b: int) -> list[int]:
    """The length of the carry after each position, from the least significant on.

    >>> carries(0b0011, 0b0101)  # it starts at the least digit and runs through two more
    [1, 2, 3]
    """
    lengths, carry = [], 0
    for place in range(max(a, b).bit_length()):
        carry = run_on(carry, a >> place & 1, b >> place & 1)
        lengths.append(carry)
    return lengths


@cache
def _ways(length: int, left: int, carry: int, reached: bool) -> int:
    """Ways to fill the `left` positions so that the longest carry of all is `length`.

    `carry` is the length of the present one, `reached` whether one has been `length` long.
    """
    if carry > length:
        return 0
    return _cumulated_ways(length, left - 1, carry, reached)[-1] if left else int(reached)


@cache
def _cumulated_ways(length: int, left: int, carry: int, reached: bool) -> tuple[int, ...]:
    """The same by the digits at the next position, in the order of `PAIRS`, `left` after it."""
    runs = [run_on(carry, *pair) for pair in PAIRS]
    return tuple(accumulate(_ways(length, left, r, reached or r == length) for r in runs))


def _count(options: Sequence[Sequence[Pair]], most: int) -> int:
    """Ways to choose a pair at each position so that no carry is longer than `most`."""
    ways = [1] + [0] * most  # by the length of the present carry
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
