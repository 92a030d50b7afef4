"""Words: separators that are expected cost nothing, all others are tokens."""

import re
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.tokenizers.base import Chunk, Chunked, chunks_of
from lmcli.tokenizers.word import splitting
from lmcli.tokenizers.word.splitting import find_pairs, find_split
from lmcli.tokenizers.word.tokenizer import WordTokenizer

PROSE = "Yes, I know. The (old) man said: no.\nWell, he (too) spoke.\n"
PREPARED = "Anna grew up in France . She speaks fluent French .\nWho ? Anna .\n"
WIKITEXT = " \n = Title = \n \n the <unk> said , @-@ no . \n"


def train(text: str, **settings: object) -> WordTokenizer:
    return WordTokenizer.train([text], WordTokenizer.Settings(**settings))


def tokens(tokenizer: WordTokenizer, text: str) -> list[str]:
    return [tokenizer.symbol(i) for i in tokenizer.encode(text)]


def test_spaces_where_training_had_them_cost_no_token() -> None:
    word = train(PROSE)
    first_line = "Yes , I know . The ( old ) man said : no . \\n"
    assert tokens(word, PROSE.splitlines(keepends=True)[0]) == first_line.split()
    assert word.decode(word.encode(PROSE)) == PROSE


def test_a_missing_space_is_a_join_and_an_extra_one_a_space() -> None:
    word = train("a b, c, d, e ,f (g) h(i) j (k) (l)\n")
    assert tokens(word, "b ,c") == ["b", " ", ",", "<join>", "c"]
    assert tokens(word, "h(i)") == ["h", "<join>", "(", "i", ")"]


def test_runs_of_blanks_are_tokens_if_training_has_seen_them() -> None:
    word = train("a  b\n\tc\n")
    assert tokens(word, "a  b\n\tc") == ["a", "  ", "b", "\\n", "\\t", "c"]
    assert tokens(word, "a   b") == ["a", "<unk>", "b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't o'er twenty-one 3.14 10,000", ["don't", "o'er", "twenty-one", "3.14", "10,000"]),
        ("it’s naïve", ["it’s", "naïve"]),
        ("end. 'tis a-", ["end", ".", "'", "tis", "a", "-"]),
        ("1. 2,", ["1", ".", "2", ","]),
        ("a--b", ["a", "-", "-", "b"]),
        ("a_b", ["a", "_", "b"]),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}", ["éte\u0301"]),
    ],
)
def test_what_is_a_word(text: str, expected: list[str]) -> None:
    word = train(text, split="punctuation")
    seen = [t for t in tokens(word, text) if t not in ("<join>", " ")]
    assert "".join(seen) == "".join(text.split())
    assert len(seen) == len(expected)


def test_every_line_end_is_a_token() -> None:
    word = train("a\nb\r\n\nc\r\n")
    assert tokens(word, "a\r\n\nb") == ["a", "\\r\\n", "\\n", "b"]
    assert word.decode(word.encode("a\r\n\nb\n")) == "a\r\n\nb\n"


@pytest.mark.parametrize("text", [PREPARED, WIKITEXT, " Anna grew up \n who ? \n"])
def test_prepared_text_has_one_token_a_chunk_and_one_a_line_end(text: str) -> None:
    word = train(text * 30, split="space")
    assert len(word.encode(text * 30)) == len((text * 30).split()) + (text * 30).count("\n")
    assert word.decode(word.encode(text)) == text


def test_auto_sees_prepared_text_and_prose() -> None:
    assert train(PREPARED).to_json()["split"] == "space"
    assert train(PROSE).to_json()["split"] == "punctuation"
    assert train("emma\nolivia\n").to_json()["split"] == "space"


@pytest.mark.parametrize(("cut", "split"), [(4, "space"), (5, "punctuation")])
def test_auto_takes_space_under_five_chunks_in_a_hundred(cut: int, split: str) -> None:
    assert train("a. " * cut + "b " * (100 - cut)).to_json()["split"] == split


def test_ids_go_by_falling_frequency_then_alphabet() -> None:
    word = train("b a c b\tc b\n")
    assert [word.symbol(i) for i in range(word.size)] == ["<unk>", "\\t", "b", "c", "\\n", "a"]


def test_the_unknown_mark_in_a_text_is_the_unknown_word() -> None:
    for split in ("space", "punctuation"):
        word = train("a <unk> b\n", split=split)
        assert word.encode("a <unk> zzz b").tolist()[1:3] == [word.unknown, word.unknown]
        assert word.decode(word.encode("a <unk> b\n")) == "a <unk> b\n"


