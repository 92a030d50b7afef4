"""Held-out items of the France grammar: language, pronoun and a control, at exact gaps.

**In:** `Rules`, random draws, and the documents of the text, none of which becomes an item.
**Out:** `Item` after `Item`.

A gap is met exactly: the words that cue and query put between them are completed with sentences
drawn as in the text, on the condition that their lengths add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import accumulate, product

from lmcli.grammars.base import Draws, Item
from lmcli.grammars.france import sentences
from lmcli.grammars.france.rules import Draft, Person, Rules
from lmcli.grammars.france.sentences import Template

ALL_GAPS = (3, 5, 10, 20, 30, 50, 100, 200, 400, 700, 1000, 2000)
GAPS = {
    size: tuple(gap for gap in ALL_GAPS if gap <= most)
    for size, most in {"small": 200, "default": 400, "long": 2000}.items()
}
ITEMS_PER_GAP = 300
PRONOUN_ITEMS_PER_GAP = {"small": 100, "default": 300, "long": 300}
"""fewer in a small file"""
LARGEST_PRONOUN_GAP = 100
TRIES = 200


@dataclasses.dataclass(frozen=True)
class Frame:
    """The sentences around the fillers, and the words that they put into the gap."""

    cues: tuple[Template, ...]
    query: Template
    person: int
    """which of the cues names the person of the query"""
    slot: str
    words: int


class Items:
    """Makes items; `used` holds every document so that none occurs twice."""

    def __init__(self, rules: Rules, draws: Draws, used: set[str]) -> None:
        self.rules = rules
        self.draws = draws
        self.used = used
        self._ways = [1.0]
        self._sums: dict[int, list[float]] = {}

    def all(self, size: str) -> Iterator[Item]:
        """The items of a size, balanced over answers; gaps that cannot be met are left out."""
        people = self.rules.item_pairs
        by_country = [
            [p for p in people if p.country == country] for country in sentences.COUNTRIES
        ]
        by_pronoun = [
            [p for p in people if (p.name in sentences.WOMEN) == woman] for woman in (True, False)
        ]
        for gap in GAPS[size]:
            frames = self._frames("{country}", ("{language}",), gap)
            for number in range(ITEMS_PER_GAP if frames else 0):
                yield from self._item(
                    gap, frames, by_country[number % len(sentences.COUNTRIES)], "country"
                )
        for gap in GAPS[size]:
            frames = self._frames("{name}", tuple(sentences.PRONOUNS), gap)
            wanted = PRONOUN_ITEMS_PER_GAP[size] if gap <= LARGEST_PRONOUN_GAP else 0
            for number in range(wanted if frames else 0):
                yield from self._item(gap, frames, by_pronoun[number % 2], "pronoun")
        for number in range(ITEMS_PER_GAP):
            yield from self._control(tuple(sentences.PLACES)[number % len(sentences.PLACES)])

    def _frames(self, cue_slot: str, targets: tuple[str, ...], gap: int) -> list[Frame]:
        """All cues and queries between which whole sentences can fill the gap."""
        rules, frames = self.rules, []
        choices = product(product(rules.cues, repeat=rules.people), rules.queries, targets)
        for cues, query, target in choices:
            for person in range(rules.people if target in query.words else 0):
                after_cue = sum(map(len, cues[person:])) - cues[person].words.index(cue_slot) - 1
                words = after_cue + query.words.index(target)
                if words <= gap and self._ways_to_fill(gap - words) > 0:
                    frames.append(Frame(cues, query, person, target, words))
        return frames

    def _ways_to_fill(self, words: int) -> float:
        """The probability that a sentence ends exactly after `words` words of random sentences."""
        fillers, total = self.rules.fillers, self.rules.filler_sums[-1]
        for end in range(len(self._ways), words + 1):
            shares = (
                f.weight / total * self._ways[end - len(f)] if len(f) <= end else 0.0
                for f in fillers
            )
            self._ways.append(sum(shares))
        return self._ways[words]

    def _fillers(self, words: int) -> Iterator[Template]:
        """Sentences drawn as in the text, given that their lengths add up to `words`."""
        fillers = self.rules.fillers
        while words:
            if words not in self._sums:
                left = [words - len(f) for f in fillers]
                ways = [self._ways_to_fill(w) if w >= 0 else 0.0 for w in left]
                shares = (f.weight * w for f, w in zip(fillers, ways, strict=True))
                self._sums[words] = list(accumulate(shares))
            filler = fillers[self.draws.weighted(self._sums[words])]
            yield filler
            words -= len(filler)

    def _item(
        self, gap: int, frames: list[Frame], people: list[Person], kind: str
    ) -> Iterator[Item]:
        """One new item about one of `people`, if there is one; all queries are equally likely."""
        queries = tuple(dict.fromkeys(frame.query for frame in frames))

        def draw() -> Item:
            query = self.draws.choose(queries)
            frame = self.draws.choose([f for f in frames if f.query is query])
            draft = self._asking(gap, frame, self.draws.choose(people))
            candidates = (
                sentences.LANGUAGES if kind == "country" else sentences.PRONOUNS[frame.slot]
            )
            return draft.item(frame.slot, gap, candidates, kind)

        return self._new(draw)

    def _control(self, noun: str) -> Iterator[Item]:
        """An item about a noun of the control sentence."""
        gap = sentences.CONTROL.words.index("{place}") - sentences.CONTROL.words.index("{noun}") - 1

        def draw() -> Item:
            draft = self.rules.draft(self.draws, self.rules.item_pairs, noun)
            return draft.item("{place}", gap, tuple(sentences.PLACES.values()), "control")

        return self._new(draw)

    def _new(self, draw: Callable[[], Item]) -> Iterator[Item]:
        """The first draw that is new; none if there seem to be none left."""
        for _ in range(TRIES):
            item = draw()
            if item.document not in self.used:
                self.used.add(item.document)
                yield item
                return

    def _asking(self, gap: int, frame: Frame, person: Person) -> Draft:
        """A document about `person` in the frame, with the gap filled exactly."""
        rules, draws, draft = self.rules, self.draws, Draft()
        people = rules.cast(draws, person, rules.item_pairs)
        people[0], people[frame.person] = people[frame.person], people[0]
        for cue, someone in zip(frame.cues, people, strict=True):
            rules.add_cue(draft, cue, someone, draws)
        for filler in self._fillers(gap - frame.words):
            rules.add_filler(draft, filler, draws)
        rules.add_query(draft, frame.query, person, draws)
        return draft
