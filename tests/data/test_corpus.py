"""A text read some bytes at a time has the parts that it has when it is read whole."""

import gzip
import hashlib
import json
import os
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.corpus import (
    Corpus,
    CorpusSpec,
    folders,
    load_corpus,
    recorded_spec,
    reopen_corpus,
)
from lmcli.data.documents import BLOCK
from lmcli.data.split import CYCLE, HELD_OUT, MINIMUM_CHARACTERS
from lmcli.data.text import Limits, TextOptions
from lmcli.errors import TextError
from lmcli.report.progress import Stage


def numbered_lines(count: int, width: int = 40) -> str:
    """Lines without ten characters in a row that comes twice."""
    digits = (hashlib.sha512(b"%d" % n).hexdigest() * 4 for n in range(count))
    return "".join(f"{n:06d} {letters}"[: width - 1] + "\n" for n, letters in enumerate(digits))


def write(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(*texts: str, split: str = "interleaved", valid=(), test=(), **options: str) -> Corpus:
    return load_corpus(CorpusSpec(texts, TextOptions(**options), split, tuple(valid), tuple(test)))


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
        what = "holds nothing but blanks and line ends" if text else "is empty"
        raise TextError(f"'{name}' {what}", "")
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
    """The documents of training, validation and test part, and the checksum."""
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
    spec, limits = CorpusSpec(tuple(names), options, split), Limits(window, memory)
    if problem is not None:
        with pytest.raises(TextError) as caught:
            load_corpus(spec, limits=limits)
        assert caught.value.problem == problem
        return
    corpus = load_corpus(spec, limits=limits)
    assert corpus.spec.sha256 == sha256
    assert corpus.test is not None
    for part, documents in zip((corpus.train, corpus.valid, corpus.test), parts, strict=True):
        assert list(part.documents) == documents
        assert [part.documents[i] for i in range(len(documents))] == documents
        assert part.chars == sum(map(len, documents))


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
    options = TextOptions(documents=documents)
    corpus = load_corpus(CorpusSpec(tuple(names), options, split), limits=Limits(5000, 200_000))
    assert corpus.test is not None
    assert corpus.spec.sha256 == sha256
    found = [list(part.documents) for part in (corpus.train, corpus.valid, corpus.test)]
    assert found == parts


# --- parts given outright, and identity


def test_given_parts_are_taken_whole(folder: Path) -> None:
    write("a.txt", "train"), write("v.txt", "valid"), write("t.txt", "test")
    corpus = load("a.txt", valid=["v.txt"], test=["t.txt"])
    parts = {name: list(part.documents) for name, part in corpus.parts().items()}
    assert parts == {"train": ["train"], "valid": ["valid"], "test": ["test"]}
    assert corpus.spec.valid == ("v.txt",)
    assert corpus.spec.valid_sha256 == hashlib.sha256(b"valid").hexdigest()
    assert corpus.spec.test_sha256 == hashlib.sha256(b"test").hexdigest()


def test_with_validation_alone_all_of_the_text_is_training(folder: Path) -> None:
    write("a.txt", "train"), write("v.txt", "valid")
    corpus = load("a.txt", valid=["v.txt"])
    assert list(corpus.train.documents) == ["train"]
    assert corpus.test is None


@pytest.mark.parametrize("split", ["interleaved", "tail"])
def test_with_test_alone_validation_is_cut_off_the_text(folder: Path, split: str) -> None:
    text = numbered_lines(4000)
    write("a.txt", text), write("t.txt", "test")
    corpus = load("a.txt", split=split, test=["t.txt"])
    assert corpus.test is not None
    assert list(corpus.test.documents) == ["test"]
    assert corpus.train.chars + corpus.valid.chars == len(text)
    assert 0.03 < corpus.valid.chars / len(text) < 0.07


def test_the_same_text_in_two_parts_is_an_error(folder: Path) -> None:
    write("a.txt", "same"), write("copy.txt", "same"), write("b.txt", "other")
    for parts in ({"valid": ["a.txt"]}, {"test": ["copy.txt"]}):
        with pytest.raises(TextError, match="the same text is in two parts"):
            load("a.txt", "b.txt", **parts)
    with pytest.raises(TextError, match="the same text is in two parts"):
        load("b.txt", valid=["a.txt"], test=["copy.txt"])


def test_the_sha256_is_of_the_content_and_not_of_the_path(folder: Path) -> None:
    text = numbered_lines(50)
    write("a.txt", text), write("elsewhere/b.txt", text)
    assert load("a.txt").spec.sha256 == load("elsewhere/b.txt").spec.sha256
    assert load("a.txt").spec.sha256 == hashlib.sha256(text.encode()).hexdigest()
    before = load("a.txt").spec.sha256
    write("a.txt", text.replace("000007", "000008"))
    assert load("a.txt").spec.sha256 != before


def test_where_one_file_ends_and_the_next_begins_counts(folder: Path) -> None:
    lines = numbered_lines(50).splitlines(keepends=True)
    for folder_name, cut in (("one", 20), ("two", 30)):
        write(f"{folder_name}/a.txt", "".join(lines[:cut]))
        write(f"{folder_name}/b.txt", "".join(lines[cut:]))
    assert load("one").spec.sha256 != load("two").spec.sha256


def test_the_spec_of_a_corpus_goes_through_json(folder: Path) -> None:
    write("a.txt", numbered_lines(50)), write("t.txt", "test")
    spec = load("a.txt", test=["t.txt"], newlines="lf").spec
    assert CorpusSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert (spec.split, spec.options.newlines, spec.test) == ("interleaved", "lf", ("t.txt",))
    assert None not in (spec.sha256, spec.test_sha256)
    assert spec.valid_sha256 is None


def test_what_a_run_recorded_is_read(folder: Path) -> None:
    options = {"encoding": "utf-8", "errors": "strict", "newlines": "keep", "documents": "line"}
    recorded = {"texts": ["a.txt"], "options": options, "split": "tail", "valid": [], "test": []}
    recorded |= {"sha256": "ab", "valid_sha256": None, "test_sha256": None}
    spec = CorpusSpec.from_json(recorded)
    assert spec == CorpusSpec(("a.txt",), TextOptions(documents="line"), "tail", sha256="ab")
    assert spec.to_json() == recorded | {"rotation": 0}  # which a run of before 0.2 has not
    for missing in ("sha256", "valid_sha256", "test_sha256"):
        del recorded[missing]
    assert CorpusSpec.from_json(recorded).sha256 is None


def test_a_corpus_that_is_split_again_is_the_same_and_is_not_tokenized(folder: Path) -> None:
    text = numbered_lines(500)
    corpus = load(write("a.txt", text), split="tail")
    write("b.txt", text)
    for texts in ((), ("b.txt",)):
        again = reopen_corpus(corpus.spec.to_json(), "runs/a", texts)
        assert again.names == (texts or ("a.txt",))
        assert list(again.parts()) == ["train", "valid", "test"]
        for name, part in corpus.parts().items():
            assert list(again.parts()[name].documents) == list(part.documents)
    assert not Path(os.environ["LMCLI_CACHE"]).exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.txt", "the text"), ("v.txt", "the validation text"), ("t.txt", "the test text")],
)
def test_a_text_that_has_changed_since_is_noticed_in_every_part(
    folder: Path, name: str, what: str
) -> None:
    write("a.txt", "train"), write("v.txt", "valid"), write("t.txt", "test")
    recorded = load("a.txt", valid=["v.txt"], test=["t.txt"]).spec.to_json()
    with Path(name).open("a") as file:
        file.write(" more")
    with pytest.raises(TextError) as caught:
        reopen_corpus(recorded, "runs/a")
    assert caught.value.problem == f"{what} has changed since 'runs/a' was trained on it"


