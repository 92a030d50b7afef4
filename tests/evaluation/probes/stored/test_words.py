"""Which words came how long ago, against a naive loop; pairs of texts that differ in one word."""

import numpy as np
import pytest

from lmcli.evaluation.probes.stored.words import Vocabulary, came, find_swaps, label, pieces
from lmcli.registry import TOKENIZERS

NAMES = [a + b for a in "bdfgklmn" for b in ("a", "emu", "i", "o", "u")]


@pytest.fixture(scope="module", params=["word", "char", "bpe"])
def made(request):
    """A tokenizer, a vocabulary and labelled pieces of a random text."""
    rng = np.random.default_rng(0)
    text = " ".join(NAMES[i] for i in rng.integers(len(NAMES), size=3000))
    cls = TOKENIZERS.load(request.param)
    tokenizer = cls.train([text], cls.Settings())
    vocabulary = Vocabulary([text], 500)
    return tokenizer, vocabulary, label(vocabulary, pieces(tokenizer, [text], 10**6, rng))


def test_pieces_are_the_text_and_words_end_where_their_last_token_does(made):
    tokenizer, vocabulary, excerpts = made
    assert len(vocabulary) == len(NAMES) - len(NAMES) // 4
    assert sum(len(e.text) for e in excerpts) > 10_000
    for excerpt in excerpts:
        assert excerpt.ids[0] == tokenizer.start
        for word, last in zip(excerpt.words, excerpt.last, strict=True):
            symbol = vocabulary.symbols[word]
            assert excerpt.text[: excerpt.ends[last]].rstrip().endswith(symbol)


def test_labels_are_those_of_a_naive_loop(made):
    _, _, excerpts = made
    places = np.array([[n, t] for n in range(len(excerpts)) for t in (0, 1, 7, 40, 90)])
    rows, columns = came(excerpts, places, 3, 8)
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    expected = {
        (row, int(word))
        for row, (n, t) in enumerate(places.tolist())
        for word, last in zip(excerpts[n].words, excerpts[n].last, strict=True)
        if 3 <= t - last + 1 <= 8
    }
    assert found == expected
    assert len(found) > 5


def test_both_texts_of_a_pair_differ_in_the_word_alone(made):
    tokenizer, vocabulary, excerpts = made
    swaps = find_swaps(tokenizer, vocabulary, excerpts, 16, 20, np.random.default_rng(0))
    assert {swap.bucket for swap in swaps} == {1, 2, 4, 8, 16}
    for swap in swaps:
        assert swap.bucket // 2 < swap.lag <= swap.bucket
        assert vocabulary.octave[swap.word] == vocabulary.octave[swap.foil]
        after = swap.lag - 1
        assert (
            swap.real[len(swap.real) - after :] == swap.swapped[len(swap.swapped) - after :]
        ).all()
        texts = []
        for rest in (swap.real, swap.swapped):
            ids = np.append(swap.before, rest)
            texts.append(tokenizer.decode(ids[ids != tokenizer.start]).split())
        apart = [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]]
        assert apart == [(vocabulary.symbols[swap.word], vocabulary.symbols[swap.foil])]
