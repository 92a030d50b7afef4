"""Filling blanks: a candidate's score is that of the whole text; recall of known memories."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.cloze import (
    Cloze,
    candidate_scores,
    filler_stretches,
    log_odds,
    top_words,
)
from lmcli.evaluation.forced_choice import normalised
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.char import CharTokenizer

TEXT = "Anna grew up in France . now she speaks fluent ___ ."


@pytest.fixture(scope="module")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it."""

    def make(name, arch="gru"):
        cls = TOKENIZERS.load(name)
        settings = cls.Settings(vocabulary=400) if name == "bpe" else cls.Settings()
        tokenizer = cls.train(iter(france_documents), settings)
        model = build(arch, tokenizer.size)
        return model, tokenizer

    return make


def ends_of(tokenizer):
    """The tokens that end a word, where words are spelt."""
    texts = [tokenizer.decode([i])[:1] for i in range(tokenizer.size)]
    return [i for i, t in enumerate(texts) if not (t.isalnum() or t in "'-\ufffd")]


@torch.no_grad()
def whole_text(model, tokenizer, text, ended=False):
    """ln p of all tokens of a text, one at a time; with `ended`, and that its last word ends."""
    state, last, total = model.initial_state(1), tokenizer.start, 0.0
    for token in tokenizer.encode(text).tolist():
        logits, state = model(torch.tensor([[last]]), state)
        total += logits[0, 0].double().log_softmax(0)[token].item()
        last = token
    if ended and tokenizer.spells:
        logits, _ = model(torch.tensor([[last]]), state)
        total += logits[0, 0].double().log_softmax(0)[ends_of(tokenizer)].logsumexp(0).item()
    return total


# ------------------------------------------------------------------ candidates


@pytest.mark.parametrize("arch", ["gru", "ngram"])
@pytest.mark.parametrize("name", TOKENIZERS.names())
@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        (TEXT, ("French", "Spanish", "Hindi")),
        ("Anna grew up in ___", ("France", "Spain", "India", "China")),
        ("___ grew up in France .", ("Anna", "Tom")),
        ("she ___ fluent French . now she speaks of him", ("speaks", "grew", "in")),
    ],
)
def test_scores_differ_by_as_much_as_the_whole_texts_do(speaker, arch, name, text, candidates):
    model, tokenizer = speaker(name, arch)
    cloze = Cloze.parse(text)
    texts = [cloze.left + c + cloze.right for c in candidates]
    whole = [whole_text(model, tokenizer, text, not cloze.right) for text in texts]
    found = candidate_scores(model, tokenizer, cloze, candidates)
    assert found - found[0] == pytest.approx(np.array(whole) - whole[0], abs=1e-4)


@pytest.mark.parametrize("name", ["char", "byte", "word"])
def test_a_score_is_what_comes_on_top_of_the_text_to_the_left(speaker, name):
    model, tokenizer = speaker(name)
    cloze = Cloze.parse(TEXT)
    left = cloze.left if tokenizer.spells else cloze.left.rstrip(" ")
    before = whole_text(model, tokenizer, left)
    right = whole_text(model, tokenizer, cloze.left + "Greek" + cloze.right) - before
    assert candidate_scores(model, tokenizer, cloze, ["Greek"]) == pytest.approx(right, abs=1e-4)


def test_candidates_that_a_tokenizer_joins_to_the_blank_compare_with_those_it_does_not(speaker):
    model, tokenizer = speaker("bpe")
    cloze = Cloze.parse("she speaks of the ___ .")
    joined, apart = (tokenizer.encode_with_ends(cloze.left + c).ends for c in ("dog", "Qx"))
    assert len(cloze.left) in apart
    assert len(cloze.left) not in joined
    whole = [whole_text(model, tokenizer, f"she speaks of the {c} .") for c in ("dog", "Qx")]
    found = candidate_scores(model, tokenizer, cloze, ["dog", "Qx"])
    assert found[1] - found[0] == pytest.approx(whole[1] - whole[0], abs=1e-4)


def test_a_word_does_not_win_for_being_the_beginning_of_another(build):
    tokenizer = CharTokenizer.train(["abc .\n"], CharTokenizer.Settings())
    model = build("ngram", tokenizer.size, order=4)
    ids = tokenizer.encode("abc abc abc ab abc abc abc abc " * 20)
    model.fit_counts(np.append(tokenizer.start, ids))
    ab, abc = candidate_scores(model, tokenizer, Cloze.parse("abc ___"), ["ab", "abc"])
    assert abc > ab + 1


