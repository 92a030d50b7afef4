"""Forgot or not learnt yet: verdicts on synthetic answers, the evidence on known cases."""

import math

import pytest

from lmcli.evaluation.convergence import (
    DOCUMENTS,
    Answer,
    TaskLearning,
    is_falling,
    measure_learning,
    nearest_groups,
    sees_cue,
    training_items,
)
from lmcli.evaluation.forced_choice import group_items, item_accuracy
from lmcli.grammars.base import Item
from lmcli.grammars.france.sentences import COUNTRIES
from lmcli.tokenizers.word.tokenizer import WordTokenizer

CHANCE = 1 / 16
LANGUAGES = tuple(COUNTRIES.values())


def answer(right, gap=3, count=100, chance=CHANCE):
    return Answer(gap, right, count, chance)


def learning(near, far, **more):
    return TaskLearning(answer(near), answer(far, gap=400), **more)


# ------------------------------------------------------------------ the verdict


@pytest.mark.parametrize(
    ("near", "far", "verdict"),
    [
        (100, 97, "remembers"),
        (100, 60, "remembers"),
        (100, 33, "forgets"),
        (88, 6, "forgets"),
        (60, 6, "forgets"),
        (40, 6, "not learnt"),
        (9, 6, "not learnt"),
        (0, 0, "not learnt"),
        (9, 100, "not learnt"),
    ],
)
def test_only_what_was_known_after_the_cue_can_be_forgotten(near, far, verdict):
    assert learning(near, far).verdict == verdict


def test_an_answer_must_be_clearly_above_chance_and_half_way_to_certainty():
    assert not answer(60, chance=0.5).is_right  # of two candidates
    assert answer(80, chance=0.5).is_right
    assert not answer(3, count=4, chance=0.5).is_right  # too few to tell from chance
    assert not answer(52).is_right
    assert answer(54).is_right


def test_what_counts_or_cannot_see_the_cue_forgets_by_construction():
    assert learning(9, 6, by_construction=True).verdict == "forgets"
    assert learning(100, 99, by_construction=True).verdict == "remembers"


# ------------------------------------------------------------------ what the user is told


def test_a_run_that_has_not_learnt_yet_is_told_to_train_longer():
    short = learning(9, 6, still_falling=True, stopped="budget", spent="40 s", longer="--minutes 3")
    assert short.remark == (
        "has not learnt the task in 40 s (right after the cue 9 of 100): try --minutes 3"
    )


@pytest.mark.parametrize(
    "ended",
    [{"stopped": "budget", "still_falling": False}, {"stopped": "patience", "still_falling": True}],
)
def test_a_run_whose_loss_no_longer_fell_is_not_told_to_train_longer(ended):
    remark = learning(9, 6, spent="40 s", longer="--minutes 3", **ended).remark
    assert "has not learnt the task in 40 s (right after the cue 9 of 100)" in remark
    assert "its loss no longer fell: more text may help" in remark
    assert "--minutes" not in remark


def test_a_run_that_knows_its_training_documents_by_heart_needs_more_text():
    by_heart = learning(9, 6, train_target_nats=0.2, amnesic_nats=math.log(16), still_falling=True)
    assert by_heart.verdict == "not learnt"
    assert "by heart" in by_heart.remark
    assert "more text may help, more time will not" in by_heart.remark


def test_who_remembers_or_forgets_is_told_nothing_but_who_cannot_see_the_cue():
    assert learning(100, 99).remark is None
    assert learning(100, 6).remark is None
    assert learning(100, 6, by_construction=True, context=4).remark is None
    blind = learning(9, 6, by_construction=True, context=4).remark
    assert blind == "sees the last 5 tokens, and no cue further back (right after the cue 9 of 100)"


# ------------------------------------------------------------------ was the loss still falling


def log(*losses, every=50):
    return [{"step": every * (n + 1), "valid": loss} for n, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        ((4, 3, 2.5, 2.2, 2.0, 1.9), True),
        ((9, 5, 3, 2.01, 2.0, 1.99), True),
        ((9, 5, 2.0, 2.0, 2.0, 1.99), False),
        ((9, 5, 3.0, 1.5, 1.9, 2.5), False),  # it got worse again
        ((16, 5, 7, 4, 3.6, 3.5), True),  # lengths that short documents have not taught
        ((9.0,), True),  # too short to see it level off
    ],
)
def test_a_loss_still_falls_that_is_clearly_lower_than_at_half_time(losses, falling):
    lines = [line for pair in zip(log(*losses), log(*[None] * 6), strict=False) for line in pair]
    assert is_falling(lines) is falling


def test_a_training_that_was_not_validated_in_its_first_half_was_too_short_to_level_off():
    assert is_falling([{"step": 50, "valid": 8.7}, {"step": 60, "valid": 8.69}])


