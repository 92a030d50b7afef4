"""What is asked on a user's text: words that came once, their rivals and the placebo."""

import random
from itertools import pairwise

import numpy as np
import pytest

from lmcli.evaluation.probes.recall.items import NEAREST, ORDER, PER_TYPE, ItemMiner, cut_blocks

SYLLABLES = [c + v for c in "bdfgklmnprst" for v in "aeou"]


RARE = ["Anna", "Otto", "Elias"]  # two others are written alike: too few for fair rivals


def random_text(words, seed):
    draw = random.Random(seed)
    made = [draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(words)]
    return " ".join(
        draw.choice(RARE) if n % 100 == 0 and n < 3000 else w for n, w in enumerate(made)
    )


@pytest.fixture(scope="module")
def miner():
    return ItemMiner([random_text(25_000, 0)])


@pytest.fixture(scope="module")
def blocks(miner):
    return cut_blocks([random_text(3000, 1)], [miner.words], 500)


@pytest.fixture(scope="module")
def items(miner, blocks):
    return miner.mine(blocks, 40, lambda word: True, np.random.default_rng(0))


@pytest.fixture(scope="module")
def many(miner, blocks):
    """All that there are."""
    return miner.mine(blocks, 1000, lambda word: True, np.random.default_rng(0))


def test_a_target_stands_exactly_once_before_in_its_block(blocks, items):
    for item in items:
        text, word = blocks[item.block], item.words[0]
        assert text[slice(*item.cue)] == text[slice(*item.target)] == word
        assert text[: item.target[0]].split().count(word) == 1
        assert item.between == len(text[item.cue[1] : item.target[0]].split())


def test_foils_are_absent_so_far_and_those_of_a_balanced_item_are_four(blocks, many):
    assert {item.balanced for item in many} == {True, False}
    for item in many:
        before = blocks[item.block][: item.target[0]].split()
        assert not set(item.words[1:]) & set(before)
        assert len(item.words) == 5
        assert not item.balanced or len(set(item.words)) == 5


def test_balanced_items_have_from_0_to_4_likelier_foils_alike_often(miner, blocks, many):
    likelier = []
    for item in (item for item in many if item.balanced):
        words = miner.words.encode(blocks[item.block][: item.target[0]])[-ORDER + 1 :]
        p = miner.ngram.table.distributions(words[None], 1)[0, 0]
        own, *foils = p[[int(miner.words.encode(word)[0]) for word in item.words]]
        likelier.append(sum(foil > own for foil in foils))
    shares = np.bincount(likelier, minlength=5) / len(likelier)
    assert len(likelier) > 200
    assert np.abs(shares - 0.2).max() < 0.08


def test_a_placebo_is_another_word_at_the_distance_of_the_cue(blocks, items):
    placebos = 0
    for item in items:
        if item.placebo is None:
            continue
        placebos += 1
        text, span = blocks[item.block], item.placebo.span
        between = sorted([item.cue, span])
        assert len(text[between[0][1] : between[1][0]].split()) >= NEAREST - 1
        assert text[slice(*span)] not in item.words
        assert len(text[span[1] : item.target[0]].split()) >= ORDER - 1
        assert item.placebo.word not in (*item.words, *text[: item.target[0]].split())
    assert placebos > len(items) / 2


def test_at_most_so_many_a_bucket_and_three_of_a_word(items):
    by_bucket = {}
    for item in items:
        distance = item.target[0] - item.cue[1]
        by_bucket.setdefault((distance - 1).bit_length(), []).append(item.words[0])
    assert max(map(len, by_bucket.values())) == 40
    for words in by_bucket.values():
        assert max(map(words.count, words)) <= PER_TYPE


def test_words_that_cannot_be_asked_are_left_out(miner, blocks):
    some = miner.mine(blocks, 40, lambda word: not word.startswith("b"), np.random.default_rng(0))
    assert some
    assert not any(word.startswith("b") for item in some for word in item.words)


def test_blocks_are_the_whole_text_in_parts_of_bounded_length(miner):
    text = random_text(3000, 1)
    blocks = cut_blocks([text], [miner.words], 500)
    assert "".join(blocks) == text
    assert max(len(miner.words.encode(block)) for block in blocks) <= 500
    assert all(before.endswith(" ") for before, _ in pairwise(blocks))
