"""A source is the same wherever it is read, and of a big held-out part a sample is scored."""

import pickle
from pathlib import Path

import pytest

from lmcli.data.dataset import EvalSplit, TextChoice
from lmcli.data.reading import TextOptions
from lmcli.data.token_cache import encode_pieces
from lmcli.training.job import load_dataset

LINES = [f"line {n} of {n % 7} and {n * n % 11}\n" for n in range(400)]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Training, validation and test text in files of their own."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"my": LINES[:200], "valid": LINES[200:300], "test": LINES[300:]}.items():
        Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    choice = TextChoice(("my.txt",), valid=("valid.txt",), test=("test.txt",))
    return load_dataset(choice, "char")


def test_a_small_held_out_part_is_scored_whole(source):
    assert source.valid.share == 1.0
    assert list(source.valid.part.documents) == list(source.corpus.valid.documents)
    assert source.valid.stream is source.encoded.valid
    assert source.valid.targets == sum(map(len, LINES[200:300]))
    assert source.targets() == sum(map(len, LINES[:200]))


@pytest.mark.parametrize("documents", ["file", "line"])
def test_of_a_big_held_out_part_the_same_sample_is_always_scored(tmp_path, documents):
    path = tmp_path / "a.txt"
    path.write_text("".join(LINES * 200), encoding="utf-8")
    choice = TextChoice((str(path),), TextOptions(documents=documents), "tail")
    found = []
    for _ in range(2):
        source = load_dataset(choice, "char")
        part, ids = source.corpus.valid, source.encoded.valid
        found.append(EvalSplit.of(part, ids, source.encoded.tokenizer, most=20_000))
    one, other = found
    assert list(one.part.documents) == list(other.part.documents)
    assert one.share == one.part.chars / source.corpus.valid.chars
    assert 10_000 < len(one.stream) <= 20_000 + len(one.part.documents)
    assert one.targets == one.part.chars
    pieces = encode_pieces(source.encoded.tokenizer, list(one.part.documents))
    assert one.stream.tolist() == pieces.tolist()
    assert set("".join(one.part.documents).splitlines()) <= {line.strip() for line in LINES}


def test_a_source_in_another_process_is_the_same(source):
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.corpus.train.documents) == list(source.corpus.train.documents)
    assert copy.encoded.train.tolist() == source.encoded.train.tolist()