def test_standard_input_is_gone_when_a_corpus_is_read_again() -> None:
    recorded = CorpusSpec(("-",)).to_json()
    with pytest.raises(TextError, match="'runs/a' was trained on standard input, which is gone"):
        reopen_corpus(recorded, "runs/a")


def test_a_file_that_changes_after_it_was_split_is_noticed(folder: Path) -> None:
    text = numbered_lines(500)
    spec = CorpusSpec((write("a.txt", text),))
    held, read = load_corpus(spec), load_corpus(spec, limits=Limits(memory=0))
    status = Path("a.txt").stat()
    write("a.txt", text.replace("000007", "000008"))
    os.utime("a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and same time
    held.check_unchanged()  # all of it is in memory
    with pytest.raises(TextError, match=r"'a.txt' has changed while it was read"):
        read.check_unchanged()


def test_reading_reports_how_far_it_is(folder: Path) -> None:
    text = numbered_lines(500)
    stages: list[Stage] = []
    load_corpus(CorpusSpec((write("a.txt", text),)), stages.append)
    assert stages[0] == Stage("reading", 0, len(text), "MB")
    assert stages[-1] == Stage("reading", len(text), len(text), "MB")
    write("b.txt.gz", gzip.compress(text.encode()))
    load_corpus(CorpusSpec(("b.txt.gz",)), stages.append)
    assert Stage("fetching", 0, 0, "MB") in stages


# --- opened again, for a run


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.txt", "memory://a.txt", "reference://k::file:///a.json"]
)
@pytest.mark.parametrize("part", ["texts", "valid", "test"])
def test_an_address_that_a_run_records_is_opened_only_if_it_is_named(
    folder: Path, address: str, part: str
) -> None:
    write("a.txt", numbered_lines(50))
    recorded = CorpusSpec(("a.txt",)).to_json() | {part: [address]}
    with pytest.raises(TextError, match="opened only if you name it") as caught:
        reopen_corpus(recorded, Path("run"))
    assert address in caught.value.hint
    with pytest.raises(TextError, match=r"cannot read|not opened") as caught:  # it was tried
        reopen_corpus(recorded, Path("run"), named=[address])
    assert "name it" not in caught.value.problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_recorded_text_that_is_no_file_is_not_opened(folder: Path) -> None:
    os.mkfifo("pipe")
    with pytest.raises(TextError, match="which is no file"):
        reopen_corpus(CorpusSpec(("pipe",)).to_json(), Path("run"))