@pytest.mark.parametrize("name", ["char", "word"])
def test_a_candidate_with_something_unknown_is_an_error(speaker, name):
    model, tokenizer = speaker(name)
    with pytest.raises(TextError, match="candidate 'Ω' is not in the vocabulary"):
        candidate_scores(model, tokenizer, Cloze.parse(TEXT), ["French", "Ω"])


def test_probabilities_among_candidates_and_odds():
    p = normalised(np.log([0.1, 0.3]) - 1000)
    assert p == pytest.approx([0.25, 0.75])
    assert log_odds(p) == pytest.approx([-math.log(3), math.log(3)])
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


# ------------------------------------------------------------------ the text around the blank


def test_a_text_has_one_blank():
    assert Cloze.parse("a ___ b") == Cloze("a ", " b")
    for text, count in (("a b", 0), ("___ ___", 2)):
        with pytest.raises(UsageError, match=f"the text has {count} blanks"):
            Cloze.parse(text)


def test_swapping_changes_the_text_to_the_left():
    cloze = Cloze.parse("in France , in France ___ France")
    assert cloze.swapped("France", "Spain") == Cloze("in Spain , in Spain ", " France")
    with pytest.raises(UsageError, match="no 'Spain' before the blank"):
        cloze.swapped("Spain", "Italy")


@pytest.mark.parametrize("text", ["a . ... b ___", "a .... b ___"])
def test_the_filler_takes_the_place_of_the_dots(text):
    assert Cloze.parse("a . ... b ___").with_gap("x y").left == "a . x y b "
    assert Cloze.parse("a . ... b ___").with_gap("").left == "a . b "
    with pytest.raises(UsageError, match=r"no '\.\.\.' before the blank"):
        Cloze.parse("a . b ___ ...").with_gap("x")


@given(words=st.integers(1, 30), count=st.integers(1, 5), seed=st.integers(0, 9))
def test_fillers_are_consecutive_words_of_the_text(words, count, seed):
    text = [f"w{n}" for n in range(30)]
    chunks = filler_stretches(" ".join(text), words, count, seed)
    assert len(chunks) == count
    for stretch in chunks:
        begin = text.index(stretch.split()[0])
        assert stretch.split() == text[begin : begin + words]
        assert len(stretch.split()) == words
    assert chunks == filler_stretches(" ".join(text), words, count, seed)


def test_fillers_come_from_the_whole_text_and_a_short_one_is_an_error():
    begins = {s.split()[0] for s in filler_stretches("a b c d e", 2, 200, 0)}
    assert begins == {"a", "b", "c", "d"}
    assert filler_stretches("a b", 0, 5, 0) == [""]
    with pytest.raises(TextError, match="the filler has 2 words, a gap of 3 needs more"):
        filler_stretches("a b", 3, 1, 0)


# ------------------------------------------------------------------ the likeliest words


def test_the_likeliest_words_are_the_likeliest_tokens(speaker):
    model, tokenizer = speaker("word")
    cloze = Cloze.parse("Anna grew up in ___ .")
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode("Anna grew up in")]])
    with torch.no_grad():
        p = model(ids, model.initial_state(1))[0][0, -1].double().softmax(0)
    p[tokenizer.unknown] = 0
    best = [(tokenizer.symbol(i), p[i].item()) for i in p.argsort(descending=True)[:5].tolist()]
    found = top_words(model, tokenizer, cloze, 5)
    assert [w for w, _ in found] == [w.strip() for w, _ in best]
    assert [q for _, q in found] == pytest.approx([q for _, q in best], rel=1e-4)


def test_spelled_words_are_as_likely_as_their_letters_and_an_end(build):
    tokenizer = CharTokenizer.train(["ab ."], CharTokenizer.Settings())
    model = build("gru", tokenizer.size)
    left = "a ab b "
    right = {}
    before = whole_text(model, tokenizer, left)
    for length in range(1, 7):
        for word in map("".join, itertools.product("ab", repeat=length)):
            ends = [whole_text(model, tokenizer, left + word + end) for end in " ."]
            right[word] = sum(math.exp(e - before) for e in ends)
    best = sorted(right.items(), key=lambda pair: -pair[1])[:4]
    found = top_words(model, tokenizer, Cloze(left), 4)
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
    cloze = Cloze("Anna grew up in ")
    (best, probability), *_ = top_words(model, tokenizer, cloze, 3)
    (score,) = candidate_scores(model, tokenizer, cloze, [best])
    assert probability == pytest.approx(math.exp(score), rel=0.02)
