"""A word dataset, and small jobs on it."""

import pytest

from lmcli.data.corpus import TextOptions
from lmcli.data.dataset import CorpusSpec, load_dataset
from lmcli.training.job import prepare_job
from lmcli.training.training_settings import Budget

SMALL = {"hidden": 8, "embedding": 8, "batch": 4, "truncation": 12}


@pytest.fixture
def words(france_file):
    """France, a document a line, in words."""
    return load_dataset(CorpusSpec((str(france_file),), TextOptions(documents="line")), "word")


@pytest.fixture
def job_of(words):
    """``job_of("gru", 25, learning_rate=0.1)``: a job of 25 steps of a small model."""

    def make(arch, steps=100, dataset=words, **pairs):
        return prepare_job(dataset, arch, SMALL | pairs, Budget(steps=steps), 0, "cpu")

    return make
