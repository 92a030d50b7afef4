"""The commands on a run whose words are predicted by the adaptive softmax."""

import math
from pathlib import Path

import pytest

from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.run import Run

TRAIN = ("--tokenizer", "word", "--set", "hidden=16", "--steps", "120", "--json")


@pytest.fixture
def adaptive(lmcli, my_text):
    """What training with an adaptive softmax said; the run is in ``run``."""
    done = lmcli("train", my_text, *TRAIN, "--set", "softmax=adaptive", "-o", "run")
    assert done.code == 0, done.err
    return done.json


def test_training_learns_and_eval_finds_what_training_found(adaptive, lmcli, my_text):
    vocabulary, valid = adaptive["vocabulary"], adaptive["valid"]
    assert valid["nats_per_token"] < 0.8 * math.log(vocabulary)
    found = lmcli("eval", "run", my_text, "--split", "valid", "--json").json
    assert found["nats"] / found["tokens"] == pytest.approx(valid["nats_per_token"], abs=1e-4)


def test_a_sample_has_the_probability_that_it_is_scored_with(adaptive, lmcli):
    sample = ("sample", "run", "--length", "30", "--temperature", "1", "--seed", "1", "--json")
    made = lmcli(*sample).json
    assert made["tokens"] == 30
    lmcli_again = lmcli(*sample).json
    assert lmcli_again["text"] == made["text"]
    assert 0 < made["nats"] < 30 * math.log(adaptive["vocabulary"])


def test_it_is_sampled_and_exported_without_torch(adaptive, lmcli):
    assert open_numpy_model(Run.open(Path("run"))) is not None
    assert lmcli("export", "run", "--to", "numpy", "-o", "out").code == 0
    sample = ("--length", "30", "--seed", "1")
    assert lmcli("sample", "out", *sample).out == lmcli("sample", "run", *sample).out != ""


def test_the_blank_is_filled_with_probabilities_that_sum_to_one(adaptive, lmcli):
    done = lmcli("cloze", "run", "--text", "the old cat sees ___", "--candidates", "the,dog,a",
                 "--json")  # fmt: skip
    candidates = done.json["rows"][0]["candidates"]
    assert sum(c["probability"] for c in candidates) == pytest.approx(1)
    assert {c["text"] for c in candidates} == {"the", "dog", "a"}


def test_sharing_weights_needs_the_full_softmax(lmcli, my_text):
    both = ("--set", "softmax=adaptive", "--set", "tie=true", "--set", "embedding=16")
    lmcli("train", my_text, *TRAIN[:-1], *both, "-o", "run").failed(
        "tie=true", "softmax=full", code=2
    )