# ------------------------------------------------------------------ answers in training documents


def test_the_answer_of_a_training_document_is_the_last_candidate_in_it():
    texts = ["in French , not Greek now .", "fluent Greek .", "no more", "Frenchmen speak French ."]
    found = training_items(texts, ("French", "Greek"))
    assert [(item.text, item.answer) for item in found] == [
        ("in French , not ", "Greek"),
        ("fluent ", "Greek"),
        ("Frenchmen speak ", "French"),
    ]


def test_a_candidate_stands_within_others_only_where_there_are_no_blanks():
    found = training_items(["我在法国长大。我说流利的法语。"] * 3, ("法语", "德语"))
    assert [item.answer for item in found] == ["法语"] * 3
    assert found[0].text.endswith("流利的")
    assert training_items(["0110+0101=1011"] * 3, ("0", "1")) == []
    assert training_items(["nothing of them"] * 3, ("French", "Greek")) == []
    assert training_items([], ("French", "Greek")) == []


def test_a_sample_of_the_training_documents_is_asked():
    texts = [f"{number} speaks French ." for number in range(10 * DOCUMENTS)]
    found = training_items(texts, ("French", "Greek"))
    assert len(found) == DOCUMENTS
    assert found[-1].text.startswith("19")  # from all over the text


# ------------------------------------------------------------------ models


@pytest.fixture(scope="module")
def tokenizer(france_documents):
    text = ["\n".join(france_documents) + "\n"]
    return WordTokenizer.train(text, WordTokenizer.Settings())


def item(country, gap, kind="country"):
    words = " ".join(["."] * (gap - 3) + [". her fluent "])
    return Item(f"Zoe was born in {country} {words}", COUNTRIES[country], LANGUAGES, gap, kind)


GROUPS = group_items(
    [item(c, gap) for gap in (3, 20) for c in COUNTRIES]
    + [item(c, 3, "control") for c in COUNTRIES]
)
DOCUMENT_OF = "{} was the first home of Ida . now she speaks fluent {} .\n"


def measured(model, tokenizer, groups=GROUPS):
    answers = {key: item_accuracy(model, tokenizer, items) for key, items in groups.items()}
    documents = [DOCUMENT_OF.format(*pair) for pair in COUNTRIES.items()]
    return measure_learning(None, model, tokenizer, groups, answers, documents)


def test_a_perfect_memory_remembers_and_knows_its_training_documents(tokenizer, country_reader):
    found = measured(country_reader(tokenizer), tokenizer)
    assert found.verdict == "remembers"
    assert found.nearest == Answer(3, 32, 32, pytest.approx(1 / 16))  # the control included
    assert found.farthest.gap == 20
    assert found.train_target_nats == pytest.approx(math.log(1 + 15 * math.exp(-10)), rel=1e-3)
    assert set(found.to_json()["nearest"]) == {"gap", "value", "low", "high", "chance"}


def test_a_model_that_always_says_the_same_has_not_learnt(tokenizer, country_reader):
    french = int(tokenizer.encode("French")[0])
    found = measured(country_reader(tokenizer, favourite=french), tokenizer)
    assert found.verdict == "not learnt"
    assert found.nearest.right == 2
    assert found.train_target_nats == pytest.approx(10 * 15 / 16, rel=0.01)
    assert found.amnesic_nats == pytest.approx(math.log(16))


def test_items_for_early_stopping_are_no_evidence(tokenizer):
    assert {kind for kind, _ in GROUPS} == {"country", "control"}


def test_a_control_that_asks_something_else_says_nothing_of_the_task():
    assert nearest_groups(GROUPS) == [("country", 3), ("control", 3)]
    sky = Item("the clouds are in the ", "sky", ("sky", "sea"), 3, "control")
    other = GROUPS | {("control", 3): [sky]}
    assert nearest_groups(other) == [("country", 3)]


@pytest.mark.parametrize(("gap", "seen"), [(3, True), (7, True), (8, False), (20, False)])
def test_a_window_of_eight_tokens_sees_a_cue_seven_words_back(tokenizer, build, gap, seen):
    model = build("window", tokenizer.size, window=8)
    assert sees_cue(model, tokenizer, [item(c, gap) for c in COUNTRIES]) is seen


@pytest.mark.parametrize(
    ("arch", "gap", "verdict"),
    [
        ("window", 3, "not learnt"),
        ("window", 20, "forgets"),
        ("ngram", 3, "forgets"),
        ("rnn", 20, "not learnt"),
    ],
)
def test_only_who_could_have_seen_the_cue_can_be_without_the_task(
    tokenizer, build, arch, gap, verdict
):
    groups = {key: items for key, items in GROUPS.items() if key == ("country", gap)}
    assert measured(build(arch, tokenizer.size), tokenizer, groups).verdict == verdict
