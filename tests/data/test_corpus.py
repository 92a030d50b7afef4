"""Texts are read from anywhere and split so that no held-out character is trained on."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from lmcli.data.corpus import (
    BLOCK,
    MINIMUM_CHARACTERS,
    Corpus,
    Split,
    SplitRecord,
    load_corpus,
)
from lmcli.data.reading import Document, TextOptions, read_documents
from lmcli.errors import TextError


def numbered_lines(count: int, width: int = 40) -> str:
    """Lines without a stretch of ten characters that comes twice."""
    digits = (hashlib.sha512(b"%d" % n).hexdigest() * 4 for n in range(count))
    return "".join(f"{n:06d} {letters}"[: width - 1] + "\n" for n, letters in enumerate(digits))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts_of(*texts: str, **options: str) -> list[str]:
    return [d.text for d in read_documents(texts, TextOptions(**options))]


def load(*texts: str, split: str = "interleaved", valid=(), test=(), **options: str) -> Corpus:
    return load_corpus(texts, TextOptions(**options), split, valid, test)


def problem(*texts: str, **options: str) -> TextError:
    with pytest.raises(TextError) as caught:
        read_documents(texts, TextOptions(**options))
    for line in (caught.value.problem, caught.value.hint):
        assert line
        assert not line.endswith(".")
    return caught.value


def in_order(corpus: Corpus, text: str) -> str:
    """All pieces of all parts, put together by where they stand in the text."""
    parts = [corpus.train, corpus.valid, corpus.test]
    pieces = [piece for part in parts if part for piece in part.documents]
    return "".join(sorted(pieces, key=text.index))


# --- reading


def test_several_files_are_documents_in_the_given_order(folder: Path) -> None:
    write("b.txt", "second"), write("a.txt", "first")
    assert read_documents(["b.txt", "a.txt"], TextOptions()) == [
        Document("b.txt", "second"),
        Document("a.txt", "first"),
    ]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    write("a.txt", "one"), write("b.txt", "two")
    assert texts_of("a.txt", "./a.txt", "*.txt") == ["one", "two"]


def test_a_glob_is_sorted(folder: Path) -> None:
    for name in ("c", "a", "b"):
        write(f"{name}.txt", name)
    assert texts_of("*.txt") == ["a", "b", "c"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    write("a[1].txt", "brackets"), write("a1.txt", "other")
    assert texts_of("a[1].txt") == ["brackets"]


def test_a_folder_gives_its_texts_sorted_and_nothing_else(folder: Path) -> None:
    write("f/b.txt", "b"), write("f/a.txt.gz", gzip.compress(b"a"))
    write("f/notes.md", "no"), write("f/.hidden.txt", "no"), write("f/deeper/c.txt", "no")
    assert texts_of("f") == ["a", "b"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_are_unpacked(folder: Path, suffix: str, pack) -> None:
    assert texts_of(write(f"a.txt.{suffix}", pack("naïve".encode()))) == ["naïve"]


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("from a pipe é".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_documents(["-"], TextOptions()) == [Document("-", "from a pipe é")]


def test_urls_go_through_fsspec_compressed_or_not() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/lmcli/a.txt", b"plain")
    files.pipe("/lmcli/b.txt.gz", gzip.compress(b"packed"))
    assert texts_of("memory://lmcli/a.txt", "memory://lmcli/b.txt.gz") == ["plain", "packed"]
    assert texts_of("memory://lmcli/*") == ["plain", "packed"]


def test_the_byte_order_mark_is_dropped(folder: Path) -> None:
    write("a.txt", b"\xef\xbb\xbfhello"), write("b.txt", "hello".encode("utf-16"))
    assert texts_of("a.txt") == ["hello"]
    assert texts_of("b.txt", encoding="utf-16") == ["hello"]


def test_line_ends_are_kept_unless_lf_is_asked_for(folder: Path) -> None:
    write("a.txt", b"a\r\nb\rc\n")
    assert texts_of("a.txt") == ["a\r\nb\rc\n"]
    assert texts_of("a.txt", newlines="lf") == ["a\nb\nc\n"]


def test_other_encodings_and_error_handlings(folder: Path) -> None:
    write("a.txt", b"caf\xe9")
    assert texts_of("a.txt", encoding="latin-1") == ["café"]
    assert texts_of("a.txt", errors="replace") == ["caf\N{REPLACEMENT CHARACTER}"]
    assert texts_of("a.txt", errors="ignore") == ["caf"]


def test_a_line_is_a_document_with_its_line_end(folder: Path) -> None:
    write("a.txt", "emma\n\n  \nolivia\r\nava")
    assert read_documents(["a.txt"], TextOptions(documents="line")) == [
        Document("a.txt:1", "emma\n"),
        Document("a.txt:4", "olivia\r\n"),
        Document("a.txt:5", "ava\n"),
    ]


def test_only_line_ends_part_lines(folder: Path) -> None:
    write("a.txt", "one\x0btwo\u2028three\n")
    assert texts_of("a.txt", documents="line") == ["one\x0btwo\u2028three\n"]


def test_a_paragraph_is_a_document_that_ends_in_one_blank_line(folder: Path) -> None:
    write("a.txt", "\na\nb\n\n\t\n\nc\n")
    assert read_documents(["a.txt"], TextOptions(documents="paragraph")) == [
        Document("a.txt:2", "a\nb\n\n"),
        Document("a.txt:7", "c\n\n"),
    ]


# --- what can go wrong


def test_a_missing_file_names_the_nearest(folder: Path) -> None:
    write("shakespeare.txt", "x")
    error = problem("shakespear.txt")
    assert error.problem == "no file named 'shakespear.txt'"
    assert error.hint == "did you mean 'shakespeare.txt'?"


def test_a_missing_folder_is_named(folder: Path) -> None:
    assert problem("nowhere/a.txt").hint == "there is no folder named 'nowhere'"


@pytest.mark.parametrize("text", ["", "  \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_text_is_an_error(folder: Path, text: str | bytes) -> None:
    assert problem(write("a.txt", text)).problem == "'a.txt' is empty"


def test_a_folder_without_texts_is_an_error(folder: Path) -> None:
    write("f/a.md", "x")
    assert problem("f").problem == "no texts in folder 'f'"


def test_a_pattern_that_matches_nothing_is_an_error(folder: Path) -> None:
    assert problem("*.txt").problem == "no file matches '*.txt'"
    assert problem("memory://no-such-folder/*.txt").problem.startswith("no file matches")


def test_no_text_at_all_is_an_error() -> None:
    assert problem().problem == "no text given"


def test_bytes_that_are_no_text_are_named_with_their_offset(folder: Path) -> None:
    error = problem(write("a.txt", b"caf\xe9 x"))
    assert error.problem == "'a.txt' is not utf-8: byte 0xe9 at offset 3"
    assert "--encoding" in error.hint
    assert "--errors replace" in error.hint


def test_a_utf_16_text_is_recognised_in_the_hint(folder: Path) -> None:
    assert "--encoding utf-16" in problem(write("a.txt", "hello".encode("utf-16"))).hint


@pytest.mark.parametrize("encoding", ["utf8x", "base64", "idna\0"])
def test_an_unknown_encoding_is_an_error(folder: Path, encoding: str) -> None:
    write("a.txt", "x")
    assert problem("a.txt", encoding=encoding).problem == f"no encoding named '{encoding}'"


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_file_that_does_not_unpack_is_damaged(folder: Path, suffix: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[suffix]
    whole = pack(b"hello " * 1000)
    for name, data in {"cut": whole[:-6], "other": b"not packed", "void": b""}.items():
        error = problem(write(f"{name}.txt.{suffix}", data))
        assert "damaged" in error.problem or "empty" in error.problem


@pytest.mark.parametrize(
    "url", ["nosuch://a.txt", "memory://none.txt", "nosuch://*", "http://127.0.0.1:9/a.txt"]
)
def test_a_url_that_fails_is_an_error(url: str) -> None:
    assert problem(url).problem.startswith(f"cannot read '{url}': ")


def test_a_path_that_no_file_can_have_is_an_error(folder: Path) -> None:
    write("a.txt", "x")
    problem("a.txt/b.txt")
    problem("x" * 5000)
    problem("a\0.txt")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_an_error(folder: Path) -> None:
    write("f/a.txt", "x")
    Path("f/a.txt").chmod(0)
    assert problem("f").problem == "cannot read 'f/a.txt': permission denied"
    Path("f").chmod(0)
    assert problem("f").problem == "cannot read 'f': permission denied"
    Path("f").chmod(0o700)


# --- parts


def test_a_part_counts_characters_bytes_and_words() -> None:
    part = Split(("naïve café\n", "two  words"))
    assert (part.chars, part.bytes, part.words) == (21, 23, 4)
    assert (Split(()).chars, Split(()).bytes, Split(()).words) == (0, 0, 0)


def test_words_of_a_long_text_are_counted_like_those_of_a_short_one() -> None:
    text = "".join(np.random.default_rng(0).choice(["ab", " ", "\n", "c"], 2_000_000))
    assert Split((text,)).words == len(text.split())


def test_interleaved_blocks_are_cut_at_line_ends_and_lose_nothing(folder: Path) -> None:
    text = numbered_lines(10_000)  # 400,000 characters: 40 blocks and a bit
    corpus = load(write("a.txt", text))
    assert corpus.test is not None
    assert in_order(corpus, text) == text
    for part in (corpus.train, corpus.valid, corpus.test):
        assert all(piece.endswith("\n") for piece in part.documents)
    assert corpus.valid.documents[0] == text[9 * BLOCK : 10 * BLOCK]
    assert corpus.test.documents[0] == text[10 * BLOCK : 11 * BLOCK]
    assert corpus.train.documents[0] == text[: 9 * BLOCK]
    assert (corpus.valid.chars, corpus.test.chars) == (2 * BLOCK, 2 * BLOCK)


@pytest.mark.parametrize("split", ["interleaved", "tail"])
@pytest.mark.parametrize("lines", [10, 50, 333, 4000])
def test_held_out_parts_are_about_a_twentieth_and_never_overlap(
    folder: Path, split: str, lines: int
) -> None:
    text = numbered_lines(lines)
    corpus = load(write("a.txt", text), split=split)
    assert corpus.test is not None
    assert in_order(corpus, text) == text
    assert corpus.train.chars + corpus.valid.chars + corpus.test.chars == len(text)
    for part in (corpus.valid, corpus.test):
        assert 0.02 <= part.chars / len(text) <= 0.09


def test_the_tail_split_takes_the_end(folder: Path) -> None:
    text = numbered_lines(5000)
    corpus = load(write("a.txt", text), split="tail")
    assert corpus.test is not None
    assert text == "".join(corpus.train.documents + corpus.valid.documents + corpus.test.documents)
    assert (
        len(corpus.train.documents)
        == len(corpus.valid.documents)
        == len(corpus.test.documents)
        == 1
    )


def test_a_text_without_line_ends_is_cut_before_blanks_else_anywhere(folder: Path) -> None:
    words = " ".join(f"word{n}" for n in range(20_000))
    corpus = load(write("a.txt", words))
    assert in_order(corpus, words) == words
    assert all(piece.startswith(" ") for piece in corpus.valid.documents)
    solid = "".join(f"{n:05d}" for n in range(20_000))
    corpus = load(write("b.txt", solid))
    assert in_order(corpus, solid) == solid
    assert len(corpus.valid.documents[0]) == 5000


def test_blocks_do_not_reach_over_files(folder: Path) -> None:
    texts = [numbered_lines(30, 41 + n) for n in range(40)]
    for n, text in enumerate(texts):
        write(f"{n:02d}.txt", text)
    corpus = load("*.txt")
    assert corpus.test is not None
    for piece in corpus.train.documents + corpus.valid.documents + corpus.test.documents:
        assert sum(piece in text for text in texts) == 1


@pytest.mark.parametrize("split", ["interleaved", "tail"])
@pytest.mark.parametrize(("count", "width"), [(20, 400), (30, 60), (3000, 40), (11, 80)])
def test_documents_are_never_cut(folder: Path, split: str, count: int, width: int) -> None:
    lines = numbered_lines(count, width).splitlines(keepends=True)
    write("a.txt", "".join(lines))
    if split == "tail" and count == 11:
        with pytest.raises(TextError, match="too few documents"):
            load("a.txt", split=split, documents="line")
        return
    corpus = load("a.txt", split=split, documents="line")
    assert corpus.test is not None
    pieces = corpus.train.documents + corpus.valid.documents + corpus.test.documents
    assert sorted(pieces) == sorted(lines)


def test_too_short_a_text_says_how_much_is_needed(folder: Path) -> None:
    write("a.txt", "x" * 123)
    with pytest.raises(TextError) as caught:
        load("a.txt")
    assert caught.value.problem == "the text is too short: 123 characters"
    assert str(MINIMUM_CHARACTERS) in caught.value.hint
    write("b.txt", "x" * MINIMUM_CHARACTERS)
    assert load("b.txt").valid.chars > 0


def test_too_few_documents_is_an_error(folder: Path) -> None:
    write("a.txt", numbered_lines(5, 200))
    with pytest.raises(TextError, match="too few documents for a split: 5"):
        load("a.txt", documents="line")


# --- parts given outright


def test_given_parts_are_taken_whole(folder: Path) -> None:
    write("a.txt", "train"), write("v.txt", "valid"), write("t.txt", "test")
    corpus = load("a.txt", valid=["v.txt"], test=["t.txt"])
    assert corpus.train.documents == ("train",)
    assert corpus.valid.documents == ("valid",)
    assert corpus.test == Split(("test",))
    assert corpus.split.valid is not None
    assert corpus.split.valid.names == ("v.txt",)
    assert corpus.split.valid.sha256 == hashlib.sha256(b"valid").hexdigest()


def test_with_validation_alone_all_of_the_text_is_training(folder: Path) -> None:
    write("a.txt", "train"), write("v.txt", "valid")
    corpus = load("a.txt", valid=["v.txt"])
    assert corpus.train.documents == ("train",)
    assert corpus.test is None


@pytest.mark.parametrize("split", ["interleaved", "tail"])
def test_with_test_alone_validation_is_cut_off_the_text(folder: Path, split: str) -> None:
    text = numbered_lines(4000)
    write("a.txt", text), write("t.txt", "test")
    corpus = load("a.txt", split=split, test=["t.txt"])
    assert corpus.test == Split(("test",))
    assert corpus.train.chars + corpus.valid.chars == len(text)
    assert 0.03 < corpus.valid.chars / len(text) < 0.07


def test_the_same_text_in_two_parts_is_an_error(folder: Path) -> None:
    write("a.txt", "same"), write("copy.txt", "same"), write("b.txt", "other")
    for parts in ({"valid": ["a.txt"]}, {"test": ["copy.txt"]}):
        with pytest.raises(TextError, match="the same text is in two parts"):
            load("a.txt", "b.txt", **parts)
    with pytest.raises(TextError, match="the same text is in two parts"):
        load("b.txt", valid=["a.txt"], test=["copy.txt"])


# --- identity


def test_the_sha256_is_of_the_content_and_not_of_the_path(folder: Path) -> None:
    text = numbered_lines(50)
    write("a.txt", text), write("elsewhere/b.txt", text)
    assert load("a.txt").sha256 == load("elsewhere/b.txt").sha256
    assert load("a.txt").sha256 == hashlib.sha256(text.encode()).hexdigest()
    before = load("a.txt").sha256
    write("a.txt", text.replace("000007", "000008"))
    assert load("a.txt").sha256 != before


def test_where_one_file_ends_and_the_next_begins_counts(folder: Path) -> None:
    lines = numbered_lines(50).splitlines(keepends=True)
    for folder_name, cut in (("one", 20), ("two", 30)):
        write(f"{folder_name}/a.txt", "".join(lines[:cut]))
        write(f"{folder_name}/b.txt", "".join(lines[cut:]))
    assert load("one").sha256 != load("two").sha256


def test_the_split_record_goes_through_json(folder: Path) -> None:
    write("a.txt", numbered_lines(50)), write("t.txt", "test")
    record = load("a.txt", test=["t.txt"], newlines="lf").split
    assert SplitRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.kind == "interleaved"
    assert record.options.newlines == "lf"
    assert record.test is not None


# --- samples


def test_a_part_is_its_own_sample_where_it_is_small(folder: Path) -> None:
    part = load(write("a.txt", numbered_lines(100))).train
    assert part.sample(part.chars) is part


def test_a_sample_of_many_pieces_is_every_so_many_of_them(folder: Path) -> None:
    part = load(write("a.txt", numbered_lines(5000)), documents="line").train
    sample = part.sample(part.chars // 10)
    pieces = list(part.documents)
    places = [pieces.index(piece) for piece in sample.documents]
    assert 0.095 < sample.chars / part.chars <= 0.1
    assert places == sorted(set(places))
    assert set(np.diff(places).tolist()) <= {9, 10, 11}


def test_a_sample_of_one_long_piece_is_lines_from_all_over_it(folder: Path) -> None:
    text = numbered_lines(5000)
    part = load(write("a.txt", text), split="tail").train
    sample = part.sample(part.chars // 10)
    assert len(part.documents) == 1
    assert len(sample.documents) == 64
    assert 0.06 < sample.chars / part.chars <= 0.1
    lines = "".join(sample.documents).splitlines()
    assert set(lines) <= set(text.splitlines())
    assert len(set(lines)) == len(lines)
    assert max(map(text.index, sample.documents)) > 0.95 * part.chars
