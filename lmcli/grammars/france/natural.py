"""The France sentence in a text of the user's own: cue, sentences of that text, query.

**In:** a `SourceText` in two parts, `Facts`, `NaturalSettings`.
**Out:** `NaturalFrance`: documents whose filler is the training part, and items whose filler is the
held-out part, so that no item's filler was ever seen.

A document is a cue ("Anna grew up in France."), k consecutive sentences of the text as they stand,
and a query ("Now she speaks fluent French."); k is drawn with P(k) proportional to 1 / (k + 1),
k = 0..Kmax. A long text is used once, in order; a short one is gone through again, each time from
another place, until there are enough documents. There is no known optimum.

What distracts are the countries and languages that the text itself names. `order_free` is how often
a reader is right who takes the one named most often before the blank, the cue included.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import UsageError
from lmcli.grammars.base import Draws, Grammar, Item, most_named
from lmcli.grammars.france.facts import Facts, Frame, Pair, facts_of_pairs, load_facts, recognise
from lmcli.grammars.france.natural_items import NaturalItem, NaturalItems
from lmcli.grammars.france.segmentation import Script
from lmcli.report.progress import Message, OnProgress
from lmcli.settings import setting

if TYPE_CHECKING:
    from lmcli.data.corpus import Corpus

SAMPLE = 1 << 20
"""characters by which a text is judged"""
LINE_ENDS = "each is one blank; the blanks that begin a line are kept, but for wrapped paragraphs"


@dataclasses.dataclass(frozen=True)
class NaturalSettings:
    """How much text, how long the fillers, and which draws."""

    words: int = setting(
        2_000_000, "of all documents, at least; a longer text is used once", least=1_000
    )
    longest: int = setting(300, "words of the longest filler, about", least=1)
    seed: int = setting(0, "another seed, other documents", least=0)


@dataclasses.dataclass(frozen=True)
class SourceText:
    """The user's text in pieces, split as `lmcli train` splits it."""

    names: tuple[str, ...]
    sha256: str
    train: Sequence[str]
    held_out: Sequence[str]

    @classmethod
    def of(cls, corpus: Corpus) -> SourceText:
        """The parts of a corpus; a block for validation stays with the next, for the test."""
        test = corpus.test.documents if corpus.test else ()
        held_out = (piece for two in zip_longest(corpus.valid.documents, test) for piece in two)
        train = tuple(corpus.train.documents)
        return cls(corpus.names, str(corpus.spec.sha256), train, tuple(filter(None, held_out)))

    def sample(self) -> str:
        """The beginning of the training part."""
        found, size = [], 0
        for piece in self.train:
            found.append(piece[: SAMPLE - size])
            size += len(found[-1])
            if size >= SAMPLE:
                break
        return "\n".join(found)


