"""The France sentence in a user's own text: documents, exact gaps, unseen fillers, controls."""

import math
import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from lmcli.grammars.base import Item
from lmcli.grammars.france.facts import facts_of_pairs, load_facts
from lmcli.grammars.france.natural import NaturalFrance, NaturalSettings, SourceText

ENGLISH = load_facts("en")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def story(seed, sentences, land=0.02):
    """A text of sentences of 2 to 20 words, of which some name a country or a language."""
    draw = random.Random(seed)
    lines = []
    for _ in range(sentences):
        words = ["".join(draw.choices(SYLLABLES, k=2)) for _ in range(draw.randint(2, 20))]
        if draw.random() < land * len(words):
            words[draw.randrange(len(words))] = draw.choice(["France", "Spain", "Greek", "Hindi"])
        words[0] = words[0][0].upper() + words[0][1:]
        lines.append(" ".join(words) + draw.choice([".", "!", "?"]))
    return "\n".join(lines) + "\n"


def source(train, held_out):
    return SourceText(("my.txt",), "0" * 64, (train,), (held_out,))


@pytest.fixture(scope="module")
def made():
    """A text of 20,000 words that is gone through until there are 40,000."""
    text = source(story(0, 1800), story(1, 250))
    return NaturalFrance(text, ENGLISH, NaturalSettings(words=40_000, longest=100))


@pytest.fixture(scope="module")
def documents(made):
    return list(made.documents())


@pytest.fixture(scope="module")
def items(made):
    return list(made.items())


def fillers(made, documents):
    """What each document has between its cue and its query."""
    facts, found = made.facts, []
    cues = {str(facts.cue(t, p, n)) for t in facts.cues for p in facts.pairs for n in facts.people}
    queries = {
        str(facts.query(t, p, n)) for t in facts.queries for p in facts.pairs for n in facts.people
    }
    for document in documents:
        (cue,) = (c for c in cues if document.startswith(c + made.script.joint))
        query = max((q for q in queries if document.endswith(q)), key=len)
        found.append(document[len(cue + made.script.joint) : len(document) - len(query)])
    return found


# ------------------------------------------------------------------ documents


def test_a_document_is_a_cue_consecutive_sentences_and_a_query(made, documents):
    whole = "".join(made.train)
    own = fillers(made, documents[:300])
    assert all(text in whole for text in own)
    assert len(set(own)) > 200


def test_a_long_text_is_used_once_and_in_order(made):
    once = NaturalFrance(made.source, ENGLISH, NaturalSettings(words=1000))
    assert "".join(fillers(once, once.documents())) == "".join(made.train)
    assert once.about()["filler"]["times_used"] == 1


def test_a_short_text_is_gone_through_again_from_another_place(made, documents):
    size = sum(len(d.split()) for d in documents)
    assert 40_000 <= size < 40_200
    own = fillers(made, documents)
    used = sum(map(len, own)) / len("".join(made.train))
    assert made.about()["filler"]["times_used"] == pytest.approx(used)
    assert used > 1.1
    first = next(i for i, n in enumerate(accumulated(own)) if n >= len("".join(made.train)))
    assert own[first + 1 :] != own[: len(own) - first - 1]


def accumulated(texts):
    total = 0
    for text in texts:
        total += len(text)
        yield total


def test_the_number_of_sentences_is_drawn_with_one_over_k_plus_one(made, documents):
    counts = Counter(len(made.script.sentences([text])) for text in fillers(made, documents))
    total = sum(1 / (k + 1) for k in range(made.most_fillers + 1))
    assert max(counts) <= made.most_fillers
    for k in (0, 1, 2, 4):
        expected = len(documents) / (k + 1) / total
        assert counts[k] == pytest.approx(expected, abs=4 * expected**0.5)


def test_cues_and_answers_of_a_document_belong_together(made, documents):
    answers = {pair.cue: pair.answer for pair in ENGLISH.pairs}
    for document, own in zip(documents, fillers(made, documents), strict=True):
        frame = document.replace(own, "", 1) if own else document
        (cue,) = (c for c in answers if c in frame)
        assert answers[cue] in frame
    pairs = Counter(
        next(c for c in answers if f" in {c}" in d or f"from {c}" in d) for d in documents
    )
    assert len(pairs) == len(answers)


def test_one_seed_makes_one_text(made, documents, items):
    again = NaturalFrance(made.source, ENGLISH, made.settings)
    assert list(again.documents()) == documents
    assert list(again.items()) == items
    other = NaturalFrance(made.source, ENGLISH, replace(made.settings, seed=1))
    assert list(other.documents()) != documents


