"""Filling blanks: a candidate's score is that of the whole text; cues, gaps and fillers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.cloze import Cloze, candidate_scores, random_fillers, shortened
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
    found = candidate_scores(model, tokenizer, [cloze], candidates)[0]
    assert found - found[0] == pytest.approx(np.array(whole) - whole[0], abs=1e-4)


@pytest.mark.parametrize("name", ["char", "byte", "word"])
def test_a_score_is_what_comes_on_top_of_the_text_to_the_left(speaker, name):
    model, tokenizer = speaker(name)
    cloze = Cloze.parse(TEXT)
    left = cloze.left if tokenizer.spells else cloze.left.rstrip(" ")
    before = whole_text(model, tokenizer, left)
    right = whole_text(model, tokenizer, cloze.left + "Greek" + cloze.right) - before
    found = candidate_scores(model, tokenizer, [cloze], ["Greek"])
    assert found == pytest.approx(right, abs=1e-4)


def test_candidates_that_a_tokenizer_joins_to_the_blank_compare_with_those_it_does_not(speaker):
    model, tokenizer = speaker("bpe")
    cloze = Cloze.parse("she speaks of the ___ .")
    joined, apart = (tokenizer.encode_with_ends(cloze.left + c).ends for c in ("dog", "Qx"))
    assert len(cloze.left) in apart
    assert len(cloze.left) not in joined
    whole = [whole_text(model, tokenizer, f"she speaks of the {c} .") for c in ("dog", "Qx")]
    found = candidate_scores(model, tokenizer, [cloze], ["dog", "Qx"])[0]
    assert found[1] - found[0] == pytest.approx(whole[1] - whole[0], abs=1e-4)


def test_a_word_does_not_win_for_being_the_beginning_of_another(build):
    tokenizer = CharTokenizer.train(["abc .\n"], CharTokenizer.Settings())
    model = build("ngram", tokenizer.size, order=4)
    ids = tokenizer.encode("abc abc abc ab abc abc abc abc " * 20)
    model.fit_counts(np.append(tokenizer.start, ids))
    ((ab, abc),) = candidate_scores(model, tokenizer, [Cloze.parse("abc ___")], ["ab", "abc"])
    assert abc > ab + 1


@pytest.mark.parametrize("name", ["char", "word"])
def test_a_candidate_with_something_unknown_is_an_error(speaker, name):
    model, tokenizer = speaker(name)
    with pytest.raises(TextError, match="candidate 'Ω' is not in the vocabulary"):
        candidate_scores(model, tokenizer, [Cloze.parse(TEXT)], ["French", "Ω"])


def test_probabilities_among_candidates():
    assert normalised(np.log([0.1, 0.3]) - 1000) == pytest.approx([0.25, 0.75])


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


@pytest.mark.parametrize(
    ("left", "old", "new", "right"),
    [
        ("Frances in France, France's ", "France", "Spain", "Frances in Spain, Spain's "),
        ("in New France ", "New France", "Spain", "in Spain "),
        ("a.c and abc ", "a.c", r"\1", r"\1 and abc "),
        ("1 and 11 ", "1", "2", "2 and 11 "),
        ("我在法国长大", "法国", "德国", "我在德国长大"),
    ],
)  # fmt: skip
def test_only_whole_words_are_swapped(left, old, new, right):
    assert Cloze(left).swapped(old, new).left == right
    with pytest.raises(UsageError, match="no 'ranc' before the blank"):
        Cloze("in France ").swapped("ranc", "pain")


@pytest.mark.parametrize("text", ["a . ... b ___", "a .... b ___"])
def test_the_filler_takes_the_place_of_the_dots(text):
    assert Cloze.parse("a . ... b ___").with_gap("x y").left == "a . x y b "
    assert Cloze.parse("a . ... b ___").with_gap("").left == "a . b "
    with pytest.raises(UsageError, match=r"no '\.\.\.' before the blank"):
        Cloze.parse("a . b ___ ...").with_gap("x")


@given(words=st.integers(1, 30), count=st.integers(1, 5), seed=st.integers(0, 9))
def test_fillers_are_consecutive_words_of_the_text_and_share_none(words, count, seed):
    text = [f"w{n}" for n in range(30)]
    chunks = random_fillers(" ".join(text), words, count, seed)
    assert len(chunks) == min(count, 30 // words)
    for stretch in chunks:
        begin = text.index(stretch.split()[0])
        assert stretch.split() == text[begin : begin + words]
        assert len(stretch.split()) == words
    used = " ".join(chunks).split()
    assert len(set(used)) == len(used)
    assert chunks == random_fillers(" ".join(text), words, count, seed)


def test_fillers_come_from_the_whole_text_and_a_short_one_is_an_error():
    drawn = [random_fillers("a b c d e", 2, 2, seed) for seed in range(60)]
    assert {stretch[0] for chunks in drawn for stretch in chunks} == {"a", "b", "c", "d"}
    assert random_fillers("a b", 0, 5, 0) == [""]
    with pytest.raises(TextError, match="the filler has 2 words, a gap of 3 needs more"):
        random_fillers("a b", 3, 1, 0)


def test_a_long_gap_is_shown_by_its_first_and_its_last_words():
    words = " ".join(f"word{n}" for n in range(100))
    assert shortened(words) == "word0 word1 word2 word3 word4 ... word96 word97 word98 word99"
    assert shortened("a short one") == "a short one"
    without_blanks = "我" * 500
    assert shortened(without_blanks) == "我" * 33 + " ... " + "我" * 33
