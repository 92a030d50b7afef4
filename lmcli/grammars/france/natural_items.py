"""Items whose filler is held-out text: questions at exact gaps, and two controls.

**In:** a `NaturalFrance`, and its documents, none of which is asked again.
**Out:** `NaturalItem` after `NaturalItem`.

A filler is a run of whole sentences of just the length that is missing. Where none is found, the
first sentence begins in the middle, so that the filler ends where a sentence does; the item says
so. A filler that occurs in the training part is not taken.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from typing import TYPE_CHECKING

from lmcli.grammars.base import Item
from lmcli.grammars.france.facts import Frame, Pair
from lmcli.grammars.france.items import GAPS, ITEMS_PER_GAP, TRIES

if TYPE_CHECKING:
    from lmcli.grammars.france.natural import NaturalFrance

PROBES = 40
"""places that are tried for whole sentences of a length, and then for others"""
SHUFFLED_GAP = 10


@dataclasses.dataclass(frozen=True)
class NaturalItem(Item):
    """An item with sentences of the user's text between cue and answer."""

    gap_characters: int = 0
    """characters strictly between cue and answer"""
    unit: str = "words"
    """what `gap` counts"""
    filler: tuple[int, int] = (0, 0)
    """where in `text` the user's own sentences begin and end"""
    cut: bool = False
    """whether they begin in the middle of one"""

    @property
    def own(self) -> str:
        """The user's sentences."""
        return self.text[slice(*self.filler)]


class NaturalItems:
    """Makes items; remembers every document so that none comes twice."""

    def __init__(self, grammar: NaturalFrance, seen: set[str]) -> None:
        self.grammar, self.script, self.seen = grammar, grammar.script, seen
        self.draws = grammar.draws("items")
        self._ends = [0, *accumulate(map(self.script.measure, grammar.held_out))]
        self._at = {end: number for number, end in enumerate(self._ends)}
        self._trained = "".join(grammar.train)
        self._known: dict[str, bool] = {}

    def all(self) -> Iterator[NaturalItem]:
        """Items balanced over answers; of a gap that is hard to meet there are fewer or none."""
        pairs = self.grammar.facts.pairs
        asked = [pairs[number % len(pairs)] for number in range(ITEMS_PER_GAP)]
        for gap in GAPS["default"]:
            yield from self._items("country", gap, [(pair, pair) for pair in asked])
        gap = self._shortest()
        for pair in asked:
            yield from self._control(gap, pair)
        shuffled = [(self.draws.choose(pairs), pair) for pair in asked]
        yield from self._items("shuffled", max(SHUFFLED_GAP, gap), shuffled)

    def _items(
        self, kind: str, gap: int, asked: Sequence[tuple[Pair, Pair]]
    ) -> Iterator[NaturalItem]:
        """An item for each cue and answer, until no new one is found."""
        for given, wanted in asked:
            item = self._item(kind, gap, given, wanted)
            if item is None:
                return
            yield item

    def _item(self, kind: str, gap: int, given: Pair, wanted: Pair) -> NaturalItem | None:
        """A new item, if one is found."""
        for _ in range(TRIES):
            frame = self.grammar.frame(self.draws, given, wanted)
            found = self._filler(gap - self.script.gap(frame.between()))
            if found is not None and frame.document(found[0]) not in self.seen:
                self.seen.add(frame.document(found[0]))
                return self._made(kind, gap, frame, *found)
        return None

    def _control(self, gap: int, pair: Pair) -> Iterator[NaturalItem]:
        """An item without filler; a known one where there are few others."""
        known = None
        for _ in range(TRIES):
            frame = self.grammar.frame(self.draws, pair, pair)
            if self.script.gap(frame.between()) == gap:
                known = frame
                if frame.document() not in self.seen:
                    self.seen.add(frame.document())
                    break
        if known:
            yield self._made("control", gap, known, "", False)

    def _made(self, kind: str, gap: int, frame: Frame, filler: str, cut: bool) -> NaturalItem:
        between = frame.between(filler)
        assert self.script.gap(between) == gap  # noqa: S101 - a law of `fillers`
        answers = tuple(pair.answer for pair in self.grammar.facts.pairs)
        text, answer, rest = frame.text(filler), frame.query.word, frame.query.after
        end = len(text) - len(frame.query.before)
        more = len(between), self.script.unit, (end - len(filler), end), cut
        return NaturalItem(text, answer, answers, gap, kind, rest, *more)

    def _shortest(self) -> int:
        """The length without a filler of most pairs of cue and query, the least of equals."""
        facts, joint = self.grammar.facts, self.script.joint
        person, pair = facts.people[0], facts.pairs[0]
        counts = Counter(
            self.script.gap(
                Frame(facts.cue(c, pair, person), facts.query(q, pair, person), joint).between()
            )
            for c, q in product(facts.cues, facts.queries)
        )
        return min(counts, key=lambda gap: (-counts[gap], gap))

    # -------------------------------------------------------------- fillers

    def _filler(self, length: int) -> tuple[str, bool] | None:
        """Held-out text of just this length, and whether its first sentence is cut."""
        if length <= 0:
            return ("", False) if length == 0 else None
        held_out, ends = self.grammar.held_out, self._ends
        if ends[-1] < length:
            return None
        for _ in range(PROBES):
            begin = self.draws.index(len(held_out))
            end = self._at.get(ends[begin] + length)
            if end is not None and self._is_new(filler := "".join(held_out[begin:end])):
                return filler, False
        for _ in range(PROBES):
            end = 1 + self.draws.index(len(held_out))
            if ends[end] >= length:
                filler = self._tail(end, length)
                if self._is_new(filler):
                    return filler, True
        return None

    def _tail(self, end: int, length: int) -> str:
        """The words of this number with which the held-out sentence before `end` ends."""
        begin = end
        while self._ends[end] - self._ends[begin] < length:
            begin -= 1
        return self.script.tail("".join(self.grammar.held_out[begin:end]), length)

    def _is_new(self, filler: str) -> bool:
        """Whether the training part does not have it."""
        text = filler.strip()
        if text not in self._known:
            self._known[text] = text in self._trained
        return not self._known[text]
