"""A request becomes a job, and a run finds its way back to the text it was made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import load_dataset
from lmcli.errors import TextError, UsageError
from lmcli.training import job as job_module
from lmcli.training.job import prepare_job, reopen
from lmcli.training.training_settings import Budget

LINES = [f"line {n} of {n % 7} and {n * n % 11}\n" for n in range(400)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose validation and test text are files of their own."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"my": LINES[:200], "valid": LINES[200:300], "test": LINES[300:]}.items():
        Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    dataset = load_dataset(
        CorpusSpec(("my.txt",), valid=("valid.txt",), test=("test.txt",)), "char"
    )
    return prepare_job(dataset, "ngram", {}, Budget(steps=1), 0, "cpu").create(tmp_path / "run")


def test_a_run_finds_the_parts_it_was_made_from(run):
    corpus = reopen(run).dataset.corpus
    parts = [corpus.train, corpus.valid, corpus.test]
    assert ["".join(p.documents) for p in parts] == [
        "".join(LINES[a:b]) for a, b in ((0, 200), (200, 300), (300, 400))
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("my", "the text"), ("valid", "the validation text"), ("test", "the test text")],
)
def test_a_text_that_has_changed_since_is_noticed_in_every_part(run, name, said):
    with Path(f"{name}.txt").open("a", encoding="utf-8") as file:
        file.write("one line more\n")
    with pytest.raises(TextError) as caught:
        reopen(run)
    assert caught.value.problem.startswith(f"{said} has changed since")


# ------------------------------------------------------------------ several workers


@pytest.fixture
def dataset(tmp_path):
    """A text of 400 lines."""
    (tmp_path / "my.txt").write_text("".join(LINES), encoding="utf-8")
    return load_dataset(CorpusSpec((str(tmp_path / "my.txt"),)), "char")


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7])
def test_a_batch_that_was_chosen_is_rounded_up_so_that_workers_share_it_evenly(dataset, workers):
    alone = prepare_job(dataset, "gru", {}, Budget(steps=1), 0, "cpu")
    job = prepare_job(dataset, "gru", {}, Budget(steps=1), 0, "cpu", workers=workers)
    assert job.training.batch % workers == 0
    assert 0 <= job.training.batch - alone.training.batch < workers
    assert job.record().workers == workers


def test_a_batch_that_was_given_is_not_changed(dataset):
    for batch, workers in ((6, 2), (6, 3)):
        job = prepare_job(
            dataset, "gru", {"batch": batch}, Budget(steps=1), 0, "cpu", workers=workers
        )
        assert job.training.batch == batch
    with pytest.raises(UsageError, match=r"a batch of 6 .* 4 workers") as caught:
        prepare_job(dataset, "gru", {"batch": 6}, Budget(steps=1), 0, "cpu", workers=4)
    assert caught.value.hint == "for example --set batch=8"


def test_decay_goes_by_the_batch_that_workers_share(tmp_path):
    (tmp_path / "long.txt").write_text("abcdefgh " * 40_000, encoding="utf-8")
    long = load_dataset(CorpusSpec((str(tmp_path / "long.txt"),)), "char")
    tokens = len(long.tokenized.train)
    for budget in (Budget(epochs=50), Budget(steps=50 * tokens // (24 * 64))):
        alone, shared = (
            prepare_job(long, "lstm", {}, budget, 0, "cpu", workers=w).training for w in (1, 24)
        )
        assert (alone.batch, shared.batch) == (16, 24)
        decay = 24 * 64 / (5 * tokens * shared.learning_rate)
        assert shared.weight_decay == pytest.approx(decay, rel=0.05)


def test_a_model_that_counts_has_one_worker(dataset):
    with pytest.raises(UsageError, match="ngram learns by counting"):
        prepare_job(dataset, "ngram", {}, Budget(steps=1), 0, "cpu", workers=2)


def test_workers_compare_what_matters_and_not_where_files_lie(dataset):
    def job(**changes):
        made = prepare_job(dataset, "gru", {}, Budget(steps=1), 0, "cpu", workers=2)
        return replace(made, **changes).fingerprint()

    spec = replace(dataset.spec, texts=("other/my.txt",))
    elsewhere = replace(dataset, corpus=replace(dataset.corpus, spec=spec))
    assert job() == job(command="lmcli train", dataset=elsewhere)
    assert len({job(), job(seed=1), job(arch="rnn"), job(budget=Budget(steps=2))}) == 4


def test_trainings_begin_from_the_seed_whatever_was_drawn_before(job_of):
    first = job_of("lstm").model().tensors()
    torch.rand(100)
    for name, tensor in job_of("lstm").model().tensors().items():
        assert torch.equal(tensor, first[name])
    other = replace(job_of("lstm"), seed=1).model().tensors()
    assert not torch.equal(other["embed.weight"], first["embed.weight"])


# ------------------------------------------------------------------ threads


@pytest.mark.parametrize(("hidden", "threads"), [(16, 1), (2000, None)])
def test_a_small_model_has_one_thread_and_a_large_one_all(dataset, monkeypatch, hidden, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def chosen(**pairs):
        job = prepare_job(dataset, "lstm", {"hidden": hidden} | pairs, Budget(steps=1), 0, "cpu")
        return job.training.threads

    assert chosen() == threads
    assert chosen(threads=3) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert chosen() is None


@pytest.mark.parametrize(
    ("others", "threads"), [(0.4, None), (0.7, None), (0.8, 7), (2.2, 6), (8.0, 1), (64.0, 1)]
)
def test_a_core_is_left_to_each_other_program(dataset, monkeypatch, others, threads):
    monkeypatch.setattr(job_module, "available_cores", lambda: list(range(8)))
    job = prepare_job(dataset, "lstm", {}, Budget(steps=1), 0, "cpu")
    job = replace(job, training=replace(job.training, threads=None))
    events = []
    assert job_module._leaving_cores(job, others, events.append).training.threads == threads
    said = [f"other programs use {others:.1f} of 8 cores: training with {threads} of 8 threads"]
    assert [event.text for event in events] == (said if threads else [])