def test_min_count_and_max_vocabulary_leave_words_out() -> None:
    text = "a a a b b c\n\n\n\n"
    assert train(text, min_count=2).size == 1 + len(["\n", "a", "b"])
    assert train(text, max_vocabulary=2).size == 1 + len(["\n", "a"])
    assert train(text, min_count=2).encode("a c b").tolist().count(0) == 1


@pytest.mark.parametrize(
    ("settings", "rare"),
    [({}, 3), ({"min_count": 2}, 7), ({"min_count": 3}, 10), ({"max_vocabulary": 1}, 5)],
)
def test_the_unknown_rate_counts_what_would_be_unknown_if_left_out(
    settings: dict[str, int], rare: int
) -> None:
    text = "b b a a a c\td\t\n"  # a 3, b and tab 2, c, d and line end 1
    word = train(text, split="space", **settings)
    assert len(word.encode(text)) == 10
    assert word.unknown_rate == pytest.approx((rare + 0.5) / (10 + 1))


def test_a_text_with_unknown_marks_of_its_own_has_no_rate_unless_they_are_few() -> None:
    assert train("a <unk> <unk> b c\n" * 9).unknown_rate is None
    assert train("a a b c d e <unk>\n").unknown_rate == pytest.approx((5 + 1 + 0.5) / (8 + 1))


def test_marks_left_out_of_the_vocabulary_are_spaced_like_words() -> None:
    word = train("a, b, c d e f. g a b c d e f g\n" * 3 + "x; y#\n", min_count=2)
    assert tokens(word, "a b; c") == ["a", "b", "<join>", "<unk>", "c"]


def test_an_expected_space_belongs_to_the_token_behind_it() -> None:
    word = train(PROSE)
    encoded = word.encode_with_ends("Yes, I know.")
    assert encoded.ends.tolist() == [3, 4, 6, 11, 12]


def test_an_explicit_separator_ends_where_it_ends() -> None:
    word = train("a  b(c) d (e) f (g)\n")
    encoded = word.encode_with_ends("a  b(c) ")
    assert [word.symbol(i) for i in encoded.ids] == [
        "a",
        "  ",
        "b",
        "<join>",
        "(",
        "c",
        ")",
        "<unk>",
    ]
    assert encoded.ends.tolist() == [1, 3, 4, 4, 5, 6, 7, 8]


def test_a_long_text_is_read_like_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = PROSE * 50 + "no line end here " * 30
    whole = train(text)
    encoded = whole.encode_with_ends(text)
    monkeypatch.setattr("lmcli.tokenizers.word.splitting._SLICE", 40)
    monkeypatch.setattr("lmcli.tokenizers.word.tokenizer._MEMO", 5)
    sliced = train(text)
    assert sliced.to_json() == whole.to_json()
    assert sliced.encode(text).tolist() == encoded.ids.tolist()
    assert sliced.encode_with_ends(text).ends.tolist() == encoded.ends.tolist()


@pytest.mark.parametrize(
    "harm", [{"split": "no"}, {"words": 5}, {"words": ["a", "a"]}, {"separators": [1]}]
)
def test_damaged_json_is_refused(harm: dict) -> None:
    data = train(PROSE).to_json()
    with pytest.raises(ValueError, match=r"."):
        WordTokenizer.from_json(data | harm)
    del data["words"]
    with pytest.raises(KeyError):
        WordTokenizer.from_json(data)


# ------------------------------------------------------------------ fast

TANGLED = st.text("aZ9_.,;:!?'’-<unk> \t\r\n\u00e9\u0301\u200d", max_size=40)


@given(TANGLED)
def test_looking_for_common_pairs_first_changes_none(text):
    plain = re.compile(splitting._any_pair("punctuation"))
    assert [p for found in find_pairs(text, "punctuation") for p in found] == plain.findall(text)


@given(st.lists(TANGLED, min_size=1, max_size=6), st.sampled_from(["punctuation", "space", "auto"]))
def test_ids_of_all_documents_are_those_of_each(documents, split):
    tokenizer = WordTokenizer.train(documents, WordTokenizer.Settings(split=split))
    naive = [i for d in documents for i in (tokenizer.start, *tokenizer.encode(d).tolist())]
    parts = list(tokenizer.encode_all(chunks_of(documents)))
    assert np.concatenate(parts).tolist() == naive


def test_auto_looks_at_the_beginning_of_a_long_text(monkeypatch):
    assert find_split([PREPARED, PROSE * 9]) == "punctuation"
    monkeypatch.setattr(splitting, "_LOOKED_AT", len(PREPARED))
    texts = (PREPARED, PROSE)
    documents = Mock(spec=Chunked)
    documents.chunks.return_value = iter([Chunk(t, np.zeros(1, int)) for t in texts])
    assert find_split(documents) == "space"
