"""Documents that name a country, change the subject, and need its language at the end.

**In:** `FranceSettings`: size, level, seed.
**Out:** `France`: a text whose best possible perplexity is known in closed form, and held-out items
that test at exact gaps what a model remembers.

A document is a cue ("Anna grew up in France ."), k fillers, and a query ("now she speaks fluent
French ."). k is drawn with P(k) proportional to 1 / (k + 1), k = 0..Kmax, so gaps are log-uniform.
The draws are independent and every document can be made in one way only, so its entropy is the sum
of the entropies of the draws.

Levels: 0 no distractors; 1 fillers name countries and languages at random; 2 two people from
two countries, and the query names one of them; 3 a quarter of the pairs of name and country never
occurs in the text, and the items test these only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from lmcli.grammars.base import Draws, Grammar, Item, Optimum, entropy, most_named
from lmcli.grammars.france import sentences
from lmcli.grammars.france.items import GAPS, Items
from lmcli.grammars.france.oracle import Filter
from lmcli.grammars.france.rules import Rules, rules
from lmcli.grammars.france.sentences import Template
from lmcli.settings import setting

WORDS = {"small": 236_000, "default": 1_200_000, "long": 4_000_000}
"""words at which the text ends, after a whole document; small stays below 1 MB"""


@dataclasses.dataclass(frozen=True)
class FranceSettings:
    """Size, level and seed."""

    size: Literal["small", "default", "long"] = setting(
        "default", "small: below 1 MB; default: 1.2 million words; long: 4 million words, long gaps"
    )
    level: int = setting(
        1, "0 plain, 1 distractors, 2 two people, 3 held-out name and country", least=0, most=3
    )
    seed: int = setting(0, "another seed, another text", least=0)


class France(Grammar):
    """The France grammar; ``France(FranceSettings(size="small", level=1, seed=0))``."""

    name = "france"
    Settings = FranceSettings

    def __init__(self, settings: FranceSettings | None = None) -> None:
        self.settings = settings or FranceSettings()
        self.rules = rules(self.settings.level, self.settings.size)

    def _draws(self, stream: str) -> Draws:
        return Draws(f"france {stream} {self.settings.level} {self.settings.seed}")

    def documents(self) -> Iterator[str]:
        """The documents of the text, up to its size."""
        draws, words = self._draws("text"), 0
        while words < WORDS[self.settings.size]:
            draft = self.rules.draft(draws, self.rules.pairs)
            words += len(draft.words)
            yield str(draft)

    def items(self) -> Iterator[Item]:
        """Held-out items: ``country`` and ``pronoun`` at every exact gap, and ``control``."""
        yield from self._items

    @cached_property
    def _items(self) -> list[Item]:
        items = Items(self.rules, self._draws("items"), set(self.documents()))
        return list(items.all(self.settings.size))

    def order_free(self) -> dict[str, float]:
        """By gap, how often a reader is right who takes the country named most often.

        Naming its language counts as well; ties by lot.
        """
        languages = sentences.COUNTRIES
        owners = languages | {language: language for language in languages.values()}
        shares: dict[str, list[float]] = {}
        for item in self._items:
            if item.kind == "country":
                named = (owners[word] for word in item.text.split() if word in owners)
                shares.setdefault(str(item.gap), []).append(most_named(named, item))
        return {gap: sum(some) / len(some) for gap, some in shares.items()}

    def optimum(self) -> Optimum:
        """The optimum of a model that knows the grammar and forgets nothing.

        The entropy of a document is the sum of the entropies of its draws.
        """
        rules, lengths = self.rules, self.rules.length_weights
        fillers = sum(k * weight for k, weight in enumerate(lengths)) / sum(lengths)
        nats = [
            rules.people * math.log(len(rules.cues)),
            _entropy_of_people(rules),
            entropy(lengths),
            fillers * (entropy(f.weight for f in rules.fillers) + _mean(rules.fillers, _slots)),
            math.log(rules.people),
            math.log(len(rules.queries)),
        ]
        sizes = [
            rules.people * _mean(rules.cues, measure)
            + fillers * _mean(rules.fillers, measure)
            + _mean(rules.queries, measure)
            for measure in (len, _characters)
        ]
        return Optimum(sum(nats), sizes[0] + 1, sizes[1])

    def amnesic(self) -> Optimum:
        """The optimum of a model that knows the grammar and forgets the cue before the query.

        The language costs ln 16 more, the pronoun ln 2; where the query names one of two people,
        their name costs ln 16 instead of ln 2.
        """
        best, people = self.optimum(), self.rules.people
        person = math.log(2) if people == 1 else math.log(len(sentences.NAMES) / people)
        lost = math.log(len(sentences.LANGUAGES)) + person
        return dataclasses.replace(best, nats_per_document=best.nats_per_document + lost)

    def about(self) -> dict[str, Any]:
        chance = {"country": 1 / len(sentences.LANGUAGES), "pronoun": 1 / 2}
        chance |= {"control": 1 / len(sentences.PLACES)}
        if self.rules.people > 1:
            del chance["pronoun"]
        return {
            "recipe": {"grammar": self.name} | dataclasses.asdict(self.settings),
            "seed": self.settings.seed,
            "most_fillers": len(self.rules.length_weights) - 1,
            "gaps": list(GAPS[self.settings.size]),
            "chance": chance,
            "facts": {"pairs": [list(pair) for pair in sentences.COUNTRIES.items()]},
            "order_free": self.order_free(),
            "amnesic": self.amnesic().as_dict(),
        }

    def token_log_probabilities(self, document: str) -> list[float]:
        """ln p of every word given all before it, and of the line end: the oracle, by filtering.

        Raises ValueError if this grammar cannot make the document.
        """
        oracle = Filter(self.rules)
        return [oracle.read(word) for word in [*document.split(" "), "\n"]]


def _entropy_of_people(rules: Rules) -> float:
    """The first person is any pair; a second shares neither name nor country with the first."""
    nats = math.log(len(rules.pairs))
    if rules.people == 2:
        others = [sum(p.differs(first) for p in rules.pairs) for first in rules.pairs]
        nats += sum(map(math.log, others)) / len(others)
    return nats


def _mean(templates: tuple[Template, ...], measure: Any) -> float:
    """The mean of a measure over templates, by their weights."""
    total = sum(template.weight for template in templates)
    return float(sum(t.weight * measure(t) for t in templates) / total)


def _slots(filler: Template) -> float:
    """The entropy of the slots; a place follows from its noun and adds none."""
    free = sentences.SLOTS | {"{noun}": tuple(sentences.PLACES)}
    return sum(math.log(len(free[word])) for word in filler.words if word in free)


def _characters(template: Template) -> float:
    """The mean number of characters, with one blank or line end after every word."""
    s = sentences
    choices = s.SLOTS | s.PRONOUNS | dict.fromkeys(("{name}", "{asked}"), s.NAMES)
    choices |= {"{country}": tuple(s.COUNTRIES), "{language}": s.LANGUAGES}
    choices |= {"{noun}": tuple(s.PLACES), "{place}": tuple(s.PLACES.values())}
    options = [choices.get(word, (word,)) for word in template.words]
    return sum(1 + sum(map(len, words)) / len(words) for words in options)
