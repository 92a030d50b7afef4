"""The rules of the France grammar at one level and size, and how a document is drawn by them.

**In:** a level, a size, and random draws.
**Out:** `Rules`, the tables of text, items, closed form and oracle; `Draft`, a document that is
being built.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from itertools import accumulate

from lmcli.grammars.base import Draws, Item
from lmcli.grammars.france.sentences import (
    CONTROL,
    COUNTRIES,
    CUES,
    DISTRACTORS,
    FILLERS,
    NAMED_QUERIES,
    NAMES,
    PLACES,
    PRONOUNS,
    QUERIES,
    SLOTS,
    WOMEN,
    Template,
)

MOST_FILLERS = {"small": 12, "default": 12, "long": 128}


@dataclasses.dataclass(frozen=True)
class Person:
    """The person of a cue."""

    name: str
    country: str

    @property
    def language(self) -> str:
        return COUNTRIES[self.country]

    def differs(self, other: Person) -> bool:
        """Whether the two share neither name nor country."""
        return self.name != other.name and self.country != other.country


class Draft:
    """A document that is being built: its words, and the positions of the marked ones."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.at: dict[str, int] = {}

    def add(self, template: Template, given: dict[str, str], draws: Draws) -> None:
        """Append a sentence; slots in `given` are filled and marked, the others drawn."""
        for word in template.words:
            if word in given:
                self.at[word] = len(self.words)
                self.words.append(given[word])
            else:
                self.words.append(draws.choose(SLOTS[word]) if word in SLOTS else word)

    def item(self, slot: str, gap: int, candidates: tuple[str, ...], kind: str) -> Item:
        """The document with a blank at the last word that filled `slot`."""
        at = self.at[slot]
        text, rest = " ".join(self.words[:at]) + " ", " " + " ".join(self.words[at + 1 :])
        return Item(text, self.words[at], candidates, gap, kind, rest)

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclasses.dataclass(frozen=True)
class Rules:
    """The sentences and people of a document, and their weights."""

    people: int
    """people who are introduced before the query names one of them"""
    pairs: tuple[Person, ...]
    """the people of the text, all equally likely"""
    item_pairs: tuple[Person, ...]
    """the people of the items: the same, or at level 3 those that the text never shows"""
    cues: tuple[Template, ...]
    fillers: tuple[Template, ...]
    queries: tuple[Template, ...]
    length_weights: tuple[float, ...]
    """entry k is proportional to the probability of k fillers"""

    @cached_property
    def filler_sums(self) -> list[int]:
        return list(accumulate(filler.weight for filler in self.fillers))

    @cached_property
    def length_sums(self) -> list[float]:
        return list(accumulate(self.length_weights))

    def draft(self, draws: Draws) -> Draft:
        """One document from the distribution of the text."""
        draft, people = Draft(), self.cast(draws, draws.choose(self.pairs), self.pairs)
        for person in people:
            self.add_cue(draft, draws.choose(self.cues), person, draws)
        for _ in range(self.draw_length(draws)):
            self.add_filler(draft, self.draw_filler(draws), draws)
        self.add_query(draft, draws.choose(self.queries), draws.choose(people), draws)
        return draft

    def cast(self, draws: Draws, first: Person, pairs: tuple[Person, ...]) -> list[Person]:
        """`first` and others, as many as the rules say; no two share a name or a country."""
        people = [first]
        while len(people) < self.people:
            other = draws.choose(pairs)
            if all(map(other.differs, people)):
                people.append(other)
        return people

    def draw_length(self, draws: Draws) -> int:
        """How many fillers a document has."""
        return draws.weighted(self.length_sums)

    def draw_filler(self, draws: Draws) -> Template:
        return self.fillers[draws.weighted(self.filler_sums)]

    def add_cue(self, draft: Draft, cue: Template, person: Person, draws: Draws) -> None:
        draft.add(cue, {"{name}": person.name, "{country}": person.country}, draws)

    def add_filler(self, draft: Draft, filler: Template, draws: Draws, noun: str = "") -> None:
        """Append a filler; in the control sentence the noun determines the place."""
        given = {}
        if filler is CONTROL:
            noun = noun or draws.choose(tuple(PLACES))
            given = {"{noun}": noun, "{place}": PLACES[noun]}
        draft.add(filler, given, draws)

    def add_query(self, draft: Draft, query: Template, person: Person, draws: Draws) -> None:
        given = {"{asked}": person.name, "{language}": person.language}
        for slot, (hers, his) in PRONOUNS.items():
            given[slot] = hers if person.name in WOMEN else his
        draft.add(query, given, draws)


def rules(level: int, size: str) -> Rules:
    """The rules of a level (0 to 3) and a size."""
    pairs = [(n, c) for n in range(len(NAMES)) for c in range(len(COUNTRIES))]
    kept = [(n, c) for n, c in pairs if level != 3 or (n + c) % 4]
    held_out = [(n, c) for n, c in pairs if level != 3 or (n + c) % 4 == 0]
    return Rules(
        people=2 if level == 2 else 1,
        pairs=_people(kept),
        item_pairs=_people(held_out),
        cues=CUES,
        fillers=FILLERS + (DISTRACTORS if level else ()),
        queries=NAMED_QUERIES if level == 2 else QUERIES,
        length_weights=tuple(1 / (k + 1) for k in range(MOST_FILLERS[size] + 1)),
    )


def _people(pairs: list[tuple[int, int]]) -> tuple[Person, ...]:
    return tuple(Person(NAMES[n], tuple(COUNTRIES)[c]) for n, c in pairs)
