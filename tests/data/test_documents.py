"""Documents read from where they lie are the texts that lie there, in any chunks."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.documents import CountedDocuments, DocumentOffsets, Documents
from lmcli.data.texts import ProgressCounter, Spool, Text
from lmcli.data.token_cache import encode_pieces
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.base import Chunk, Tokenizer, chunks_of

PARTS = st.lists(st.text("ab é.,日\U0001f600\r\n\n \t", min_size=1, max_size=40), max_size=12)
ENDING = st.sampled_from(["", "\n", "\n\n"])


def pieces_of(parts: list[str], between: list[str], ending: str, window: int) -> Documents:
    """Documents in a text with something between them."""
    spool = Spool(1 << 20)
    begins, lengths = [], []
    for part, rest in zip(parts, between, strict=True):
        begins.append(spool.size)
        lengths.append(len(part.encode()))
        spool.write((part + rest).encode())
    text = Text("a.txt", spool, 0, spool.size, proven=True, window=window)
    spans = DocumentOffsets(text, np.array(begins, np.int64), np.array(lengths, np.int32), ending)
    return Documents([spans], sum(len(part + ending) for part in parts))


@st.composite
def lying(draw: st.DrawFn) -> tuple[list[str], Documents]:
    """Texts, and the same as pieces that lie somewhere."""
    parts, ending = draw(PARTS), draw(ENDING)
    between = [draw(st.sampled_from(["", ending, "zé" * 3])) for _ in parts]
    pieces = pieces_of(parts, between, ending, draw(st.integers(4, 60)))
    return [part + ending for part in parts], pieces


@given(lying())
def test_pieces_are_the_texts_that_lie_there(given_pieces: tuple[list[str], Documents]) -> None:
    texts, pieces = given_pieces
    assert list(pieces) == texts
    assert [pieces[i] for i in range(len(pieces))] == texts
    assert pieces == tuple(texts)
    assert tuple(texts) == pieces
    assert pieces[1:] == tuple(texts[1:])
    assert (*pieces, "x") == pieces + ("x",)  # noqa: RUF005 - the law is about +
    assert ("x", *pieces) == ("x",) + pieces  # noqa: RUF005
    with pytest.raises(IndexError):
        pieces[len(texts)]


@given(lying())
def test_stretches_end_to_end_are_the_pieces_end_to_end(
    given_pieces: tuple[list[str], Documents],
) -> None:
    texts, pieces = given_pieces
    chunks = list(pieces.chunks())
    assert "".join(s.text for s in chunks) == "".join(texts)
    offsets = np.cumsum([0, *(len(s.text) for s in chunks)])
    begins = [o + b for o, s in zip(offsets, chunks, strict=False) for b in s.begins.tolist()]
    assert begins == np.cumsum([0, *map(len, texts)])[:-1].tolist()
    assert all("".join(s.texts()) == s.text for s in chunks)


@given(lying())
def test_within_lines_pieces_begin_behind_line_ends_only(
    given_pieces: tuple[list[str], Documents],
) -> None:
    for stretch in given_pieces[1].chunks():
        parts = list(stretch.lines())
        assert "".join(p.text for p in parts) == stretch.text
        offsets = np.cumsum([0, *(len(p.text) for p in parts)])
        moved = [p.begins + o for p, o in zip(parts, offsets, strict=False)]
        assert np.concatenate(moved).tolist() == stretch.begins.tolist()
        for part in parts:
            assert all(part.text[b - 1] == "\n" for b in part.begins.tolist() if b)


@given(st.integers(4, 50))
def test_a_long_piece_is_cut_where_no_tokenizer_looks_across(window: int) -> None:
    text = "one two.  three\r\nfour\nfive\n\n" * 20
    chunks = list(pieces_of([text], [""], "", window).chunks())
    assert "".join(s.text for s in chunks) == text
    assert [s.begins.tolist() for s in chunks] == [[0]] + [[]] * (len(chunks) - 1)
    for before, after in pairwise(s.text for s in chunks):
        assert not before[-1].isspace()
        assert after[0] in " \n"
        assert not after[1].isspace()


def test_a_long_piece_without_a_seam_is_cut_anywhere() -> None:
    text = "é" * 5000
    chunks = list(pieces_of([text], [""], "\n", 10).chunks())
    assert "".join(s.text for s in chunks) == text + "\n"
    assert max(len(s.text) for s in chunks) <= 64 * 10


@pytest.mark.parametrize("name", TOKENIZERS.names())
@given(given_pieces=lying())
def test_ids_of_pieces_are_those_of_each_piece_behind_a_start_id(
    name: str, given_pieces: tuple[list[str], Documents]
) -> None:
    texts, pieces = given_pieces
    tokenizer = trained(name)
    naive = [i for text in texts for i in (tokenizer.start, *tokenizer.encode(text).tolist())]
    assert encode_pieces(tokenizer, pieces).tolist() == naive
    assert encode_pieces(tokenizer, texts).tolist() == naive


KNOWN: dict[str, Tokenizer] = {}


def trained(name: str) -> Tokenizer:
    if name not in KNOWN:
        cls = TOKENIZERS.load(name)
        extra = {"vocabulary": 300} if name == "bpe" else {}
        KNOWN[name] = cls.train(["a b, ab.\nb a é\r\na  b\n\n日a b a"] * 9, cls.Settings(**extra))
    return KNOWN[name]


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
@given(given_pieces=lying())
def test_a_tokenizer_learns_the_same_from_stretches_as_from_texts(
    name: str, given_pieces: tuple[list[str], Documents]
) -> None:
    texts, pieces = given_pieces
    cls = TOKENIZERS.load(name)
    settings = cls.Settings(**({"vocabulary": 270} if name == "bpe" else {}))
    whole, streamed = cls.train(texts, settings), cls.train(pieces, settings)
    assert json.dumps(whole.to_json()) == json.dumps(streamed.to_json())


def test_an_empty_piece_has_its_start_id() -> None:
    for name in TOKENIZERS.names():
        tokenizer = trained(name)
        a = tokenizer.encode("a b").tolist()
        start = tokenizer.start
        found = encode_pieces(tokenizer, ["", "a b", "", "", "a b", ""]).tolist()
        assert found == [start, start, *a, start, start, start, *a, start]


def test_a_meter_moves_with_every_reading() -> None:
    meter = ProgressCounter()
    metered = CountedDocuments(["ab", "c"], meter)
    for _ in range(2):
        assert [s.text for s in metered.chunks()] == ["abc"]
        assert meter.done == 3
    assert list(metered) == ["ab", "c"]


def test_excerpts_are_whole_lines_from_all_over_a_piece_and_never_overlap() -> None:
    lines = [f"line {n} is é\n" for n in range(1000)]
    pieces = pieces_of(["".join(lines)], [""], "", 64)
    found = pieces.excerpts(10, 100)
    assert len(found) == 10
    kept = [line for text in found for line in text.splitlines(keepends=True)]
    assert set(kept) <= set(lines)
    assert len(set(kept)) == len(kept)
    assert all(50 < len(text) <= 100 for text in found)
    places = [lines.index(text.splitlines(keepends=True)[0]) for text in found]
    assert np.abs(np.array(places) - np.arange(0, 1000, 100)).max() < 10


def test_an_excerpt_of_a_text_without_line_ends_is_whole_characters() -> None:
    text = "日é" * 500
    found = pieces_of([text], [""], "", 64).excerpts(7, 20)
    assert len(found) == 7
    assert all(excerpt in text and 10 <= len(excerpt) <= 20 for excerpt in found)


def test_many_small_texts_make_few_stretches() -> None:
    chunks = list(chunks_of(f"text {n}\n" for n in range(100_000)))
    assert len(chunks) == 2  # of about a million characters each
    assert all(isinstance(s, Chunk) for s in chunks)
