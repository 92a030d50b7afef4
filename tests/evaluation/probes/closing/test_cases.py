"""Pairs in the tokens of every tokenizer, and tokens that are exchanged."""

import numpy as np
import pytest

from lmcli.evaluation.probes.closing.cases import (
    FEWEST,
    FEWEST_STRETCHES,
    SimilarTokens,
    TokenPair,
    find_token_pairs,
    ranges,
)
from lmcli.registry import TOKENIZERS

TEXT = "he said “no (not yet), (x)” and left.\nshe said “yes” and <b>came</b> home (late).\n"


def trained(name, text=TEXT, **settings):
    cls = TOKENIZERS.load(name)
    return cls.train([text] * 3, cls.Settings(**settings))


@pytest.mark.parametrize("name", ["char", "byte", "word", "bpe"])
def test_every_tokenizer_has_tokens_for_opener_and_closer(name):
    settings = {"vocabulary": 257} if name == "bpe" else {}
    tokenizer = trained(name, **settings)
    found, merged, total = find_token_pairs(tokenizer, ["", TEXT], 100)
    assert merged == 0
    assert total == 2 + len(tokenizer.encode(TEXT))
    shown = set()
    for pair in found:
        marks = pair.ids[pair.opener : pair.between], pair.ids[pair.closer : pair.end]
        shown.add(tuple(tokenizer.decode(ids).strip() for ids in marks))
        between = tokenizer.decode(pair.ids[pair.between : pair.closer])
        assert not {"“", "”"} & {*between}
    assert shown == {("“", "”"), ("(", ")"), ("<b", "</b>")}
    assert len(found) == 6


def test_a_gap_is_counted_in_tokens_and_long_ones_are_left_out():
    tokenizer = trained("char")
    gaps = [pair.gap for pair in find_token_pairs(tokenizer, [TEXT], 100)[0]]
    assert gaps == [17, 7, 1, 3, 5, 4]  # of the tag the bracket > too
    assert [pair.gap for pair in find_token_pairs(tokenizer, [TEXT], 4)[0]] == [1, 3, 4]


def test_an_opener_that_is_part_of_a_longer_token_is_left_out_and_a_closer_is_not():
    text = "f((a, b), c), g((b, a), c), h((c, a), c)\n" * 20  # with a token of two brackets
    tokenizer = trained("bpe", text, vocabulary=300)
    found, merged, _ = find_token_pairs(tokenizer, [text], 100)
    assert (len(found), merged) == (0, 60)
    text = "f ( a ). g ( b ).\n" * 20
    tokenizer = trained("bpe", text, vocabulary=300)
    found, merged, _ = find_token_pairs(tokenizer, [text], 100)
    assert (len(found), merged) == (40, 0)
    pair = found[0]
    assert tokenizer.decode(pair.ids[pair.closer : pair.end]).strip().startswith(").")


def test_marks_that_the_model_has_never_seen_are_left_out():
    tokenizer = trained("word", "he said ( no ) and left .\n")
    found, _, _ = find_token_pairs(tokenizer, ["he ( said ) [ no ] and"], 100)
    assert len(found) == 1


def pairs(gaps, apart):
    return [TokenPair(np.zeros(0), 0, 1, 1 + gap, 0, k * apart) for k, gap in enumerate(gaps)]


def test_neighbouring_buckets_share_a_row_until_it_has_enough_pairs():
    found = pairs([1] * 5 + [2] * FEWEST + [10] * FEWEST + [30] * 3, 500)
    rows = [(r.low, r.high, len(r.pairs)) for r in ranges(found, 24_000)]
    assert rows == [(1, 2, FEWEST + 5), (9, 16, FEWEST)]  # three at 17-32 are too few
    assert ranges(pairs([5] * 100, 1), 2000) == []  # all in one stretch of 100 tokens
    assert len(ranges(pairs([5] * 100, 100 * FEWEST_STRETCHES // 100 + 1), 2000)) == 1


def test_the_other_token_is_a_word_about_as_frequent():
    text = "".join(c * n for c, n in zip("abcdefghijkl(", [*range(10, 121, 10), 35], strict=True))
    tokenizer = trained("char", text + "(.)")
    similar = SimilarTokens([tokenizer.encode(text)], tokenizer)
    rng = np.random.default_rng(0)
    opener = int(tokenizer.encode("(")[0])
    drawn = {tokenizer.decode([similar.draw(opener, rng)]) for _ in range(200)}
    assert drawn == set("bcdefghi")  # 20 to 90 times, where the opener comes 36 times
    own = int(tokenizer.encode("c")[0])
    assert own not in {similar.draw(own, rng) for _ in range(100)}
    numbers = trained("char", "(.)")
    assert not SimilarTokens([numbers.encode("(.)")], numbers).possible


def test_the_control_is_a_word_shortly_before_the_opener():
    tokenizer = trained("char")
    similar, rng = SimilarTokens([tokenizer.encode(TEXT)], tokenizer), np.random.default_rng(0)
    text = "the old and. (" + "x" * 9 + ") (y)"
    found, _, _ = find_token_pairs(tokenizer, [text], 100)
    places = set()
    for _ in range(60):
        case = similar.exchange(found[0], rng)
        real, exchanged, control = case.rows()
        places.add(found[0].opener - case.place)
        assert (real != exchanged).nonzero()[0].tolist() == [found[0].opener - case.begin]
        assert (real != control).nonzero()[0].tolist() == [0]
        assert len(real) == found[0].end - case.begin
    assert places == {3, 4}  # within gap // 2; a blank and a full stop are no words
    case = similar.exchange(found[1], rng)  # nothing but a bracket and a blank before it
    assert case.place is None
    assert case.rows()[2].tolist() == case.rows()[0].tolist()
