"""A text is split so that no held-out character is trained on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lmcli.data.corpus import Corpus, CorpusSpec, load_corpus
from lmcli.data.documents import BLOCK
from lmcli.data.split import MINIMUM_CHARACTERS, ROTATIONS, Split, held_out_places
from lmcli.data.text import TextOptions
from lmcli.errors import TextError


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


def in_parts(corpus: Corpus) -> list[str]:
    """All documents, part by part."""
    return [document for part in corpus.parts().values() for document in part.documents]


def in_order(corpus: Corpus, text: str) -> str:
    """All documents of all parts, put together by where they lie in the text."""
    return "".join(sorted(in_parts(corpus), key=text.index))


def test_a_part_counts_characters() -> None:
    assert Split(("naïve café\n", "two  words")).chars == 21
    assert Split(()).chars == 0


def test_interleaved_blocks_are_cut_at_line_ends_and_lose_nothing(folder: Path) -> None:
    text = numbered_lines(10_000)  # 400,000 characters: 40 blocks and a bit
    corpus = load(write("a.txt", text))
    assert corpus.test is not None
    assert in_order(corpus, text) == text
    for part in (corpus.train, corpus.valid, corpus.test):
        assert all(document.endswith("\n") for document in part.documents)
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
    assert text == "".join(in_parts(corpus))
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
    assert all(document.startswith(" ") for document in corpus.valid.documents)
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
    for document in in_parts(corpus):
        assert sum(document in text for text in texts) == 1


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
    documents = in_parts(corpus)
    assert sorted(documents) == sorted(lines)


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


def test_a_part_is_its_own_sample_where_it_is_small(folder: Path) -> None:
    part = load(write("a.txt", numbered_lines(100))).train
    assert part.sample(part.chars) is part


def test_a_sample_of_many_documents_is_evenly_spread(folder: Path) -> None:
    part = load(write("a.txt", numbered_lines(5000)), documents="line").train
    sample = part.sample(part.chars // 10)
    documents = list(part.documents)
    places = [documents.index(document) for document in sample.documents]
    assert 0.095 < sample.chars / part.chars <= 0.1
    assert places == sorted(set(places))
    assert set(np.diff(places).tolist()) <= {9, 10, 11}


def test_a_sample_of_one_long_document_is_lines_from_all_over_it(folder: Path) -> None:
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


@pytest.mark.parametrize("rotation", range(ROTATIONS))
def test_each_rotation_holds_out_other_blocks_and_never_the_beginning(rotation):
    places = held_out_places(rotation)
    others = [held_out_places(r) for r in range(ROTATIONS) if r != rotation]
    assert len({*places, *sum(others, ())}) == 2 * ROTATIONS
    assert 0 not in places
    assert held_out_places(rotation + ROTATIONS) == places
