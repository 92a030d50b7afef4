"""A text read some bytes at a time is what it is when it is read whole."""

import hashlib
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.corpus import BLOCK, CYCLE, HELD_OUT, MINIMUM_CHARACTERS, load_corpus
from lmcli.data.cutting import Digest, cut_blocks, scan
from lmcli.data.reading import Reader, TextOptions
from lmcli.data.texts import Limits, Spool, Text
from lmcli.errors import TextError

# --- everything in memory, in a few lines: what the streaming code must agree with


def naive_text(data: bytes, options: TextOptions, name: str) -> str:
    try:
        text = data.decode(options.encoding, options.errors)
    except UnicodeDecodeError as error:
        rest, wrong = error.object, error.object[error.start]  # without a byte order mark
        place = len(data) - len(rest) + error.start
        raise TextError(
            f"'{name}' is not {options.encoding}: byte 0x{wrong:02x} at offset {place}", ""
        ) from None
    text = text.removeprefix("\ufeff")
    if not text or text.isspace():
        raise TextError(f"'{name}' is empty", "")
    if options.newlines == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


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


def naive_parts(texts: list[str], unit: str, split: str) -> tuple[list[list[str]], str]:
    """The pieces of training, validation and test part, and the checksum."""
    documents = [d for text in texts for d in naive_documents(text, unit)]
    total = sum(map(len, documents))
    if total < MINIMUM_CHARACTERS:
        raise TextError(f"the text is too short: {total} characters", "")
    size = min(BLOCK, total // (CYCLE if split == "interleaved" else 2 * CYCLE))
    units = [
        (owner, block)
        for owner, document in enumerate(documents)
        for block in ([document] if unit != "file" else naive_blocks(document, size))
    ]
    begins = np.cumsum([0, *(len(text) for _, text in units)])[:-1].tolist()
    if split == "tail":
        labels = [(b / total >= 1 - 2 / CYCLE) + (b / total >= 1 - 1 / CYCLE) for b in begins]
    else:
        groups = list(range(len(units)))
        while unit != "file":
            changes = [b // size != a // size for a, b in zip([0, *begins], begins, strict=False)]
            groups = np.cumsum(changes).tolist()
            if groups[-1] + 1 >= CYCLE or size == 1:
                break
            size = max(1, size // 2)
        labels = [{HELD_OUT[0]: 1, HELD_OUT[1]: 2}.get(g % CYCLE, 0) for g in groups]
    if len(set(labels)) < 3:
        raise TextError(f"too few documents for a split: {len(documents)}", "")
    parts: list[list[str]] = [[], [], []]
    labelled = zip(units, labels, strict=True)
    for (_, label), run in groupby(labelled, key=lambda pair: (pair[0][0], pair[1])):
        parts[label].append("".join(text for (_, text), _ in run))
    joined = "\0".join(documents).encode("utf-8", "surrogatepass")
    return parts, hashlib.sha256(joined).hexdigest()


# --- the law

SIGNS = st.text("ab é日\U0001f600\u2003\x85\r\n\n\n\t ", max_size=60)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030", "utf-7"])
NOISE = st.binary(max_size=4)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[bytes], TextOptions]:
    encoding = draw(ENCODINGS)
    contents = []
    for _ in range(draw(st.integers(1, 3))):
        rough = draw(SIGNS) * draw(st.sampled_from([1, 20, 60])) + draw(SIGNS)
        data = rough.encode(encoding)
        place = draw(st.integers(0, len(data)))
        noise = draw(NOISE) if draw(st.integers(0, 4)) == 0 else b""
        contents.append(data[:place] + noise + data[place:])
    options = TextOptions(
        encoding=encoding,
        errors=draw(st.sampled_from(["strict", "replace", "ignore"])),
        newlines=draw(st.sampled_from(["keep", "lf"])),
        documents=draw(st.sampled_from(["file", "line", "paragraph"])),
    )
    return contents, options


@given(
    files(),
    st.sampled_from(["interleaved", "tail"]),
    st.integers(4, 40),
    st.sampled_from([0, 100, 10_000]),
)
def test_parts_are_those_of_texts_read_whole(
    tmp_path_factory: pytest.TempPathFactory,
    given_files: tuple[list[bytes], TextOptions],
    split: str,
    window: int,
    memory: int,
) -> None:
    contents, options = given_files
    folder = tmp_path_factory.mktemp("texts")
    names = [str(folder / f"{i}.txt") for i in range(len(contents))]
    for name, data in zip(names, contents, strict=True):
        Path(name).write_bytes(data)
    problem = None
    try:
        read = zip(names, contents, strict=True)
        texts = [naive_text(data, options, name) for name, data in read]
        parts, sha256 = naive_parts(texts, options.documents, split)
    except TextError as error:
        problem = error.problem
    reader = Reader(Limits(window, memory))
    if problem is not None:
        with pytest.raises(TextError) as caught:
            load_corpus(names, options, split, reader=reader)
        assert caught.value.problem == problem
        return
    corpus = load_corpus(names, options, split, reader=reader)
    assert corpus.sha256 == sha256
    assert corpus.test is not None
    for part, pieces in zip((corpus.train, corpus.valid, corpus.test), parts, strict=True):
        assert list(part.documents) == pieces
        assert [part.documents[i] for i in range(len(pieces))] == pieces
        assert part.chars == sum(map(len, pieces))
        assert part.words == sum(len(p.split()) for p in pieces)
        assert part.bytes == sum(len(p.encode("utf-8", "replace")) for p in pieces)


@pytest.mark.parametrize("documents", ["file", "line", "paragraph"])
@pytest.mark.parametrize("split", ["interleaved", "tail"])
def test_a_text_of_many_blocks_is_split_as_if_read_whole(
    tmp_path: Path, documents: str, split: str
) -> None:
    rng = np.random.default_rng(0)
    words = ["grün", "dos", "日本", "a", "\n", "\n", "\n\n", "  \n", "tre\r\n", "quattro" * 3]
    texts = [" ".join(rng.choice(words, n)) for n in (150_000, 2_000, 90_000)]
    names = [str(tmp_path / f"{i}.txt") for i in range(3)]
    for name, text in zip(names, texts, strict=True):
        Path(name).write_bytes(text.encode())
    parts, sha256 = naive_parts(texts, documents, split)
    reader = Reader(Limits(5000, 200_000))
    corpus = load_corpus(names, TextOptions(documents=documents), split, reader=reader)  # type: ignore[arg-type]
    assert corpus.test is not None
    assert corpus.sha256 == sha256
    found = [list(part.documents) for part in (corpus.train, corpus.valid, corpus.test)]
    assert found == parts


# --- details


def text_of(content: str, window: int = 7) -> Text:
    spool = Spool(1 << 20)
    spool.write(content.encode())
    return Text("a.txt", spool, 0, spool.size, proven=True, window=window)


@given(SIGNS.filter(str.strip), st.integers(4, 20), st.sampled_from(["line", "paragraph"]))
def test_documents_are_counted_and_numbered_by_their_first_line(
    content: str, window: int, unit: str
) -> None:
    units = scan(text_of(content, window), unit, Digest())
    documents = naive_documents(content, unit)
    lines = content.split("\n")
    assert units.chars.tolist() == [len(d) for d in documents]
    firsts = [d.split("\n")[0] for d in documents]
    assert [lines[n - 1] for n in units.numbers.tolist()] == firsts
    assert np.all(np.diff(units.numbers) > 0)


@given(SIGNS.filter(str.strip), st.integers(1, 30), st.integers(4, 20))
def test_blocks_of_any_size_are_those_of_the_whole_text(
    content: str, size: int, window: int
) -> None:
    units = cut_blocks(text_of(content, window), size)
    begins, lengths = units.spans.begins.tolist(), units.spans.lengths.tolist()
    data = content.encode()
    found = [data[b : b + n].decode() for b, n in zip(begins, lengths, strict=True)]
    assert found == naive_blocks(content, size)
    assert units.chars.tolist() == [len(block) for block in found]


def test_every_white_space_makes_a_line_blank() -> None:
    blanks = [chr(c) for c in range(0x110000) if chr(c).isspace() and c != 10]
    content = "".join(f"{blank}\n" for blank in blanks) + "x\n"
    units = scan(text_of(content), "line", Digest())
    assert units.numbers.tolist() == [len(blanks) + 1]


def test_the_digest_of_the_text_alone_is_of_all_its_bytes() -> None:
    own = Digest()
    scan(text_of("a\n\n\nb"), "line", Digest(), own)
    assert own.hexdigest() == hashlib.sha256(b"a\n\n\nb").hexdigest()
