"""The laws that every tokenizer obeys; a new file in lmcli/tokenizers is covered by existing."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.base import Tokenizer

NAMES = TOKENIZERS.names()
ATOMS = ["the", "Anna", "don't", "3.14", "é", "日本", "😀", ",", ".", "(", ")", '"', "-", "<unk>"]
ATOMS += [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u200d", "e\u0301"]

written = st.lists(st.sampled_from(ATOMS), max_size=40).map("".join)
texts = written | st.text(max_size=60)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
every_tokenizer = pytest.mark.parametrize("name", NAMES)


def train(name: str, *pieces: str) -> Tokenizer:
    cls = TOKENIZERS.load(name)
    return cls.train(iter(pieces), cls.Settings())


@every_tokenizer
@given(text=texts)
@quick
def test_a_text_of_known_symbols_comes_back_exactly(name: str, text: str) -> None:
    tokenizer = train(name, text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@every_tokenizer
@given(known=texts, text=texts)
@quick
def test_where_nothing_can_be_unknown_every_text_comes_back(
    name: str, known: str, text: str
) -> None:
    tokenizer = train(name, known)
    ids = tokenizer.encode(text)
    if tokenizer.unknown is None or tokenizer.unknown not in ids:
        assert tokenizer.decode(ids) == text


@every_tokenizer
@given(known=texts, text=texts)
@quick
def test_what_an_unknown_token_stands_for_is_no_known_text(
    name: str, known: str, text: str
) -> None:
    tokenizer = train(name, known)
    assert tokenizer.unknown_rate is None or 0 < tokenizer.unknown_rate < 1
    if tokenizer.unknown is None:
        return
    encoded = tokenizer.encode_with_ends(text)
    begins = [0, *encoded.ends.tolist()]
    for token, begin, end in zip(encoded.ids, begins, encoded.ends, strict=False):
        stands_for = tokenizer.unknown_text(text[begin:end])
        assert (token == tokenizer.unknown) == (stands_for not in tokenizer.known_texts())


@every_tokenizer
@given(known=texts, text=texts)
@quick
def test_ids_are_below_the_size_and_the_start_id_is_none_of_them(
    name: str, known: str, text: str
) -> None:
    tokenizer = train(name, known)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.start == tokenizer.size
    assert ((ids >= 0) & (ids < tokenizer.size)).all()
    assert tokenizer.unknown is None or 0 <= tokenizer.unknown < tokenizer.size


@every_tokenizer
@given(known=texts, text=texts)
@quick
def test_ends_never_fall_and_reach_the_end_of_the_text(name: str, known: str, text: str) -> None:
    tokenizer = train(name, known)
    encoded = tokenizer.encode_with_ends(text)
    assert encoded.ids.tolist() == tokenizer.encode(text).tolist()
    assert len(encoded.ends) == len(encoded.ids)
    assert (np.diff(encoded.ends, prepend=0) >= 0).all()
    assert (encoded.ends[-1] if len(encoded.ends) else 0) == len(text)


@every_tokenizer
@given(text=texts)
@quick
def test_a_token_ends_where_the_text_decoded_so_far_ends(name: str, text: str) -> None:
    tokenizer = train(name, text)
    encoded = tokenizer.encode_with_ends(text)
    decoder, decoded = tokenizer.decoder(), ""
    for token, end in zip(encoded.ids.tolist(), encoded.ends.tolist(), strict=True):
        decoded += decoder.push(token)
        assert decoded == text[:end]
    assert decoder.finish() == ""


@every_tokenizer
@given(known=texts, data=st.data())
@quick
def test_decoding_piece_by_piece_is_decoding_whole(
    name: str, known: str, data: st.DataObject
) -> None:
    tokenizer = train(name, known)
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1), max_size=20))
    decoder = tokenizer.decoder()
    assert "".join([*map(decoder.push, ids), decoder.finish()]) == tokenizer.decode(ids)


@every_tokenizer
@given(known=texts, text=texts)
@quick
def test_saved_as_json_and_read_back_it_is_the_same(name: str, known: str, text: str) -> None:
    tokenizer = train(name, known)
    data = json.loads(json.dumps(tokenizer.to_json()))
    again = TOKENIZERS.load(name).from_json(data)
    assert data["name"] == name
    assert again.to_json() == tokenizer.to_json()
    assert (again.size, again.unknown) == (tokenizer.size, tokenizer.unknown)
    assert again.unknown_rate == tokenizer.unknown_rate
    del data["unknown_rate" if "unknown_rate" in data else "name"]  # as earlier versions saved it
    assert TOKENIZERS.load(name).from_json(data).unknown_rate is None
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@every_tokenizer
@given(text=texts)
@quick
def test_every_token_can_be_shown(name: str, text: str) -> None:
    tokenizer = train(name, text)
    for token in {*tokenizer.encode(text).tolist(), 0, tokenizer.size - 1}:
        assert tokenizer.symbol(token)
        assert tokenizer.symbol(token).isprintable()


@every_tokenizer
def test_nothing_seen_in_training_is_no_crash(name: str) -> None:
    tokenizer = train(name)
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.encode_with_ends("").ends.tolist() == []
    assert tokenizer.decode([]) == ""
    assert len(tokenizer.encode("a b")) > 0


@every_tokenizer
def test_a_lone_surrogate_is_no_crash(name: str) -> None:
    tokenizer = train(name, "a \udc80 b")
    encoded = tokenizer.encode_with_ends("a \udc80 b")
    assert encoded.ends[-1] == 5
    json.dumps(tokenizer.to_json()).encode()
