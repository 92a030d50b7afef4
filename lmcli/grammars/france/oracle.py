"""The best possible reader of a France text: the exact probability of every next word.

**In:** `Rules`, and the words of a document one by one.
**Out:** a distribution over the next word, given all words so far.

Forward filtering: a `Guess` says which sentence is being read, how far, and who was introduced.
Each word drops the guesses that it contradicts and rescales the others by Bayes' rule. Nothing here
uses the closed form, nor that a document can be made in one way only, so each can test the other.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator

from lmcli.grammars.france.rules import Person, Rules
from lmcli.grammars.france.sentences import PLACES, PRONOUNS, SLOTS, WOMEN, Template

LINE_END = "\n"
_UNIFORM = {slot: dict.fromkeys(words, 1 / len(words)) for slot, words in SLOTS.items()}
_UNIFORM["{noun}"] = dict.fromkeys(PLACES, 1 / len(PLACES))
_REMEMBERED = ("{name}", "{country}", "{noun}", "{asked}")


@dataclasses.dataclass(frozen=True)
class Guess:
    """One way in which the words so far can have been made, and its probability."""

    kind: str
    words: tuple[str, ...]
    weight: float
    people: tuple[Person, ...] = ()
    """who has been introduced in sentences before this one"""
    fillers: int = 0
    """how many fillers have been read before this sentence"""
    position: int = 0
    known: tuple[tuple[str, str], ...] = ()
    """slots of this sentence that have been read and matter later"""

    def asked(self) -> Person:
        """The person that the query is about."""
        name = dict(self.known).get("{asked}", self.people[0].name)
        return next(person for person in self.people if person.name == name)


class Filter:
    """Reads a document; `next_words` is what may come, `read` takes what does come."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.guesses = list(self._cues((), 1.0))

    def next_words(self) -> dict[str, float]:
        """The probability of every word that can come next; empty after the line end."""
        found: dict[str, float] = {}
        for guess in self.guesses:
            for word, share in self._options(guess).items():
                found[word] = found.get(word, 0.0) + guess.weight * share
        return found

    def read(self, word: str) -> float:
        """ln p of the word given all before it; a word that cannot come is a ValueError."""
        alive = [
            (guess, guess.weight * share)
            for guess in self.guesses
            if (share := self._options(guess).get(word, 0.0)) > 0
        ]
        total = sum(weight for _, weight in alive)
        if not total:
            raise ValueError(f"the grammar cannot go on with {word!r}")
        self.guesses = [
            after for guess, weight in alive for after in self._step(guess, word, weight / total)
        ]
        return math.log(total)

    def _step(self, guess: Guess, word: str, weight: float) -> Iterator[Guess]:
        """The guess one word on; at the end of its sentence, every sentence that can follow."""
        slot, position = guess.words[guess.position], guess.position + 1
        known = (*guess.known, (slot, word)) if slot in _REMEMBERED else guess.known
        if position < len(guess.words):
            yield dataclasses.replace(guess, weight=weight, position=position, known=known)
        elif guess.kind == "cue":
            person = Person(dict(known)["{name}"], dict(known)["{country}"])
            yield from self._cues((*guess.people, person), weight)
        elif guess.kind == "filler":
            yield from self._fillers_or_query(guess.people, guess.fillers + 1, weight)
        elif guess.kind == "query":
            yield Guess("end", (LINE_END,), weight)

    def _cues(self, people: tuple[Person, ...], weight: float) -> Iterator[Guess]:
        """The next person's cue; when all are introduced, what follows the cues."""
        if len(people) == self.rules.people:
            yield from self._fillers_or_query(people, 0, weight)
            return
        for template, share in _shares(self.rules.cues):
            yield Guess("cue", template.words, weight * share, people)

    def _fillers_or_query(
        self, people: tuple[Person, ...], fillers: int, weight: float
    ) -> Iterator[Guess]:
        """The hazard: the probability that the query comes now, given that it has not come yet."""
        left = self.rules.length_weights[fillers:]
        hazard = left[0] / sum(left)
        for template, share in _shares(self.rules.queries):
            yield Guess("query", template.words, weight * hazard * share, people, fillers)
        for template, share in _shares(self.rules.fillers if len(left) > 1 else ()):
            chance = weight * (1 - hazard) * share
            yield Guess("filler", template.words, chance, people, fillers)

    def _options(self, guess: Guess) -> dict[str, float]:
        """Which words the guess expects, and with which probabilities."""
        slot = guess.words[guess.position]
        if slot in _UNIFORM:
            return _UNIFORM[slot]
        if slot in ("{name}", "{country}"):
            return self._introduced(guess, slot.strip("{}"))
        if slot == "{place}":
            return {PLACES[dict(guess.known)["{noun}"]]: 1.0}
        if slot == "{asked}":
            return {person.name: 1 / len(guess.people) for person in guess.people}
        if slot == "{language}":
            return {guess.asked().language: 1.0}
        if slot in PRONOUNS:
            return {PRONOUNS[slot][guess.asked().name not in WOMEN]: 1.0}
        return {slot: 1.0}

    def _introduced(self, guess: Guess, field: str) -> dict[str, float]:
        """Names or countries of the people that can be meant, given the cue so far."""
        pairs = list(self.rules.pairs)
        for slot, word in guess.known:
            pairs = [pair for pair in pairs if getattr(pair, slot.strip("{}")) == word]
        for other in guess.people:
            pairs = [pair for pair in pairs if pair.differs(other)]
        words = Counter([getattr(pair, field) for pair in pairs])
        return {word: count / len(pairs) for word, count in words.items()}


def _shares(templates: tuple[Template, ...]) -> Iterator[tuple[Template, float]]:
    total = sum(template.weight for template in templates)
    return ((template, template.weight / total) for template in templates)