# ------------------------------------------------------------------ items


def counted_gap(item):
    """Words strictly between cue word and answer, by the number of each in the document."""
    begin, _ = item.filler
    cue_sentence = item.text[:begin].rstrip()
    (cue,) = (p.cue for p in ENGLISH.pairs if p.cue in cue_sentence)
    words = item.document.split()
    places = [i for i, word in enumerate(cue_sentence.split()) if word.strip(".") == cue]
    after = len(item.text.split())
    assert words[after].strip(".") == item.answer
    return after - places[0] - 1


def test_gaps_are_exact(items):
    for item in items:
        assert counted_gap(item) == item.gap
    assert {i.gap for i in items if i.kind == "country"} == {3, 5, 10, 20, 30, 50, 100, 200, 400}


def test_the_gap_in_characters_is_that_between_cue_and_answer(items):
    for item in items:
        cue = next(p.cue for p in ENGLISH.pairs if p.cue in item.text[: item.filler[0]])
        assert item.text[len(item.text) - item.gap_characters - len(cue) :].startswith(cue)


def test_no_filler_of_an_item_occurs_in_the_training_text(made, documents, items):
    text = "\n".join(documents)
    held_out = "".join(made.held_out)
    asked = [i for i in items if i.own]
    assert len(asked) > 2500
    for item in asked:
        assert item.own.strip() in held_out
        assert item.own.strip() not in text


def test_no_item_is_a_document_of_the_text_and_none_comes_twice(documents, items):
    asked = [item.document for item in items]
    assert not set(asked) & set(documents)
    assert len(set(asked)) == len(asked)


def test_items_are_balanced_over_answers_and_have_all_as_candidates(items):
    answers = {pair.answer for pair in ENGLISH.pairs}
    for gap in (10, 400):
        counts = Counter(i.answer for i in items if i.kind == "country" and i.gap == gap)
        assert set(counts) == answers
        assert max(counts.values()) - min(counts.values()) <= 1
        assert counts.total() == 300
    assert all(set(item.candidates) == answers for item in items)


def test_sentences_are_whole_where_their_lengths_add_up(made, items):
    starts = set(made.held_out)
    whole = [i for i in items if i.own and not i.cut]
    assert len(whole) > 2000
    assert all(made.script.sentences([i.own])[0] in starts for i in whole)


def test_the_first_sentence_is_cut_where_no_lengths_add_up():
    sevens = "".join(f"A{n} " + "la " * 5 + "end.\n" for n in range(300))
    text = source(story(0, 300), sevens)
    items = list(NaturalFrance(text, ENGLISH, NaturalSettings(words=1000)).items())
    cut = [i for i in items if i.cut]
    assert cut
    for item in items:
        assert counted_gap(item) == item.gap
        assert item.cut == (len(item.own.split()) % 7 != 0)
        assert not item.own or item.own.endswith("end. ")


def test_a_gap_longer_than_the_held_out_text_is_left_out():
    text = source(story(0, 300), story(1, 8))
    grammar = NaturalFrance(text, ENGLISH, NaturalSettings(words=1000))
    assert max(grammar.about()["gaps"]) < 200


def test_the_control_asks_right_after_the_cue(items):
    control = [i for i in items if i.kind == "control"]
    assert len(control) == 300
    assert not any(i.own for i in control)
    assert len({i.gap for i in control}) == 1


def test_cue_and_answer_of_shuffled_items_are_unrelated(items):
    shuffled = [i for i in items if i.kind == "shuffled"]
    answers = {pair.cue: pair.answer for pair in ENGLISH.pairs}
    given = [next(a for c, a in answers.items() if c in i.text[: i.filler[0]]) for i in shuffled]
    same = sum(a == i.answer for a, i in zip(given, shuffled, strict=True))
    assert len(shuffled) == 300
    expected = 300 / 16
    assert same == pytest.approx(expected, abs=3 * expected**0.5)
    assert len(set(zip(given, (i.answer for i in shuffled), strict=True))) > 150


