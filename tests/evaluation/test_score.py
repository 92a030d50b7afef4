"""Scores: sums counted by hand, blocks of the text, and the error that follows from them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score, ScoredText, block_width
from lmcli.registry import TOKENIZERS


def scored(text, nats, ids=None, unknown=None):
    """A text of one token a character, with these nats."""
    ids = np.ones(len(text), np.int32) if ids is None else np.array(ids, np.int32)
    ends = np.arange(1, len(text) + 1)
    return ScoredText(text, ids, ends, np.array(nats, np.float32), unknown)


def test_sums_are_those_counted_by_hand():
    texts = [scored("ab é", [1, 2, 3, 4], [5, 0, 5, 5], 0), scored("c d", [0.5, 0.25, 0.25])]
    score = Score.of(texts)
    assert (score.tokens, score.chars, score.bytes, score.words) == (7, 7, 8, 4)
    assert (score.nats, score.unknown_tokens, score.unknown_nats) == (11, 1, 2)
    assert score.nats_per_token == pytest.approx(11 / 7)
    assert score.perplexity == pytest.approx(math.exp(11 / 7))
    assert score.perplexity_without_unknown == pytest.approx(math.exp(9 / 6))
    assert score.bits_per_char == pytest.approx(11 / 7 / math.log(2))
    assert score.bits_per_byte == pytest.approx(11 / 8 / math.log(2))
    assert score.word_perplexity == pytest.approx(math.exp(11 / 4))
    assert Score.of(texts[:1]).nats == 10


def test_characters_are_counted_whatever_a_token_holds():
    ids, ends = np.ones(2, np.int32), np.array([5, 8])
    score = Score.of([ScoredText("two toké", ids, ends, np.array([1, 2], np.float32), None)])
    assert (score.tokens, score.chars, score.bytes, score.words) == (2, 8, 9, 2)
    assert score.perplexity == pytest.approx(math.exp(3 / 2))
    assert score.bits_per_char == pytest.approx(3 / 8 / math.log(2))
    assert score.bits_per_byte == pytest.approx(3 / 9 / math.log(2))


def test_the_keys_of_the_json_are_those_of_the_contract():
    assert set(Score.of([scored("ab", [1, 2])]).to_json()) == {
        "tokens", "chars", "bytes", "words", "nats", "perplexity", "perplexity_without_unknown",
        "unknown_tokens", "bits_per_char", "bits_per_byte", "word_perplexity", "standard_error",
        "spelling_nats",
    }  # fmt: skip


def test_rates_of_nothing_are_not_a_number_and_too_large_ones_infinite():
    empty = Score.of([scored("", [])])
    assert all(math.isnan(r) for r in (empty.perplexity, empty.bits_per_char, empty.standard_error))
    assert Score.of([scored("a", [1e4])]).perplexity == math.inf
    unknown = Score.of([scored("a", [1], [0], 0)])
    assert math.isnan(unknown.perplexity_without_unknown)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    score = Score.of([scored("x" * 1000, np.full(1000, math.log(65)))])
    assert score.perplexity == pytest.approx(65)
    assert score.bits_per_char == pytest.approx(math.log2(65))
    assert score.standard_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("tokenizer_name", TOKENIZERS.names())
@given(pieces=st.lists(st.text("ab .\né"), min_size=1, max_size=4))
@settings(max_examples=40)
def test_lines_add_up_to_the_text(speaker, tokenizer_name, pieces):
    _, tokenizer = speaker(tokenizer_name)
    for text in pieces:
        encoded = tokenizer.encode_with_ends(text)
        nats = np.arange(1, len(encoded.ids) + 1, dtype=np.float32)
        whole = ScoredText(text, encoded.ids, encoded.ends, nats, tokenizer.unknown)
        lines = whole.lines()
        assert "".join(line.text for line in lines) == text
        assert all(line.text.endswith("\n") for line in lines[:-1])
        if text:
            assert np.concatenate([line.nats for line in lines]).tolist() == nats.tolist()
            assert np.concatenate([line.ids for line in lines]).tolist() == encoded.ids.tolist()
        for line in lines:
            assert all(0 <= end <= len(line.text) for end in line.ends)
            assert sum(end - begin for begin, end in line.spans()) == (
                line.ends[-1] if len(line.ends) else 0
            )


# ------------------------------------------------------------------ blocks and errors


def test_blocks_are_of_equal_width_but_the_last_and_hold_all_nats():
    rng = np.random.default_rng(0)
    nats = rng.random(12_345)
    score = Score.of([scored("x" * 5000, nats[:5000]), scored("y" * 7345, nats[5000:])])
    width = block_width(12_345)
    assert width == 246
    assert set(score.block_chars[:-1]) == {246}
    assert width <= score.block_chars[-1] < 2 * width
    assert score.block_chars.sum() == 12_345
    assert score.block_nats[3] == pytest.approx(nats[3 * width : 4 * width].sum(), rel=1e-6)
    assert score.block_nats.sum() == pytest.approx(score.nats)


@pytest.mark.parametrize(
    ("chars", "width"),
    [(0, 20), (999, 20), (5000, 100), (50_000, 1000), (1_000_000, 1000), (4_000_000, 2000)],
)
def test_blocks_have_about_a_thousand_characters(chars, width):
    assert block_width(chars) == width


def test_blocks_are_the_same_for_every_tokenizer(speaker, france_documents):
    pieces = [d + "\n" for d in france_documents[:30]]
    scores = [Score.of(score_documents(*speaker(name), pieces)) for name in TOKENIZERS.names()]
    assert len(scores[0].block_chars) > 10
    for score in scores[1:]:
        assert score.block_chars.tolist() == scores[0].block_chars.tolist()
        assert (score.chars, score.bytes, score.words) == (
            scores[0].chars,
            scores[0].bytes,
            scores[0].words,
        )


def test_a_token_belongs_to_the_block_in_which_it_ends():
    text = "x" * 40  # two blocks of 20
    ids, ends = np.ones(3, np.int32), np.array([20, 21, 40])
    nats = np.array([1, 2, 4], np.float32)
    score = Score.of([ScoredText(text, ids, ends, nats, None)])
    assert score.block_nats.tolist() == [1, 6]


def test_the_standard_error_of_independent_tokens_is_that_of_the_mean():
    rng = np.random.default_rng(1)
    texts = rng.exponential(size=(40, 20_000))
    errors = [Score.of([scored("x" * len(nats), nats)]).standard_error for nats in texts]
    right = 1 / math.sqrt(20_000) / math.log(2)
    assert np.mean(np.square(errors)) == pytest.approx(right**2, rel=0.1)


def test_tokens_that_lean_on_each_other_make_the_error_larger():
    rng = np.random.default_rng(3)
    nats = np.repeat(rng.exponential(size=500), 400)  # 400 tokens alike
    score = Score.of([scored("x" * len(nats), nats)])
    as_if_independent = nats.std() / math.sqrt(len(nats)) / math.log(2)
    assert score.standard_error > 5 * as_if_independent


def test_the_same_text_has_the_same_error_every_time():
    nats = np.random.default_rng(4).random(5000)
    errors = {Score.of([scored("x" * 5000, nats)]).standard_error for _ in range(3)}
    assert len(errors) == 1


def test_scores_add_up_to_the_score_of_both_texts():
    nats = np.random.default_rng(5).random(300)
    one, other = scored("ab c" * 50, nats[:200], [5, 0] * 100, 0), scored("d " * 50, nats[200:])
    total, both = Score.of([one]) + Score.of([other]), Score.of([one, other])
    for name in ("tokens", "chars", "bytes", "words", "unknown_tokens"):
        assert getattr(total, name) == getattr(both, name)
    assert total.nats == pytest.approx(both.nats)
    assert total.unknown_nats == both.unknown_nats
    assert total.block_chars.tolist() == [20] * 15
    assert total.block_nats.sum() == pytest.approx(both.nats)