class NaturalFrance(Grammar):
    """Documents and items from a text, some facts and `NaturalSettings`."""

    name = "france"
    Settings = NaturalSettings

    def __init__(
        self, source: SourceText, facts: Facts, settings: NaturalSettings | None = None
    ) -> None:
        self.source = source
        self.settings = settings or NaturalSettings()
        self.script = Script.of(source.sample())
        self.facts = facts.spaced() if self.script.spaced else facts
        self.train = self.script.sentences(source.train)
        self.held_out = self.script.sentences(source.held_out)

    def draws(self, stream: str) -> Draws:
        """Random draws of their own."""
        return Draws(f"france natural {stream} {self.settings.seed}")

    @cached_property
    def most_fillers(self) -> int:
        """Kmax, from the mean length of the text's sentences."""
        mean = sum(map(self.script.measure, self.train)) / len(self.train)
        return max(1, round(self.settings.longest / mean))

    def frame(self, draws: Draws, given: Pair, wanted: Pair) -> Frame:
        """Sentences around a filler, all equally likely; usually both are of one pair."""
        person = draws.choose(self.facts.people)
        cue = self.facts.cue(draws.choose(self.facts.cues), given, person)
        query = self.facts.query(draws.choose(self.facts.queries), wanted, person)
        return Frame(cue, query, self.script.joint)

    # -------------------------------------------------------------- the text

    def documents(self) -> Iterator[str]:
        """The documents of the text, until it was used once and there are enough words."""
        yield from self._documents[0]

    @cached_property
    def _documents(self) -> tuple[list[str], float]:
        """The documents, and how many times the training part was used."""
        draws, documents, size, used = self.draws("text"), list[str](), 0, 0
        for again, filler in self._passages(draws):
            if again and size >= self.settings.words:
                break
            pair = draws.choose(self.facts.pairs)
            documents.append(self.frame(draws, pair, pair).document(filler))
            size += self.script.measure(documents[-1])
            used += len(filler)
        return documents, used / sum(map(len, self.train))

    @property
    def min_count(self) -> int:
        """For the tokenizer: a word that the user's text has once is then unknown.

        The items have words that the text lacks. A model that has never seen an unknown word loses
        at each of them some of what it held. In a text of few documents it is less, lest the
        answers be unknown too.
        """
        documents, used = self._documents
        once = math.ceil(1.5 * max(1.0, used))
        return max(1, min(once, len(documents) // (4 * len(self.facts.pairs))))

    def _passages(self, draws: Draws) -> Iterator[tuple[bool, str]]:
        """Consecutive sentences, pass after pass, and whether it is not the first pass."""
        weights = list(accumulate(1 / (k + 1) for k in range(self.most_fillers + 1)))
        order, again = self.train, False
        while True:
            place = 0
            while place < len(order):
                end = place + draws.weighted(weights)
                yield again, "".join(order[place:end])
                place = end
            first, again = draws.index(len(self.train)), True
            order = self.train[first:] + self.train[:first]

    # -------------------------------------------------------------- what is asked

    def items(self) -> Iterator[Item]:
        """``country`` at every exact gap, ``control`` without filler, ``shuffled``."""
        yield from self._items

    @cached_property
    def _items(self) -> list[NaturalItem]:
        return list(NaturalItems(self, set(self._documents[0])).all())

    # -------------------------------------------------------------- what is known of it

    def optimum(self) -> None:
        """None: how likely the user's own sentences are is not known."""

    def about(self) -> dict[str, Any]:
        chance = 1 / len(self.facts.pairs)
        country = [item for item in self._items if item.kind == "country"]
        gaps = sorted({item.gap for item in country})
        return {
            "recipe": {"grammar": self.name, "filler": list(self.source.names)}
            | {"facts": self.facts.source}
            | dataclasses.asdict(self.settings),
            "seed": self.settings.seed,
            "tokenizer": "word" if self.script.unit == "words" else "char",
            "unit": self.script.unit,
            "min_count": self.min_count,
            "most_fillers": self.most_fillers,
            "gaps": gaps,
            "chance": dict.fromkeys(Counter(item.kind for item in self._items), chance),
            "filler": {
                "texts": list(self.source.names),
                "sha256": self.source.sha256,
                "sentences": len(self.train),
                "held_out_sentences": len(self.held_out),
                "times_used": self._documents[1],
                "wrapped": self.script.wrapped,
                "spaced": self.script.spaced,
                "line_ends": LINE_ENDS,
            },
            "facts": {
                "language": self.facts.language,
                "sha256": _checksum(self.facts),
                "pairs": [[pair.cue, pair.answer] for pair in self.facts.pairs],
            },
            "named_in_filler": self.named("".join((*self.train, *self.held_out))),
            "order_free": self._by_gap(country, self.order_free),
            "different_fillers": self._by_gap(country, lambda i: len({o.own for o in i})),
            "begin_mid_sentence": self._by_gap(country, lambda i: sum(o.cut for o in i)),
        }

    def _by_gap(self, items: Sequence[NaturalItem], measure: Any) -> dict[str, Any]:
        gaps: dict[int, list[NaturalItem]] = {}
        for item in items:
            gaps.setdefault(item.gap, []).append(item)
        return {str(gap): measure(some) for gap, some in gaps.items()}

    @cached_property
    def _forms(self) -> tuple[dict[str, Pair], re.Pattern[str]]:
        """All forms by which pairs are named, and a pattern that finds them."""
        owners = {form: pair for pair in reversed(self.facts.pairs) for form in pair.forms}
        longest = sorted(owners, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest))
        if self.script.unit == "words":
            pattern = rf"(?<!\w)(?:{pattern})(?!\w)"
        return owners, re.compile(pattern)

    def named(self, text: str) -> dict[str, int]:
        """How often a text has each form by which a cue or an answer is named."""
        owners, pattern = self._forms
        counts = Counter(pattern.findall(text))
        own = (form for pair in self.facts.pairs for form in (pair.name, pair.answer))
        return {form: counts[form] for form in dict.fromkeys([*own, *owners]) if form in owners}

    def order_free(self, items: Sequence[Item]) -> float:
        """The expected accuracy of the pair named most often before the blank, ties by lot."""
        owners, pattern = self._forms
        named = ((owners[form].answer for form in pattern.findall(i.text)) for i in items)
        return sum(map(most_named, named, items)) / len(items)


def _checksum(facts: Facts) -> str:
    plain = dataclasses.asdict(facts) | {"frequent_words": sorted(facts.frequent_words)}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def prepare(
    grammar: str,
    corpus: Corpus | None,
    facts: str | Path | None,
    pairs: str | Path | None,
    frame: str | None,
    on_progress: OnProgress,
) -> tuple[type[NaturalFrance], SourceText, Facts]:
    """The class that makes documents from a text of the user's own, and what it needs."""
    if grammar != NaturalFrance.name or corpus is None:
        problem = "--filler, --facts, --pairs and --frame are for make france --filler TEXT"
        raise UsageError(problem, "lmcli make france --filler my.txt")
    source = SourceText.of(corpus)
    return NaturalFrance, source, choose_facts(source, facts, pairs, frame, on_progress)


def choose_facts(
    source: SourceText,
    facts: str | Path | None,
    pairs: str | Path | None,
    frame: str | None,
    on_progress: OnProgress,
) -> Facts:
    """The facts that were given, or those in the language of the text."""
    if (pairs is None) != (frame is None) or (pairs and facts):
        problem = "--pairs and --frame go together, and without --facts"
        raise UsageError(problem, '--pairs F.csv --frame "I grew up in {a}. ... I speak {b}."')
    if pairs and frame:
        return facts_of_pairs(pairs, frame)
    if facts not in (None, "auto"):
        return load_facts(str(facts))
    sample = source.sample()
    found, known = recognise(Script.of(sample).tokens(sample))
    said = f"the language of the text is '{found.language}'" if known else "no language recognised"
    said += f": facts '{found.source}' (--facts takes another)"
    on_progress(Message(said, "note" if known else "warning"))
    return found
