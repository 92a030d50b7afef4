"""One score for a word: ln p of its tokens and of its end, by a naive sum over whole texts."""

import numpy as np
import pytest
import torch

from lmcli.evaluation import forced_choice
from lmcli.evaluation.forced_choice import encode_words, score_words
from lmcli.registry import TOKENIZERS

LEFTS = ["Anna grew up in France . now she speaks fluent ", "she speaks of the "]
WORDS = [["French", "Spanish", "Qx"], ["dog", "Qx", "German"]]


@pytest.fixture(scope="module")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it; every token of it has some probability."""

    def make(name, arch):
        cls = TOKENIZERS.load(name)
        settings = cls.Settings(vocabulary=400) if name == "bpe" else cls.Settings()
        tokenizer = cls.train([*france_documents, "Qx dog .\n"], settings)
        return build(arch, tokenizer.size), tokenizer

    return make


@torch.no_grad()
def naive_sum(model, tokenizer, text):
    """ln p of all tokens of a text, one at a time."""
    state, last, total = model.initial_state(1), tokenizer.start, 0.0
    for token in tokenizer.encode(text).tolist():
        logits, state = model(torch.tensor([[last]]), state)
        total += logits[0, 0].double().log_softmax(0)[token].item()
        last = token
    return total


@torch.no_grad()
def naive_scores(model, tokenizer, left, words):
    """ln p(left + word, and then a token that ends the word) - the same of the first word.

    Encoded as a whole text each, read one token at a time.
    """
    scores = []
    for word in words:
        state, last, total = model.initial_state(1), tokenizer.start, 0.0
        for token in [*tokenizer.encode(left + word).tolist(), None]:
            logits, state = model(torch.tensor([[last]]), state)
            logs, last = logits[0, 0].double().log_softmax(0), token
            if token is not None:
                total += logs[token].item()
        if tokenizer.spells:
            texts = [tokenizer.decode([i])[:1] for i in range(tokenizer.size)]
            ends = [i for i, t in enumerate(texts) if not (t.isalnum() or t in "'-\ufffd")]
            total += logs[ends].logsumexp(0).item()
        scores.append(total)
    return np.array(scores) - scores[0]


every_speaker = pytest.mark.parametrize(
    ("name", "arch"),
    [
        (name, arch)
        for name in ("byte", "char", "word", "bpe")
        for arch in ("gru", "lstm", "window", "ngram", "attention", "mingru")
    ],
)


@every_speaker
def test_a_score_is_that_of_the_word_and_of_all_tokens_that_end_it(speaker, name, arch):
    model, tokenizer = speaker(name, arch)
    found = score_words(model, tokenizer, LEFTS, WORDS)
    for left, words, scores in zip(LEFTS, WORDS, found, strict=True):
        right = naive_scores(model, tokenizer, left, words)
        assert scores - scores[0] == pytest.approx(right, abs=1e-4)


def test_a_blank_that_only_some_words_are_joined_to_counts_to_the_words(speaker):
    _, tokenizer = speaker("bpe", "gru")
    edge, ids = encode_words(tokenizer, LEFTS[0], ["German", "Qx"])
    assert edge == len(LEFTS[0]) - 1
    assert [tokenizer.decode(i) for i in ids] == [" German", " Qx"]
    assert tokenizer.decode(ids[1][:1]) == " "
    same, _ = encode_words(tokenizer, LEFTS[0], ["Qx"])
    assert same == len(LEFTS[0])  # alone it shares the blank with nobody


@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe"])
def test_a_long_text_to_the_left_changes_no_tokens_of_a_word(speaker, name):
    _, tokenizer = speaker(name, "gru")
    for left in (LEFTS[0], 20 * LEFTS[0], "x" * 300 + " ", "a\n" * 90):
        edge, ids = encode_words(tokenizer, left, WORDS[0])
        for word, mine in zip(WORDS[0], ids, strict=True):
            encoded = tokenizer.encode_with_ends(left + word)
            cut = int(np.searchsorted(encoded.ends, edge, "right"))
            assert encoded.ids[cut:].tolist() == mine


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_a_text_to_the_right_belongs_to_every_word(speaker, name, monkeypatch):
    model, tokenizer = speaker(name, "lstm")
    left, words, right = LEFTS[1], ["dog", "German", "French"], " who speaks of him ." * 3
    found = score_words(model, tokenizer, [left], [words], right)[0]
    whole = [naive_sum(model, tokenizer, left + word + right) for word in words]
    assert found - found[0] == pytest.approx(np.array(whole) - whole[0], abs=1e-4)
    monkeypatch.setattr(forced_choice, "LOGITS", 40 * model.vocabulary)  # a few steps at a time
    again = score_words(model, tokenizer, [left], [words], right)[0]
    assert again == pytest.approx(found, abs=1e-5)


def test_how_many_are_scored_at_once_changes_nothing(speaker, monkeypatch):
    model, tokenizer = speaker("char", "gru")
    found = score_words(model, tokenizer, LEFTS, WORDS)
    monkeypatch.setattr(forced_choice, "LOGITS", 1)
    assert score_words(model, tokenizer, LEFTS, WORDS) == pytest.approx(found, abs=1e-5)