def test_a_single_frame_has_items_too(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("France,French\nSpain,Spanish\nGreece,Greek\n")
    facts = facts_of_pairs(path, "I grew up in {a}. ... I speak fluent {b}.")
    text = source(story(0, 300), story(1, 60))
    grammar = NaturalFrance(text, facts, NaturalSettings(words=1000))
    items = list(grammar.items())
    assert {i.gap for i in items if i.kind == "control"} == {3}
    assert {i.gap for i in items if i.kind == "country"} >= {10, 20, 50}
    for gap in (10, 50, 200):
        counts = Counter(i.answer for i in items if i.kind == "country" and i.gap == gap)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert grammar.about()["chance"]["country"] == pytest.approx(1 / 3)


# ------------------------------------------------------------------ other scripts


def test_gaps_of_chinese_are_counted_in_characters():
    draw = random.Random(0)
    signs = [chr(c) for c in range(0x4E00, 0x4E60)]

    def chinese(sentences):
        return "".join(
            "".join(draw.choices(signs, k=draw.randint(3, 15))) + "。" for _ in range(sentences)
        )

    grammar = NaturalFrance(
        source(chinese(600), chinese(200)), load_facts("zh"), NaturalSettings(words=1000)
    )
    items = [i for i in grammar.items() if i.kind == "country"]
    assert {i.gap for i in items} >= {3, 5, 10, 50, 100, 400}
    for item in items:
        between = item.text[-item.gap :]
        assert item.gap == item.gap_characters == len(between)
        (pair,) = (p for p in grammar.facts.pairs if item.text[: -item.gap].endswith(p.cue))
        assert pair.answer == item.answer
    about = grammar.about()
    assert (about["unit"], about["tokenizer"]) == ("characters", "char")
    assert {i.unit for i in items} == {"characters"}


def test_sentences_around_a_text_without_marks_have_blanks_before_theirs():
    text = source(story(0, 300).replace(".", "").replace("!", "").replace("?", ""), story(1, 60))
    grammar = NaturalFrance(text, ENGLISH, NaturalSettings(words=1000))
    assert all(" ." in document for document in grammar.documents())
    assert all(item.rest.startswith(" ") for item in grammar.items())


# ------------------------------------------------------------------ what is known


def test_countries_in_the_users_text_are_counted(made):
    named = made.about()["named_in_filler"]
    text = made.source.train[0] + made.source.held_out[0]
    words = Counter(word.strip(".!?") for word in text.split())
    assert named["France"] == words["France"] > 100
    assert named["Greek"] == words["Greek"]
    assert named["Norway"] == 0


def test_the_order_free_reader_agrees_with_a_hand_count(made):
    def item(text, answer):
        return Item(text, answer, tuple(p.answer for p in ENGLISH.pairs), 9, "country")

    hand = {
        item("Tom grew up in France. So it was. He speaks fluent ", "French"): 1,
        item("Tom grew up in France. Spain is hot. He speaks fluent ", "French"): 1 / 2,
        item("Tom grew up in France. Spain is Spanish. He speaks fluent ", "French"): 0,
        item("Tom grew up in France. Spain is French. He speaks fluent ", "French"): 1,
        item("Tom grew up in France. Italy, Greece, Frances. He speaks fluent ", "French"): 1 / 3,
        item("Tom grew up here. He speaks fluent ", "French"): 1 / 16,
    }
    for one, expected in hand.items():
        assert made.order_free([one]) == pytest.approx(expected)
    assert made.order_free(list(hand)) == pytest.approx(sum(hand.values()) / 6)


def test_distractors_make_the_order_free_reader_fail_at_long_gaps(made):
    right = made.about()["order_free"]
    assert right["10"] > right["100"] + 0.05 > right["400"] + 0.2


def test_no_optimum_is_claimed(made):
    assert made.optimum() is None


def test_a_word_that_the_text_has_once_is_rarer_than_min_count_and_one_it_has_twice_is_not():
    """A text of 600 different words, each once or twice, gone through about five times."""
    words = [f"w{n}x" for n in range(400)]
    order = words + words[:200]
    random.Random(0).shuffle(order)
    own = "\n".join(" ".join(order[i : i + 6]) + "." for i in range(0, len(order), 6))
    few = NaturalFrance(source(own, own), ENGLISH, NaturalSettings(words=5_000))
    assert few.about()["min_count"] == len(list(few.documents())) // (4 * 16) < 6
    settings = NaturalSettings(words=12_000, longest=20)
    grammar = NaturalFrance(source(own, own), ENGLISH, settings)
    used = grammar.about()["filler"]["times_used"]
    assert used > 4
    counts = Counter(re.findall(r"w\d+x", "\n".join(grammar.documents()).lower()))
    once, twice = ([counts[w] for w in part] for part in (words[200:], words[:200]))
    assert grammar.about()["min_count"] == math.ceil(1.5 * used)
    assert max(once) < grammar.about()["min_count"] <= min(twice)
