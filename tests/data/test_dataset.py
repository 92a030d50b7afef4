"""A dataset is the same wherever it is read, and of a big held-out part a sample is scored."""

import pickle
from pathlib import Path

import pytest

from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import EvalSplit, load_dataset, reopen_dataset
from lmcli.data.text import TextOptions
from lmcli.data.token_cache import encode_documents
from lmcli.errors import TextError

LINES = [f"line {n} of {n % 7} and {n * n % 11}\n" for n in range(400)]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Training, validation and test text in files of their own."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"my": LINES[:200], "valid": LINES[200:300], "test": LINES[300:]}.items():
        Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    choice = CorpusSpec(("my.txt",), valid=("valid.txt",), test=("test.txt",))
    return load_dataset(choice, "char")


def test_a_small_held_out_part_is_scored_whole(dataset):
    assert dataset.valid.share == 1.0
    assert list(dataset.valid.part.documents) == list(dataset.corpus.valid.documents)
    assert dataset.valid.stream is dataset.tokenized.valid
    assert dataset.valid.targets == sum(map(len, LINES[200:300]))
    assert dataset.targets() == sum(map(len, LINES[:200]))


@pytest.mark.parametrize("documents", ["file", "line"])
def test_of_a_big_held_out_part_the_same_sample_is_always_scored(tmp_path, documents):
    path = tmp_path / "a.txt"
    path.write_text("".join(LINES * 200), encoding="utf-8")
    choice = CorpusSpec((str(path),), TextOptions(documents=documents), "tail")
    found = []
    for _ in range(2):
        dataset = load_dataset(choice, "char")
        part, ids = dataset.corpus.valid, dataset.tokenized.valid
        found.append(EvalSplit.of(part, ids, dataset.tokenized.tokenizer, most=20_000))
    one, other = found
    assert list(one.part.documents) == list(other.part.documents)
    assert one.share == one.part.chars / dataset.corpus.valid.chars
    assert 10_000 < len(one.stream) <= 20_000 + len(one.part.documents)
    assert one.targets == one.part.chars
    ids = encode_documents(dataset.tokenized.tokenizer, list(one.part.documents))
    assert one.stream.tolist() == ids.tolist()
    assert set("".join(one.part.documents).splitlines()) <= {line.strip() for line in LINES}


def test_a_dataset_in_another_process_is_the_same(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(copy.corpus.train.documents) == list(dataset.corpus.train.documents)
    assert copy.tokenized.train.tolist() == dataset.tokenized.train.tolist()


def test_to_another_process_go_paths_and_ids_and_what_is_scored(dataset):
    """Few ids, that is: more are in a file, which is mapped there too (test_token_cache.py)."""
    sent = pickle.dumps(dataset)
    assert LINES[150].encode() not in sent
    Path("valid.txt").write_text("edited since", encoding="utf-8")
    copy = pickle.loads(sent)
    assert copy.tokenized.train.tolist() == dataset.tokenized.train.tolist()
    assert list(copy.valid.part.documents) == ["".join(LINES[200:300])]
    assert copy.test.stream.tolist() == dataset.test.stream.tolist()
    assert copy.spec == dataset.spec


def test_a_recorded_dataset_is_opened_again(dataset):
    def reopen():
        settings = dataset.tokenizer_settings
        tokenizer = dataset.tokenized.tokenizer
        return reopen_dataset(dataset.spec.to_json(), Path("runs/a"), tokenizer, "char", settings)

    again = reopen()
    assert again.spec == dataset.spec
    assert again.tokenized.train.tolist() == dataset.tokenized.train.tolist()
    assert again.tokenizer_settings == dataset.tokenizer_settings
    Path("my.txt").write_text("edited since", encoding="utf-8")
    with pytest.raises(TextError, match="the text has changed since 'runs/a'"):
        reopen()


def test_a_recorded_dataset_has_the_ids_of_its_own_tokenizer(dataset):
    other = dataset.tokenized.tokenizer.to_json()
    other["characters"] = other["characters"][::-1]  # as another library might number them
    tokenizer = type(dataset.tokenized.tokenizer).from_json(other)
    again = reopen_dataset(dataset.spec.to_json(), Path("runs/a"), tokenizer, "char", {})
    start = tokenizer.start
    for ids, before in zip(
        (again.tokenized.train, again.tokenized.valid),
        (dataset.tokenized.train, dataset.tokenized.valid),
        strict=True,
    ):
        text = tokenizer.decode([int(i) for i in ids if i != start])
        usual = dataset.tokenized.tokenizer.decode([int(i) for i in before if i != start])
        assert text == usual
        assert ids.tolist() != before.tolist()


@pytest.mark.parametrize("documents", ["file", "line"])
def test_the_tokens_to_predict_are_all_but_the_start_ids(tmp_path, documents):
    (tmp_path / "my.txt").write_text("".join(LINES), encoding="utf-8")
    spec = CorpusSpec((str(tmp_path / "my.txt"),), TextOptions(documents=documents))
    dataset = load_dataset(spec, "char")
    train, start = dataset.tokenized.train, dataset.tokenized.tokenizer.start
    assert dataset.targets() == sum(int(i) != start for i in train) < len(train)
