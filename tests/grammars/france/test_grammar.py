"""Laws of the France grammar: its entropy, its items, and what may not give the answer away."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter
from functools import cache
from itertools import combinations, product
from pathlib import Path

import pytest

from lmcli import registry
from lmcli.grammars.base import Item, read_about, read_items
from lmcli.grammars.france.grammar import WORDS, France, FranceSettings
from lmcli.grammars.france.items import ALL_GAPS, GAPS, Items
from lmcli.grammars.france.oracle import Filter
from lmcli.grammars.france.rules import Rules, rules
from lmcli.grammars.france.sentences import (
    CONTROL,
    COUNTRIES,
    CUES,
    DISTRACTORS,
    FILLERS,
    LANGUAGES,
    MEN,
    NAMED_QUERIES,
    NAMES,
    PLACES,
    PRONOUNS,
    QUERIES,
    SLOTS,
    WOMEN,
    Template,
)

LEVELS = (0, 1, 2, 3)
DATA = Path(__file__).parents[3] / "data"
FILLS = SLOTS | PRONOUNS
FILLS |= dict.fromkeys(("{name}", "{asked}"), NAMES) | {"{country}": tuple(COUNTRIES)}
FILLS |= {"{language}": LANGUAGES, "{noun}": tuple(PLACES), "{place}": tuple(PLACES.values())}


def small(level: int) -> France:
    return France(FranceSettings(size="small", level=level))


@cache
def documents(level: int) -> list[str]:
    return list(small(level).documents())


@cache
def items(level: int) -> list[Item]:
    return list(small(level).items())


def sentences(document: str) -> list[list[str]]:
    return [s.split() for s in re.findall(r"[^.]+\.", document)]


def fits(template: Template, words: list[str]) -> bool:
    """Whether the words are one of the sentences of a template, read word by word."""
    return len(template) == len(words) and all(
        word in FILLS.get(slot, (slot,)) for slot, word in zip(template.words, words, strict=True)
    )


def test_france_is_found_by_its_file() -> None:
    assert registry.GRAMMARS.load("france") is France


def test_make_without_a_size_makes_the_default_one() -> None:
    assert (FranceSettings().size, FranceSettings().level, FranceSettings().seed) == (
        "default",
        1,
        0,
    )


# The text


def test_the_shipped_text_is_what_the_code_makes() -> None:
    text = "".join(
        d + "\n" for d in France(FranceSettings(size="small", level=1, seed=0)).documents()
    )
    assert (DATA / "france.txt").read_bytes() == text.encode()


def test_the_shipped_about_file_holds_the_checksum_of_the_shipped_text() -> None:
    checksum = hashlib.sha256((DATA / "france.txt").read_bytes()).hexdigest()
    assert read_about(DATA / "france.about.json")["sha256"] == checksum
    assert checksum in (DATA / "README.md").read_text(encoding="utf-8")


def test_the_shipped_items_are_what_the_code_makes() -> None:
    assert read_items(DATA / "france.items.jsonl") == items(1)


def test_shipped_files_are_small() -> None:
    assert 900_000 < (DATA / "france.txt").stat().st_size <= 1_000_000
    assert (DATA / "france.items.jsonl").stat().st_size < 1_500_000


def test_another_seed_is_another_text() -> None:
    assert next(France(FranceSettings(size="small", seed=1)).documents()) != documents(1)[0]


@pytest.mark.parametrize("size", ["default", "long"])
def test_large_texts_begin_at_once_and_have_their_longest_documents(size: str) -> None:
    france = France(FranceSettings(size=size))
    stream = france.documents()
    longest = max(len(sentences(next(stream))) - 2 for _ in range(1500))
    assert longest == len(france.rules.length_weights) - 1 == {"default": 12, "long": 128}[size]


@pytest.mark.parametrize("level", LEVELS)
def test_the_text_ends_with_the_document_that_fills_it(level: int) -> None:
    words = [len(d.split()) for d in documents(level)]
    assert sum(words[:-1]) < WORDS["small"] <= sum(words)


def test_the_number_of_fillers_falls_as_one_over_k_plus_one() -> None:
    counts = Counter(len(sentences(d)) - 2 for d in documents(1))
    total, harmonic = sum(counts.values()), sum(1 / (k + 1) for k in range(13))
    assert set(counts) == set(range(13))
    for k in range(13):
        p = 1 / (k + 1) / harmonic
        assert counts[k] == pytest.approx(total * p, abs=4.5 * math.sqrt(total * p * (1 - p)))


def test_the_vocabulary_is_moderate_and_words_are_short() -> None:
    words = " ".join(documents(1)).split()
    assert 200 <= len(set(words)) <= 310
    assert sum(len(word) + 1 for word in words) / len(words) < 4.3


# What may not give the answer away


def test_fluent_is_in_every_query_and_nowhere_else() -> None:
    assert all(t.words.count("fluent") == 1 for t in QUERIES + NAMED_QUERIES)
    others = [word for t in CUES + FILLERS + DISTRACTORS for word in t.words]
    slots = [word for words in SLOTS.values() for word in words]
    assert "fluent" not in others + slots


def test_countries_have_sixteen_different_languages() -> None:
    assert len(COUNTRIES) == len(set(LANGUAGES)) == 16


def test_half_of_the_names_are_womens() -> None:
    assert len(set(NAMES)) == 16
    assert len(WOMEN) == len(MEN) == 8


def test_pronouns_names_and_places_come_only_where_they_are_asked_for() -> None:
    special = {*NAMES, *PLACES, *PLACES.values(), "she", "he", "her", "his"}
    plain = [
        word for t in CUES + FILLERS + DISTRACTORS + QUERIES + NAMED_QUERIES for word in t.words
    ]
    plain += [word for words in SLOTS.values() for word in words]
    assert special.isdisjoint(plain)


@pytest.mark.parametrize("templates", [QUERIES, NAMED_QUERIES])
def test_a_query_asks_who_then_says_fluent_then_the_language(
    templates: tuple[Template, ...],
) -> None:
    for query in templates:
        who = [w for w in query.words if w in ("{she}", "{her}", "{asked}")]
        order = [w for w in query.words if w in (*who, "fluent", "{language}")]
        assert len(who) == 1
        assert order == [*who, "fluent", "{language}"]


def test_distractors_do_not_tell_the_answer() -> None:
    mentioned = dict(COUNTRIES) | {language: language for language in LANGUAGES}
    hits = tries = 0
    for document in documents(1):
        _, *fillers, query = sentences(document)
        last = [mentioned[w] for filler in fillers for w in filler if w in mentioned][-1:]
        tries += len(last)
        hits += sum(language in query for language in last)
    assert tries > 1000
    assert hits / tries == pytest.approx(1 / 16, abs=4 * math.sqrt(15 / 256 / tries))


def test_level_zero_names_countries_in_the_cue_only() -> None:
    for document in documents(0):
        middle = sentences(document)[1:-1]
        assert not any(w in COUNTRIES or w in LANGUAGES for s in middle for w in s)


def test_the_noun_of_the_control_determines_its_place() -> None:
    seen = {(s[1], s[5]) for d in documents(1) for s in sentences(d) if fits(CONTROL, s)}
    assert seen == set(PLACES.items())


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_query_answers_to_the_cue(level: int) -> None:
    for document in documents(level):
        cue, query = sentences(document)[0], sentences(document)[-1]
        country = next(w for w in cue if w in COUNTRIES)
        woman = any(w in WOMEN for w in cue)
        assert COUNTRIES[country] in query
        assert any(w in (("she", "her") if woman else ("he", "his")) for w in query)


def test_level_two_asks_for_one_of_two_different_people() -> None:
    asked_first = 0
    for document in documents(2):
        first, second, *_, query = sentences(document)
        people = {
            next(w for w in cue if w in NAMES): next(w for w in cue if w in COUNTRIES)
            for cue in (first, second)
        }
        asked = next(w for w in query if w in NAMES)
        assert len(set(people)) == len(set(people.values())) == 2
        assert COUNTRIES[people[asked]] in query
        asked_first += asked in first
    total = len(documents(2))
    assert asked_first == pytest.approx(total / 2, abs=2 * math.sqrt(total))


def test_level_three_holds_a_quarter_of_the_pairs_out_of_the_text() -> None:
    def pair(text: str) -> tuple[str, str]:
        cue = sentences(text)[0]
        return next(w for w in cue if w in NAMES), next(w for w in cue if w in COUNTRIES)

    shown = {pair(d) for d in documents(3)}
    asked = {pair(i.document) for i in items(3)}
    assert (len(shown), len(asked)) == (192, 64)
    assert shown.isdisjoint(asked)


# The entropy


def test_no_sentence_can_be_made_in_two_ways() -> None:
    """Two templates share a sentence only if they have one length and agree at every word."""
    everything = CUES + FILLERS + DISTRACTORS + QUERIES + NAMED_QUERIES
    for one, other in combinations(everything, 2):
        words = zip(one.words, other.words, strict=False)
        shared = all(set(FILLS.get(a, (a,))) & set(FILLS.get(b, (b,))) for a, b in words)
        assert not (len(one) == len(other) and shared), (one, other)


def test_sentences_end_where_their_point_is_and_slots_hold_no_word_twice() -> None:
    for template in CUES + FILLERS + DISTRACTORS + QUERIES + NAMED_QUERIES:
        assert template.words.index(".") == len(template) - 1
    for words in FILLS.values():
        assert len(set(words)) == len(words)
        assert all(word and " " not in word and word != "." for word in words)


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_agrees_with_the_closed_form(level: int) -> None:
    france, count = small(level), 2000
    nats = [-sum(france.token_log_probabilities(d)) for d in documents(level)[:count]]
    mean = sum(nats) / count
    error = math.sqrt(sum((n - mean) ** 2 for n in nats) / (count - 1) / count)
    assert mean == pytest.approx(france.optimum().nats_per_document, abs=4 * error)


@pytest.mark.parametrize("level", LEVELS)
def test_the_mean_size_of_a_document_agrees_with_the_closed_form(level: int) -> None:
    best = small(level).optimum()
    tokens = [len(d.split()) + 1 for d in documents(level)]
    spread = 4 * 40 / math.sqrt(len(tokens))
    assert sum(tokens) / len(tokens) == pytest.approx(best.tokens_per_document, abs=spread)
    characters = sum(len(d) + 1 for d in documents(level)) / sum(tokens)
    expected = best.characters_per_document / best.tokens_per_document
    assert characters == pytest.approx(expected, rel=0.004)


def tiny(level: int) -> Rules:
    """Few enough words that every document can be written down."""
    full = rules(level, "small")
    pairs = full.pairs[:3] + full.pairs[40:42]
    return dataclasses.replace(
        full,
        pairs=pairs,
        cues=CUES[4:6],
        fillers=(CONTROL, Template("it was {hot} .")),
        queries=full.queries[:2],
        length_weights=(1.0, 0.5),
    )


def every_document(oracle: Filter, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], float]:
    """All documents with their probabilities, by following every next word of the oracle."""
    found: dict[tuple[str, ...], float] = {}
    for word in oracle.next_words():
        branch = Filter(oracle.rules)
        branch.hypotheses = list(oracle.hypotheses)
        nats = branch.read(word)
        rest = every_document(branch, (*words, word)) if word != "\n" else {(*words, word): 0.0}
        found |= {document: nats + p for document, p in rest.items()}
    return found


@pytest.mark.parametrize("level", [0, 2, 3])
def test_over_all_documents_of_a_tiny_grammar_oracle_and_closed_form_agree_exactly(
    level: int,
) -> None:
    documents = every_document(Filter(tiny(level)))
    france = small(level)
    france.rules = tiny(level)
    expected = france.optimum()
    chances = {document: math.exp(p) for document, p in documents.items()}
    assert sum(chances.values()) == pytest.approx(1)
    nats = -sum(chances[d] * documents[d] for d in documents)
    assert nats == pytest.approx(expected.nats_per_document)
    tokens = sum(chance * len(d) for d, chance in chances.items())
    assert tokens == pytest.approx(expected.tokens_per_document)


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracles_next_words_sum_to_one_and_hold_the_word_that_comes(level: int) -> None:
    oracle_rules = small(level).rules
    for document in documents(level)[:40]:
        oracle = Filter(oracle_rules)
        for word in [*document.split(), "\n"]:
            expected = oracle.next_words()
            assert sum(expected.values()) == pytest.approx(1)
            assert oracle.read(word) == pytest.approx(math.log(expected[word]))
        assert oracle.next_words() == {}


def next_words(france: France, beginning: str) -> dict[str, float]:
    oracle = Filter(france.rules)
    for word in beginning.split():
        oracle.read(word)
    return oracle.next_words()


def test_the_oracle_knows_the_answer_and_not_the_distractor() -> None:
    france = small(1)
    beginning = "Anna grew up in France . the radio played a Greek song at six . her fluent"
    assert next_words(france, beginning) == {"French": pytest.approx(1)}


def test_after_the_most_fillers_the_query_is_certain() -> None:
    sentence = "the clouds are in the sky . "
    words = next_words(small(1), "Anna grew up in France . " + 12 * sentence)
    assert words == pytest.approx(
        {
            "her": 1 / 7,
            "now": 1 / 7,
            "so": 1 / 7,
            "i": 1 / 7,
            "you": 1 / 7,
            "today": 1 / 7,
            "of": 1 / 7,
        }
    )


@pytest.mark.parametrize(
    "document",
    [
        "",
        "Anna grew up in France .",
        "Anna grew up in France . her fluent German helps .",
        "Anna grew up in France . his fluent French helps .",
        "Anna grew up in France . the clouds are in the sea . her fluent French helps .",
        "Anna grew up in France . her fluent French helps . her fluent French helps .",
        "Anna grew up in France . "
        + 13 * "the clouds are in the sky . "
        + "her fluent French helps .",
    ],
)
def test_the_oracle_refuses_a_document_that_cannot_be_made(document: str) -> None:
    with pytest.raises(ValueError, match="cannot go on"):
        small(1).token_log_probabilities(document)


@pytest.mark.parametrize(("level", "nats"), [(0, 32), (1, 32), (2, 128), (3, 32)])
def test_forgetting_the_cue_costs_the_language_and_the_person(level: int, nats: int) -> None:
    """ln 16 + ln 2; with two people their name costs ln 16 where it cost ln 2."""
    france = small(level)
    best, amnesic = france.optimum(), france.amnesic()
    lost = amnesic.nats_per_document - best.nats_per_document
    assert lost == pytest.approx(math.log(nats))
    tokens = best.tokens_per_document
    ratio = math.log(amnesic.perplexity / best.perplexity)
    assert ratio == pytest.approx(math.log(nats) / tokens)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_without_the_cue_pronoun_and_language_are_uniform(level: int) -> None:
    """The amnesic bound takes this for granted: nothing but the cue tells either."""
    pairs = small(level).rules.pairs
    assert set(Counter((p.name in WOMEN, p.language) for p in pairs).values()) == {len(pairs) // 32}


# The items


@pytest.mark.parametrize("level", LEVELS)
def test_every_gap_is_exact(level: int) -> None:
    for item in items(level):
        words = item.text.split()
        if item.kind == "control":
            cue = max(i for i, w in enumerate(words) if w in PLACES)
        elif item.kind == "country":
            language = dict(zip(LANGUAGES, COUNTRIES, strict=True))[item.answer]
            cues = [i for i, w in enumerate(words) if w == language]
            cue = cues[0]
        else:
            cue = next(i for i, w in enumerate(words) if w in NAMES)
        assert len(words) - cue - 1 == item.gap


@pytest.mark.parametrize("level", LEVELS)
def test_there_are_three_hundred_country_items_a_gap(level: int) -> None:
    counts = Counter(i.gap for i in items(level) if i.kind == "country")
    gaps = [gap for gap in GAPS["small"] if gap > 3 or level != 2]  # two cues leave no gap of 3
    assert counts == dict.fromkeys(gaps, 300)


def test_pronoun_items_are_fewer_and_end_at_gap_one_hundred() -> None:
    counts = Counter(i.gap for i in items(1) if i.kind == "pronoun")
    assert counts == dict.fromkeys((3, 5, 10, 20, 30, 50, 100), 100)
    assert not any(i.kind == "pronoun" for i in items(2))


def test_larger_sizes_ask_at_larger_gaps() -> None:
    assert (GAPS["small"][-1], GAPS["default"][-1], GAPS["long"]) == (200, 400, ALL_GAPS)


@pytest.mark.parametrize("level", LEVELS)
def test_answers_are_balanced_and_chance_is_one_in_the_candidates(level: int) -> None:
    chance = small(level).about()["chance"]
    for (kind, gap), group in grouped(items(level)).items():
        assert {1 / len(i.candidates) for i in group} == {chance[kind]}, (kind, gap)
        counts = Counter(i.candidates.index(i.answer) for i in group)
        assert len(counts) == len(group[0].candidates)
        assert max(counts.values()) - min(counts.values()) <= 1


def grouped(found: list[Item]) -> dict[tuple[str, int], list[Item]]:
    groups: dict[tuple[str, int], list[Item]] = {}
    for item in found:
        groups.setdefault((item.kind, item.gap), []).append(item)
    return groups


@pytest.mark.parametrize("level", LEVELS)
def test_no_item_is_in_the_text_and_none_comes_twice(level: int) -> None:
    asked = [item.document for item in items(level)]
    assert len(set(asked)) == len(asked)
    assert set(asked).isdisjoint(documents(level))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_item_is_a_document_of_the_grammar(level: int) -> None:
    """Up to the longest documents of the text; longer items go beyond it on purpose."""
    france = small(level)
    short = [i for i in items(level) if len(sentences(i.document)) <= 12]
    for item in short[::25]:
        assert item.text.endswith(" ")
        assert sum(france.token_log_probabilities(item.document)) < 0


def test_long_items_are_made_of_the_sentences_of_the_text() -> None:
    for item in [i for i in items(1) if i.gap == 200][:20]:
        cue, *fillers, query = sentences(item.document)
        for sentence in fillers:
            assert sum(fits(t, sentence) for t in FILLERS + DISTRACTORS) == 1
        assert sum(fits(t, cue) for t in CUES) == sum(fits(t, query) for t in QUERIES) == 1


def test_items_meet_the_longest_gaps_too() -> None:
    france = France(FranceSettings(size="long"))
    maker = Items(france.rules, france._draws("test"), set())
    frames = maker._frames("{country}", ("{language}",), 2000)
    assert len(frames) == len(CUES) * len(QUERIES)
    (item,) = maker._item(2000, frames, list(france.rules.pairs[:1]), "country")
    words = item.text.split()
    assert len(words) - words.index("France") - 1 == 2000


def test_templates_are_used_as_often_as_they_weigh() -> None:
    every = [s for d in documents(1)[:2000] for s in sentences(d)[1:-1]]
    total = sum(t.weight for t in FILLERS + DISTRACTORS)
    for template in FILLERS + DISTRACTORS:
        p = template.weight / total
        count = sum(fits(template, s) for s in every)
        assert count == pytest.approx(len(every) * p, abs=4 * math.sqrt(len(every) * p))


def test_all_pairs_of_name_and_country_come_about_equally_often() -> None:
    cues = (sentences(d)[0] for d in documents(1))
    found = (tuple(w for w in cue if w in NAMES or w in COUNTRIES) for cue in cues)
    counts = Counter(tuple(sorted(pair)) for pair in found)
    expected = len(documents(1)) / 256
    assert set(counts) == {tuple(sorted(pair)) for pair in product(NAMES, COUNTRIES)}
    squares = sum((n - expected) ** 2 / expected for n in counts.values())
    assert squares == pytest.approx(255, abs=5 * math.sqrt(2 * 255))


@pytest.mark.parametrize("gap", [5, 10, 20, 50, 200])
def test_at_every_gap_all_queries_that_fit_are_asked_alike_often(gap: int) -> None:
    asked = [i for i in items(1) if i.kind == "country" and i.gap == gap]
    last = [sentences(i.document)[-1] for i in asked]
    queries = Counter(next(q.text for q in QUERIES if fits(q, words)) for words in last)
    expected = len(asked) / len(queries)
    assert sum((n - expected) ** 2 / expected for n in queries.values()) < 20  # chi-square, 6 df


def test_the_order_free_reader_is_right_where_nothing_distracts_and_at_chance_far_away() -> None:
    free = France(FranceSettings(size="small", level=0)).order_free()
    assert set(free.values()) == {1.0}
    shipped = read_about(DATA / "france.about.json")["order_free"]
    assert shipped == France(FranceSettings(size="small", level=1)).order_free()
    assert shipped["3"] == 1.0 > shipped["50"] > shipped["200"] > 1 / 16
