"""Units that tell where a pattern matches: found on one half, scored on the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.activations import Activations, read_only
from lmcli.evaluation.unit_search import auc, correlate, within
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.base import Tokenizer

TEXT = 'she said "go on" and he did . "why" ?\nnobody knew , "so" .\n'


def tokenizer_of(name: str) -> Tokenizer:
    cls = TOKENIZERS.load(name)
    tokenizer: Tokenizer = cls.train([TEXT], cls.Settings())
    return tokenizer


def made(values: Any, text: str | None = None, gate: str = "cell") -> Activations:
    """An inspection with these values, a character a token."""
    array = np.asarray(values, np.float32)
    text = "x" * len(array) if text is None else text
    spans = [(i, i + 1) for i in range(len(text))]
    return Activations(text, spans, np.zeros(len(array)), 0, {gate: array})


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("char", ['"', "g", "o", " ", "o", "n", '"']),
        ("word", [' "', "go", " on", '"']),
        ("byte", ['"', "g", "o", " ", "o", "n", '"']),
    ],
)
def test_a_token_is_inside_if_its_last_character_is(
    build: Any, kind: str, inside: list[str]
) -> None:
    tokenizer = tokenizer_of(kind)
    seen = read_only(build("rnn", tokenizer.size), tokenizer, [TEXT])
    flags = within(seen, '"go[^"]*"')
    assert [t for t, flag in zip(seen.tokens, flags, strict=True) if flag and t] == inside


def test_all_bytes_of_a_character_are_inside_with_it(build: Any) -> None:
    tokenizer = tokenizer_of("byte")
    seen = read_only(build("rnn", tokenizer.size), tokenizer, ["a“b"])
    assert within(seen, "“").tolist() == [False, True, True, True, False]


def quoted(tokens: int, seed: int = 0) -> tuple[str, Any]:
    """A text with token_spans in quotes, and which of its characters are in them."""
    rng, text = np.random.default_rng(seed), ""
    while len(text) < tokens:
        text += "a" * rng.integers(3, 9) + '"' + "b" * rng.integers(2, 7) + '"'
    text = text[:tokens]
    inside, flags = False, []
    for c in text:
        flags.append(inside or c == '"')
        inside ^= c == '"'
    return text, np.array(flags)


def test_the_unit_that_tells_is_found_and_scored_on_the_other_half() -> None:
    text, inside = quoted(800)
    values = np.random.default_rng(1).normal(size=(800, 20))
    values[:, 13] = np.where(inside, -1.0, 1.0)
    values[::40, 13] *= -1  # one in forty is wrong
    found = correlate(made(values, text), '"b*("|$)', ["cell"], 3)
    best = found.units[0]
    assert (best.gate, best.unit, best.above, best.threshold) == ("cell", 13, False, 0.0)
    right = (values[400:, 13] < 0) == inside[400:]
    expected = (right[inside[400:]].mean() + right[~inside[400:]].mean()) / 2
    assert best.score == pytest.approx(expected)
    assert best.auc == pytest.approx(auc(-values[400:, 13], inside[400:]))
    assert (found.tokens, found.inside) == (400, inside[400:].sum())
    assert found.shifted < 0.75 < best.score
    assert [t.fit for t in found.units] == sorted((t.fit for t in found.units), reverse=True)


def test_a_unit_that_tells_in_the_first_half_only_scores_at_chance() -> None:
    """It is chosen for its fit and must not be praised for it."""
    text, inside = quoted(2000)
    values = np.random.default_rng(2).normal(size=(2000, 5))
    values[:1000, 2] = inside[:1000]
    best = correlate(made(values, text), '"b*("|$)', ["cell"], 1).units[0]
    assert (best.unit, best.fit) == (2, 1.0)
    assert best.score == pytest.approx(0.5, abs=0.06)


def test_units_of_noise_do_no_better_than_on_shifted_matches() -> None:
    text, _ = quoted(2000)
    values = np.random.default_rng(3).normal(size=(2000, 50))
    found = correlate(made(values, text), '"b*("|$)', ["cell"], 1)
    assert found.units[0].score <= found.shifted < 0.6


@given(st.lists(st.integers(0, 4), min_size=60, max_size=60), st.integers(0, 3))
def test_the_threshold_is_the_best_of_all_tried_one_by_one(values: list[int], seed: int) -> None:
    text, inside = quoted(120, seed)
    column = np.array(values + [0] * 60, float)
    found = correlate(made(column[:, None], text), '"b*("|$)', ["cell"], 1).units[0]
    first, labels = column[:60], inside[:60]

    def fit(threshold: float) -> float:
        above = first > threshold
        score = (above[labels].mean() + (~above)[~labels].mean()) / 2
        return float(max(score, 1 - score))

    assert found.fit == pytest.approx(max(fit(t + 0.5) for t in range(-1, 5)))
    assert fit(found.threshold) == pytest.approx(found.fit)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    ours = [v for v, inside in pairs if inside]
    theirs = [v for v, inside in pairs if not inside]
    if ours and theirs:
        won = sum((a > b) + (a == b) / 2 for a in ours for b in theirs)
        values, inside = zip(*pairs, strict=True)
        found = auc(np.array(values, float), np.array(inside))
        assert found == pytest.approx(won / len(ours) / len(theirs))


@pytest.mark.parametrize("regex", ["z", "x", "^x{15}"])
def test_too_few_tokens_inside_or_outside_is_a_text_error(regex: str) -> None:
    with pytest.raises(TextError, match="half of the text") as caught:
        correlate(made(np.zeros((100, 1))), regex, ["cell"], 1)
    assert "longer text" in caught.value.hint


def test_what_is_no_regular_expression_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        within(made(np.zeros((3, 1))), "[")