def test_recorded_texts_are_found_from_anywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("work/texts/a.txt", numbered_lines(50))
    write("work/texts/b.txt", "b")
    monkeypatch.chdir("work")
    recorded = CorpusSpec(("texts/a.txt", "texts/*.txt")).to_json()
    recorded["folders"] = folders(Path("runs/a"))
    Path("runs/a").mkdir(parents=True)
    assert recorded_spec(recorded, Path("runs/a")).texts == ("texts/a.txt", "texts/*.txt")
    monkeypatch.chdir(folder)  # from another folder
    names = recorded_spec(recorded, Path("work/runs/a")).texts
    assert [Path(name).resolve() for name in names] == [
        folder / "work/texts/a.txt",
        folder / "work/texts/*.txt",
    ]
    Path("work").rename("moved")  # with its texts
    names = recorded_spec(recorded, Path("moved/runs/a")).texts
    assert Path(names[0]).resolve() == folder / "moved/texts/a.txt"
    Path("moved/runs/a").rename("alone")  # the run alone
    Path("moved").rename("work")
    names = recorded_spec(recorded, Path("alone")).texts
    assert Path(names[0]).resolve() == folder / "work/texts/a.txt"
    Path("work").rename("gone")
    write("texts/a.txt", numbered_lines(50))
    assert recorded_spec(recorded, Path("alone")).texts[0] == "texts/a.txt"  # as it was typed


SPLITS = [
    {"split": split, "rotation": rotation} | {name: (f"{name}.txt",) for name in files}
    for split in ("interleaved", "tail")
    for rotation in (0, 1)
    for files in ((), ("valid",), ("test",), ("valid", "test"))
]


@pytest.mark.parametrize("mine", SPLITS, ids=str)
def test_what_a_run_has_seen_of_another_split_is_known(tmp_path, monkeypatch, mine):
    monkeypatch.chdir(tmp_path)
    text = "".join(f"line {i} of a text that has many of them.\n" for i in range(3000))
    Path("my.txt").write_text(text, encoding="utf-8")
    for name in ("valid", "test"):
        Path(f"{name}.txt").write_text(f"lines of another {name}\n" * 20, encoding="utf-8")
    own = load_corpus(CorpusSpec(("my.txt",), **mine))
    trained, validated = ("".join(part.documents) for part in (own.train, own.valid))
    for others in SPLITS:
        other = load_corpus(CorpusSpec(("my.txt",), **others))
        for part in ("valid", "test"):
            held_out = other.parts().get(part)
            cut = bool(held_out) and not others.get(part)
            assert other.spec.cuts(part) == cut
            if others.get(part):  # a file that no other run has read
                assert not own.spec.has_seen(part, other.spec)
                continue
            known = trained + validated if part == "test" else trained
            seen = bool(cut and held_out.documents[0][200:400] in known)
            assert own.spec.has_seen(part, other.spec) == seen, (others, part)


def test_a_file_that_another_run_has_learnt_from_has_been_seen():
    named = {"sha256": "a", "valid_sha256": "v", "test_sha256": "t"}
    one = CorpusSpec(("a",), valid=("v",), test=("t",), **named)
    chosen_on_test = replace(one, valid=("t",), valid_sha256="t", test=(), test_sha256=None)
    trained_on_valid = CorpusSpec(("v",), sha256="v")
    assert chosen_on_test.has_seen("test", one)
    assert not chosen_on_test.has_seen("valid", one)
    assert trained_on_valid.has_seen("valid", one)
    assert not trained_on_valid.has_seen("test", one)
    assert not one.has_seen("test", one)
    assert not one.has_seen("test", chosen_on_test)  # which has none
