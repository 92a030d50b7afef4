"""Byte pairs: what comes often becomes one token; decoding is exact."""

import numpy as np
import pytest

from lmcli.tokenizers.bpe import BpeTokenizer

TEXT = "the cat and the hat and the naïve bat sat on the mat.\n" * 40


def train(*pieces: str, vocabulary: int = 300) -> BpeTokenizer:
    return BpeTokenizer.train(pieces, BpeTokenizer.Settings(vocabulary=vocabulary))


def test_frequent_words_become_one_token() -> None:
    bpe = train(TEXT)
    assert [bpe.symbol(i) for i in bpe.encode(" and the naïve")] == [" and", " the", " naïve"]


def test_the_vocabulary_has_the_size_asked_for_or_as_many_as_the_text_gives() -> None:
    assert train(TEXT, vocabulary=270).size == 270
    assert 256 < train("the cat", vocabulary=2048).size < 300
    assert train(vocabulary=2048).size == 256


def test_training_twice_gives_the_same_tokens() -> None:
    assert train(TEXT).to_json() == train(TEXT).to_json()


def test_symbols_never_seen_are_written_in_bytes() -> None:
    bpe = train(TEXT)
    assert bpe.unknown is None
    assert bpe.decode(bpe.encode("Ω 日本 \0\x7f")) == "Ω 日本 \0\x7f"
    assert [bpe.symbol(i) for i in bpe.encode("Ω\n")] == ["\\xce", "\\xa9", "\\n"]


def test_ends_stand_at_whole_characters() -> None:
    bpe = train("abc")
    assert bpe.encode_with_ends("aΩb").ends.tolist() == [1, 1, 2, 3]


def test_cutting_a_long_text_into_chunks_does_not_change_its_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "".join(np.random.default_rng(0).choice([" ", "\n", "the", "'s", ".", "é", "1"], 50_000))
    bpe = train(text, vocabulary=400)
    whole = bpe._library.encode(text).ids
    assert bpe.encode(text).tolist() == whole
    monkeypatch.setattr("lmcli.tokenizers.bpe._CHUNK", 5)
    assert bpe.encode(text).tolist() == whole


def test_a_lone_surrogate_is_no_crash() -> None:
    bpe = train(TEXT)
    encoded = bpe.encode_with_ends("a\udc80b")
    assert bpe.decode(encoded.ids) == "a?b"
    assert encoded.ends[-1] == 3


@pytest.mark.parametrize("harm", [{"vocabulary": 5}, {"vocabulary": ["a"]}, {"merges": [["x"]]}])
def test_damaged_json_is_refused(harm: dict) -> None:
    data = train(TEXT).to_json()
    with pytest.raises(ValueError, match="not a byte-pair vocabulary"):
        BpeTokenizer.from_json(data | harm)
    del data["merges"]
    with pytest.raises(KeyError):
        BpeTokenizer.from_json(data)
