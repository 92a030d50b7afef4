"""Documents read from where they lie are the texts that lie there, in any chunks."""

import json
import tempfile
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.corpus import find_documents, read_documents
from lmcli.data.documents import DocumentOffsets, Documents, find_offsets
from lmcli.data.text import Limits, Text, TextOptions
from lmcli.data.token_cache import encode_documents
from lmcli.errors import TextError
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import Chunk, Tokenizer, chunks_of

PARTS = st.lists(st.text("ab é.,日\U0001f600\r\n\n \t", min_size=1, max_size=40), max_size=12)
ENDING = st.sampled_from(["", "\n", "\n\n"])


def text_of(content: bytes, window: int) -> Text:
    """A text that is held in memory."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return Text("a.txt", Path(file.name), Limits(window), decoded=True)


def documents_of(parts: list[str], between: list[str], ending: str, window: int) -> Documents:
    """Documents in a text with something between them."""
    data, begins = b"", []
    for part, rest in zip(parts, between, strict=True):
        begins.append(len(data))
        data += (part + rest).encode()
    text = text_of(data, window)
    lengths = np.array([len(part.encode()) for part in parts], np.int32)
    chars = np.array([len(part + ending) for part in parts], np.int32)
    return Documents([DocumentOffsets(text, np.array(begins, np.int64), lengths, chars, ending)])


@st.composite
def lying(draw: st.DrawFn) -> tuple[list[str], Documents]:
    """Texts, and the same as documents that lie somewhere."""
    parts, ending = draw(PARTS), draw(ENDING)
    between = [draw(st.sampled_from(["", ending, "zé" * 3])) for _ in parts]
    documents = documents_of(parts, between, ending, draw(st.integers(4, 60)))
    return [part + ending for part in parts], documents


@given(lying())
def test_documents_are_the_texts_that_lie_there(
    given_documents: tuple[list[str], Documents],
) -> None:
    texts, documents = given_documents
    assert list(documents) == texts
    assert [documents[i] for i in range(len(documents))] == texts
    assert documents[-1:] == tuple(texts[-1:])
    assert documents[1:] == tuple(texts[1:])
    assert documents.chars == sum(map(len, texts))
    with pytest.raises(IndexError):
        documents[len(texts)]


@given(lying())
def test_chunks_end_to_end_are_the_documents_end_to_end(
    given_documents: tuple[list[str], Documents],
) -> None:
    texts, documents = given_documents
    chunks = list(documents.chunks())
    assert "".join(s.text for s in chunks) == "".join(texts)
    offsets = np.cumsum([0, *(len(s.text) for s in chunks)])
    begins = [o + b for o, s in zip(offsets, chunks, strict=False) for b in s.begins.tolist()]
    assert begins == np.cumsum([0, *map(len, texts)])[:-1].tolist()
    assert all("".join(s.texts()) == s.text for s in chunks)


@given(lying())
def test_within_lines_documents_begin_after_line_ends_only(
    given_documents: tuple[list[str], Documents],
) -> None:
    for chunk in given_documents[1].chunks():
        parts = list(chunk.lines())
        assert "".join(p.text for p in parts) == chunk.text
        offsets = np.cumsum([0, *(len(p.text) for p in parts)])
        moved = [p.begins + o for p, o in zip(parts, offsets, strict=False)]
        assert np.concatenate(moved).tolist() == chunk.begins.tolist()
        for part in parts:
            assert all(part.text[b - 1] == "\n" for b in part.begins.tolist() if b)


@given(st.integers(4, 50))
def test_a_long_document_is_cut_where_no_tokenizer_looks_across(window: int) -> None:
    text = "one two.  three\r\nfour\nfive\n\n" * 20
    chunks = list(documents_of([text], [""], "", window).chunks())
    assert "".join(s.text for s in chunks) == text
    assert [s.begins.tolist() for s in chunks] == [[0]] + [[]] * (len(chunks) - 1)
    for before, after in pairwise(s.text for s in chunks):
        assert not before[-1].isspace()
        assert after[0] in " \n"
        assert not after[1].isspace()


def test_a_long_document_without_a_safe_split_point_is_cut_anywhere() -> None:
    text = "é" * 5000
    chunks = list(documents_of([text], [""], "\n", 10).chunks())
    assert "".join(s.text for s in chunks) == text + "\n"
    assert max(len(s.text) for s in chunks) <= 64 * 10


@pytest.mark.parametrize("name", TOKENIZERS.names())
@given(given_documents=lying())
def test_ids_of_documents_are_those_of_each_after_a_start_id(
    name: str, given_documents: tuple[list[str], Documents]
) -> None:
    texts, documents = given_documents
    tokenizer = trained(name)
    naive = [i for text in texts for i in (tokenizer.start, *tokenizer.encode(text).tolist())]
    assert encode_documents(tokenizer, documents).tolist() == naive
    assert encode_documents(tokenizer, texts).tolist() == naive


KNOWN: dict[str, Tokenizer] = {}


def trained(name: str) -> Tokenizer:
    if name not in KNOWN:
        cls = TOKENIZERS.load(name)
        extra = {"vocabulary": 300} if name == "bpe" else {}
        KNOWN[name] = cls.train(["a b, ab.\nb a é\r\na  b\n\n日a b a"] * 9, cls.Settings(**extra))
    return KNOWN[name]


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
@given(given_documents=lying())
def test_a_tokenizer_learns_the_same_from_chunks_as_from_texts(
    name: str, given_documents: tuple[list[str], Documents]
) -> None:
    texts, documents = given_documents
    cls = TOKENIZERS.load(name)
    settings = cls.Settings(**({"vocabulary": 270} if name == "bpe" else {}))
    whole, streamed = cls.train(texts, settings), cls.train(documents, settings)
    assert json.dumps(whole.to_json()) == json.dumps(streamed.to_json())


def test_an_empty_document_has_its_start_id() -> None:
    for name in TOKENIZERS.names():
        tokenizer = trained(name)
        a = tokenizer.encode("a b").tolist()
        start = tokenizer.start
        found = encode_documents(tokenizer, ["", "a b", "", "", "a b", ""]).tolist()
        assert found == [start, start, *a, start, start, start, *a, start]


def test_excerpts_are_whole_lines_from_all_over_a_document_and_never_overlap() -> None:
    lines = [f"line {n} is é\n" for n in range(1000)]
    documents = documents_of(["".join(lines)], [""], "", 64)
    found = documents.excerpts(10, 100)
    assert len(found) == 10
    kept = [line for text in found for line in text.splitlines(keepends=True)]
    assert set(kept) <= set(lines)
    assert len(set(kept)) == len(kept)
    assert all(50 < len(text) <= 100 for text in found)
    places = [lines.index(text.splitlines(keepends=True)[0]) for text in found]
    assert np.abs(np.array(places) - np.arange(0, 1000, 100)).max() < 10


def test_an_excerpt_of_a_text_without_line_ends_is_whole_characters() -> None:
    text = "日é" * 500
    found = documents_of([text], [""], "", 64).excerpts(7, 20)
    assert len(found) == 7
    assert all(excerpt in text and 10 <= len(excerpt) <= 20 for excerpt in found)


def test_many_small_texts_make_few_chunks() -> None:
    chunks = list(chunks_of(f"text {n}\n" for n in range(100_000)))
    assert len(chunks) == 2  # of about a million characters each
    assert all(isinstance(s, Chunk) for s in chunks)


# --- where documents begin and end

SIGNS = st.text("ab é日\U0001f600\u2003\x85\r\n\n\n\t ", max_size=60)


def write(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts_of(*texts: str, **options: str) -> list[str]:
    return read_documents(texts, TextOptions(**options))


def named(*texts: str, **options: str) -> list[tuple[str, str]]:
    """Names and documents."""
    return list(zip(*find_documents(texts, TextOptions(**options)), strict=True))


def problem(*texts: str, **options: str) -> TextError:
    with pytest.raises(TextError) as caught:
        read_documents(texts, TextOptions(**options))
    for line in (caught.value.problem, caught.value.hint):
        assert line
        assert not line.endswith(".")
    return caught.value


def naive_documents(text: str, unit: str) -> list[str]:
    if unit == "file":
        return [text]
    lines = text.split("\n")
    full = [bool(line) and not line.isspace() for line in lines]
    if unit == "line":
        return [line + "\n" for line, kept in zip(lines, full, strict=True) if kept]
    found = []
    for kept, run in groupby(zip(lines, full, strict=True), key=lambda pair: pair[1]):
        if kept:
            found.append("\n".join(line for line, _ in run) + "\n\n")
    return found


def naive_blocks(text: str, size: int) -> list[str]:
    begin, blocks = 0, []
    while begin < len(text):
        end = begin + size
        if end < len(text):
            least = begin + (size + 1) // 2
            end = text.rfind("\n", least, end) + 1 or max(0, text.rfind(" ", least, end)) or end
        blocks.append(text[begin:end])
        begin = end
    return blocks


def test_a_line_is_a_document_with_its_line_end(folder: Path) -> None:
    write("a.txt", "emma\n\n  \nolivia\r\nava")
    assert named("a.txt", documents="line") == [
        ("a.txt:1", "emma\n"),
        ("a.txt:4", "olivia\r\n"),
        ("a.txt:5", "ava\n"),
    ]


def test_only_line_ends_part_lines(folder: Path) -> None:
    write("a.txt", "one\x0btwo\u2028three\n")
    assert texts_of("a.txt", documents="line") == ["one\x0btwo\u2028three\n"]


def test_a_paragraph_is_a_document_that_ends_in_one_blank_line(folder: Path) -> None:
    write("a.txt", "\na\nb\n\n\t\n\nc\n")
    assert named("a.txt", documents="paragraph") == [
        ("a.txt:2", "a\nb\n\n"),
        ("a.txt:7", "c\n\n"),
    ]


@pytest.mark.parametrize("text", ["", "  \n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_text_is_an_error(folder: Path, text: str | bytes) -> None:
    what = (
        "holds nothing but blanks and line ends" if isinstance(text, str) and text else "is empty"
    )
    assert problem(write("a.txt", text)).problem == f"'a.txt' {what}"


def blocks_of(content: str, size: int, window: int) -> DocumentOffsets:
    return find_offsets(text_of(content.encode(), window), "file", ProgressCounter(), None, size)


@given(SIGNS.filter(str.strip), st.integers(4, 20), st.sampled_from(["line", "paragraph"]))
def test_documents_are_counted_and_numbered_by_their_first_line(
    content: str, window: int, unit: str
) -> None:
    found = find_offsets(text_of(content.encode(), window), unit, ProgressCounter())
    documents = naive_documents(content, unit)
    lines = content.split("\n")
    assert found.chars.tolist() == [len(d) for d in documents]
    firsts = [d.split("\n")[0] for d in documents]
    numbers = [int(name.removeprefix("a.txt:")) for name in found.names()]
    assert [lines[n - 1] for n in numbers] == firsts
    assert np.all(np.diff(numbers) > 0)


@given(SIGNS.filter(str.strip), st.integers(1, 30), st.integers(4, 20))
def test_blocks_of_any_size_are_those_of_the_whole_text(
    content: str, size: int, window: int
) -> None:
    blocks = blocks_of(content, size, window)
    begins, lengths = blocks.begins.tolist(), blocks.lengths.tolist()
    data = content.encode()
    found = [data[b : b + n].decode() for b, n in zip(begins, lengths, strict=True)]
    assert found == naive_blocks(content, size)
    assert blocks.chars.tolist() == [len(block) for block in found]


@given(SIGNS.filter(str.strip), st.integers(1, 9), st.data())
def test_merged_blocks_are_the_same_text(content: str, size: int, data: st.DataObject) -> None:
    blocks = blocks_of(content, size, 7)
    inner = st.integers(0, len(blocks.begins) - 1)
    firsts = np.array(sorted(data.draw(st.sets(inner)) | {0}))
    merged = blocks.merge(firsts)
    documents = list(Documents([merged]))
    assert "".join(documents) == content
    assert len(documents) == len(firsts)
    assert merged.chars.tolist() == [len(d) for d in documents]


def test_every_white_space_makes_a_line_blank() -> None:
    blanks = [chr(c) for c in range(0x110000) if chr(c).isspace() and c != 10]
    content = "".join(f"{blank}\n" for blank in blanks) + "x\n"
    found = find_offsets(text_of(content.encode(), 7), "line", ProgressCounter())
    assert list(found.names()) == [f"a.txt:{len(blanks) + 1}"]
