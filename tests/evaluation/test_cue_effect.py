"""What another cue changes: verdicts on models whose use of the cue is known."""

import math

import numpy as np
import pytest

from lmcli.evaluation.cue_effect import CueEffect, log_odds

LANGUAGES = ["French", "German", "Spanish"]
TEXTS = 20


def effect(true, swapped, texts=TEXTS, noise=0.0):
    """What a model says with France and with Germany, in texts that differ a little."""
    rng = np.random.default_rng(0)
    shape = (texts, len(true))
    pair = [np.array(p) + noise * rng.normal(size=shape) for p in (true, swapped)]
    return CueEffect(LANGUAGES, *pair)


def said(found):
    return found.sentence("France", "Germany")


@pytest.mark.parametrize("texts", [1, TEXTS])
def test_a_model_that_says_french_whatever_the_country(texts):
    found = effect([0.99, 0.006, 0.004], [0.9926, 0.004, 0.003], texts)
    assert found.verdict == "none"
    assert said(found) == (
        "it says French; with Germany instead it says French as well: the cue makes no difference"
    )


@pytest.mark.parametrize("texts", [1, 3, TEXTS])
def test_a_model_that_follows_the_cue(texts):
    found = effect([0.9, 0.05, 0.05], [0.1, 0.8, 0.1], texts, noise=0.01)
    assert found.verdict == "decides"
    assert said(found) == "it says French; with Germany instead it says German: the cue decides"


@pytest.mark.parametrize("texts", [1, TEXTS])
def test_a_model_that_is_undecided(texts):
    found = effect([1 / 3] * 3, [1 / 3] * 3, texts)
    assert found.verdict == "none"
    assert said(found) == (
        "it is sure of no word, with France or Germany: the cue makes no difference"
    )


def test_a_model_that_half_remembers():
    found = effect([0.65, 0.0, 0.1], [0.15, 0.15, 0.1], noise=0.01)
    assert found.verdict == "difference"
    assert said(found).startswith("with Germany instead French is less likely (0.1")
    assert said(found).endswith("): the cue makes a difference, but does not decide")


@pytest.mark.parametrize(
    ("true", "swapped", "verdict"),
    [
        ([0.34, 0.12, 0.2], [0.08, 0.63, 0.1], "decides"),  # one of many words
        ([0.9, 0.1, 0], [0.55, 0.45, 0], "difference"),  # it says French both times
        ([0.6, 0.35, 0], [0.35, 0.6, 0], "difference"),  # each keeps more than a half
        ([0.12, 0, 0.1], [0, 0.12, 0.1], "difference"),  # neither is what it says
        ([0.6, 0.1, 0], [0.1, 0.3, 0.1], "difference"),  # German hardly
    ],
)
def test_the_cue_decides_where_both_words_depend_on_it(true, swapped, verdict):
    assert effect(true, swapped, texts=1).verdict == verdict


def test_a_word_that_becomes_likelier_is_named_too():
    found = effect([0.1, 0.0, 0.5], [0.05, 0.4, 0.5], texts=1)
    assert said(found) == (
        "with Germany instead German is more likely (0.4000, not 0.0000): "
        "the cue makes a difference, but does not decide"
    )


def test_a_small_difference_is_called_so():
    found = effect([0.22, 0.1, 0.1], [0.15, 0.12, 0.1], noise=0.005)
    assert found.verdict == "small"
    assert said(found).endswith("the cue makes a small difference")


def test_texts_that_disagree_give_no_verdict():
    true = np.tile([0.5, 0.25, 0.25], (TEXTS, 1))
    swing = np.resize([0.45, -0.35], TEXTS)[:, None] * [1, -0.5, -0.5]
    found = CueEffect(LANGUAGES, true, true - swing)
    assert found.differences[0] == pytest.approx(0.05)
    assert found.verdict == "unclear"
    assert said(found) == "the texts differ too much to say what Germany instead of France changes"
    even = CueEffect(LANGUAGES, true, true - np.resize([0.4, -0.4], TEXTS)[:, None] * [1, -1, 0])
    assert even.verdict == "unclear"  # no change on average is not the same as no change


def test_changes_below_the_top_count_as_well():
    words = ["fluent", "French", "German"]
    found = CueEffect(words, np.array([[0.5, 0.45, 0.0]]), np.array([[0.5, 0.0, 0.45]]))
    assert found.verdict == "difference"
    assert "French is less likely" in said(found)


def test_no_cue_is_found_to_matter_where_there_is_only_noise():
    rng, claims, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        true, swapped = 0.3 + 0.1 * rng.normal(size=(2, TEXTS, 30))
        found = CueEffect([f"w{n}" for n in range(30)], true, swapped)
        claims += found.verdict != "unclear"
    assert claims <= 0.08 * runs


def test_the_interval_is_that_of_students_t_over_paired_texts():
    base = np.array([0.1, 0.5, 0.3])
    true = np.array([0.2, 0.7, 0.6])
    found = CueEffect(["a"], true[:, None], base[:, None])
    assert found.differences == pytest.approx([0.2])
    ((low, high),) = found.intervals()
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half))
    swings = np.array([[1.0], [0.9], [0.2]])
    assert CueEffect(["a"], swings, 0 * swings).intervals()[0][1] == 1  # no more is possible


def test_one_text_has_no_interval():
    found = effect([0.9, 0.1, 0], [0.1, 0.9, 0], texts=1)
    assert found.half_widths() is None
    assert [(c["low"], c["high"]) for c in found.candidates()] == [(None, None)] * 3


def test_rows_hold_means_and_the_mean_change_of_the_log_odds():
    true, swapped = np.array([[0.8], [0.6]]), np.array([[0.5], [0.2]])
    (row,) = CueEffect(["a"], true, swapped).candidates()
    assert row["text"] == "a"
    assert (row["probability"], row["probability_swapped"]) == pytest.approx((0.7, 0.35))
    odds = [math.log(4), math.log(1.5) - math.log(0.25)]
    assert row["log_odds_swap"] == pytest.approx(sum(odds) / 2)
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
