"""The likeliest words against an exhaustive search, and what no word is."""

import itertools
import math

import numpy as np
import pytest
import torch

from lmcli.evaluation import likeliest_words
from lmcli.evaluation.forced_choice import score_words
from lmcli.evaluation.likeliest_words import top_words
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer

TEXTS = ["Anna grew up in ", "now she speaks fluent ", "the old "]


@torch.no_grad()
def text_score(model, tokenizer, text):
    """ln p of all tokens of a text."""
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode(text).tolist()]])
    logs = model(ids[:, :-1], model.initial_state(1))[0].double().log_softmax(-1)
    return logs.gather(2, ids[:, 1:].unsqueeze(2)).sum().item()


@pytest.fixture
def counted(build):
    """``counted(tokenizer, text)``: an n-gram of the counts of a text."""

    def make(tokenizer, text, order=4):
        model = build("ngram", tokenizer.size, order=order)
        model.fit_counts(np.append(tokenizer.start, tokenizer.encode(text)))
        return model

    return make


def test_the_likeliest_words_are_the_likeliest_tokens(speaker):
    model, tokenizer = speaker("word")
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode("Anna grew up in")]])
    with torch.no_grad():
        p = model(ids, model.initial_state(1))[0][0, -1].double().softmax(0)
    likeliest = [(tokenizer.decode([i]), p[i].item()) for i in p.argsort(descending=True).tolist()]
    best = [(word, q) for word, q in likeliest if word.strip().isalpha()][:5]
    found = top_words(model, tokenizer, ["Anna grew up in "], 5)
    assert [w for w, _ in found] == [w.strip() for w, _ in best]
    assert [q for _, q in found] == pytest.approx([q for _, q in best], rel=1e-4)


def test_spelled_words_are_as_likely_as_their_letters_and_an_end(build):
    tokenizer = CharTokenizer.train(["ab ."], CharTokenizer.Settings())
    model = build("gru", tokenizer.size)
    left = "a ab b "
    right = {}
    before = text_score(model, tokenizer, left)
    for length in range(1, 7):
        for word in map("".join, itertools.product("ab", repeat=length)):
            ends = [text_score(model, tokenizer, left + word + end) for end in " ."]
            right[word] = sum(math.exp(e - before) for e in ends)
    best = sorted(right.items(), key=lambda pair: -pair[1])[:4]
    found = top_words(model, tokenizer, [left], 4)
    assert [w for w, _ in found] == [w for w, _ in best]
    assert [p for _, p in found] == pytest.approx([p for _, p in best], rel=1e-3)


@pytest.mark.parametrize("name", TOKENIZERS.names())
def test_the_likeliest_word_is_as_likely_as_it_is_as_a_candidate(
    speaker, build, france_documents, name
):
    _, tokenizer = speaker(name)
    model = build("ngram", tokenizer.size, order=6)
    start = [tokenizer.start]
    model.fit_counts(np.concatenate([[*start, *tokenizer.encode(d)] for d in france_documents]))
    (best, probability), *_ = top_words(model, tokenizer, ["Anna grew up in "], 3)
    ((score,),) = score_words(model, tokenizer, ["Anna grew up in "], [[best]])
    assert probability == pytest.approx(math.exp(score), rel=0.02)


@pytest.mark.parametrize("name", TOKENIZERS.names())
def test_the_likeliest_words_of_several_texts_have_their_mean_probability(
    speaker, counted, france_documents, name, monkeypatch
):
    _, tokenizer = speaker(name)
    model = counted(tokenizer, " ".join(france_documents), order=6)
    found = dict(top_words(model, tokenizer, TEXTS, 8))
    scores = score_words(model, tokenizer, TEXTS, [list(found)] * len(TEXTS))
    exact = np.exp(scores).mean(0)
    best = int(exact.argmax())
    assert list(found.values())[best] == pytest.approx(exact[best], rel=0.05)
    assert (np.array(list(found.values())) <= exact * 1.05).all()
    monkeypatch.setattr(likeliest_words, "LOGITS", 1)  # a text at a time
    assert dict(top_words(model, tokenizer, TEXTS, 8)) == pytest.approx(found, rel=1e-4)


def test_no_line_end_no_mark_and_nothing_unknown_is_a_word(build, counted):
    text = "the old\nthe old\nthe old .\nthe old -- the old cat\nthe old '\n" * 20
    tokenizer = WordTokenizer.train([text, "rare"], WordTokenizer.Settings(min_count=9))
    found = top_words(counted(tokenizer, text + "the old rare\n" * 99), tokenizer, ["the old"], 50)
    words = {word for word, _ in found}
    assert words >= {"cat", "the", "old"}
    assert all(any(c.isalnum() for c in word) for word in words), words
    assert not words & {"<unk>", "\\n", "n", "rare"}
    spelt = CharTokenizer.train([text], CharTokenizer.Settings())
    letters = [word for word, _ in top_words(counted(spelt, text), spelt, ["the old "], 9)]
    assert letters[0] == "cat"
    assert all(any(c.isalnum() for c in word) for word in letters), letters


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_words_whose_letters_are_several_bytes_are_found(counted, name):
    text = "она говорит да . " * 50
    cls = TOKENIZERS.load(name)
    settings = cls.Settings(vocabulary=260) if name == "bpe" else cls.Settings()
    tokenizer = cls.train([text], settings)
    model = counted(tokenizer, text, order=8)
    (word, probability), *_ = top_words(model, tokenizer, ["она говорит "], 3)
    ((score,),) = score_words(model, tokenizer, ["она говорит "], [["да"]])
    assert word == "да"
    assert probability == pytest.approx(math.exp(score), rel=1e-3)
