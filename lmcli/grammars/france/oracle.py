"""The best possible model of a France text: the exact probability of every next word.

**In:** `Rules`, and the words of a document one by one.
**Out:** a distribution over the next word, given all words so far.

Forward filtering: a `Hypothesis` says which sentence is being read, how far, and who was
introduced. Each word removes the hypotheses that it contradicts and rescales the others by Bayes'
rule. The closed form is not used, nor that a document can be made in one way only, so each tests
the other.
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
class Hypothesis:
    """One derivation of the words so far, and its probability."""

    kind: str
    words: tuple[str, ...]
    weight: float
    people: tuple[Person, ...] = ()
    """introduced in sentences before this one"""
    fillers: int = 0
    """fillers read before this sentence"""
    position: int = 0
    slots: tuple[tuple[str, str], ...] = ()
    """the words of those slots of this sentence that matter later"""

    def asked(self) -> Person:
        """The person that the query is about."""
        name = dict(self.slots).get("{asked}", self.people[0].name)
        return next(person for person in self.people if person.name == name)


class Filter:
    """Reads a document word by word: `next_words` predicts, `read` takes the actual word."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.hypotheses = list(self._cues((), 1.0))

    def next_words(self) -> dict[str, float]:
        """The probability of every word that can come next; empty after the line end."""
        words: dict[str, float] = {}
        for hypothesis in self.hypotheses:
            for word, share in self._options(hypothesis).items():
                words[word] = words.get(word, 0.0) + hypothesis.weight * share
        return words

    def read(self, word: str) -> float:
        """ln p of the word given all before it; a word that cannot come is a ValueError."""
        possible = [
            (hypothesis, hypothesis.weight * share)
            for hypothesis in self.hypotheses
            if (share := self._options(hypothesis).get(word, 0.0)) > 0
        ]
        total = sum(weight for _, weight in possible)
        if not total:
            raise ValueError(f"the grammar cannot go on with {word!r}")
        self.hypotheses = [
            after
            for hypothesis, weight in possible
            for after in self._step(hypothesis, word, weight / total)
        ]
        return math.log(total)

    def _step(self, hypothesis: Hypothesis, word: str, weight: float) -> Iterator[Hypothesis]:
        """The hypothesis after a word; at the end of a sentence, every sentence that can follow."""
        slot, position = hypothesis.words[hypothesis.position], hypothesis.position + 1
        slots = (*hypothesis.slots, (slot, word)) if slot in _REMEMBERED else hypothesis.slots
        if position < len(hypothesis.words):
            yield dataclasses.replace(hypothesis, weight=weight, position=position, slots=slots)
        elif hypothesis.kind == "cue":
            person = Person(dict(slots)["{name}"], dict(slots)["{country}"])
            yield from self._cues((*hypothesis.people, person), weight)
        elif hypothesis.kind == "filler":
            yield from self._fillers_or_query(hypothesis.people, hypothesis.fillers + 1, weight)
        elif hypothesis.kind == "query":
            yield Hypothesis("end", (LINE_END,), weight)

    def _cues(self, people: tuple[Person, ...], weight: float) -> Iterator[Hypothesis]:
        """The next person's cue; when all are introduced, what follows the cues."""
        if len(people) == self.rules.people:
            yield from self._fillers_or_query(people, 0, weight)
            return
        for template, share in _shares(self.rules.cues):
            yield Hypothesis("cue", template.words, weight * share, people)

    def _fillers_or_query(
        self, people: tuple[Person, ...], fillers: int, weight: float
    ) -> Iterator[Hypothesis]:
        """The next sentence; the hazard is the probability of the query, given none so far."""
        left = self.rules.length_weights[fillers:]
        hazard = left[0] / sum(left)
        for template, share in _shares(self.rules.queries):
            yield Hypothesis("query", template.words, weight * hazard * share, people, fillers)
        for template, share in _shares(self.rules.fillers if len(left) > 1 else ()):
            chance = weight * (1 - hazard) * share
            yield Hypothesis("filler", template.words, chance, people, fillers)

    def _options(self, hypothesis: Hypothesis) -> dict[str, float]:
        """The words that can come next under the hypothesis, with their probabilities."""
        slot = hypothesis.words[hypothesis.position]
        if slot in _UNIFORM:
            return _UNIFORM[slot]
        if slot in ("{name}", "{country}"):
            return self._introduced(hypothesis, slot.strip("{}"))
        if slot == "{place}":
            return {PLACES[dict(hypothesis.slots)["{noun}"]]: 1.0}
        if slot == "{asked}":
            return {person.name: 1 / len(hypothesis.people) for person in hypothesis.people}
        if slot == "{language}":
            return {hypothesis.asked().language: 1.0}
        if slot in PRONOUNS:
            return {PRONOUNS[slot][hypothesis.asked().name not in WOMEN]: 1.0}
        return {slot: 1.0}

    def _introduced(self, hypothesis: Hypothesis, field: str) -> dict[str, float]:
        """Names or countries of the people that agree with the cue so far."""
        pairs = list(self.rules.pairs)
        for slot, word in hypothesis.slots:
            pairs = [pair for pair in pairs if getattr(pair, slot.strip("{}")) == word]
        for other in hypothesis.people:
            pairs = [pair for pair in pairs if pair.differs(other)]
        words = Counter([getattr(pair, field) for pair in pairs])
        return {word: count / len(pairs) for word, count in words.items()}


def _shares(templates: tuple[Template, ...]) -> Iterator[tuple[Template, float]]:
    total = sum(template.weight for template in templates)
    return ((template, template.weight / total) for template in templates)
