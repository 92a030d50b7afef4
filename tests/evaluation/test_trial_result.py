"""The optimum of a grammar is what it says of the held-out documents, and no model beats it."""

import json
import math

import pytest

from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import load_dataset
from lmcli.data.text import TextOptions
from lmcli.evaluation.trial_result import made_by, optimum_row
from lmcli.grammars.base import companions
from lmcli.grammars.france.grammar import France
from lmcli.training.job import prepare_job
from lmcli.training.training_settings import Budget
from lmcli.training.trials import Trial, run_trial


@pytest.fixture
def dataset(france_file):
    return load_dataset(CorpusSpec((str(france_file),), TextOptions(documents="line")), "word")


# ------------------------------------------------------------------ the optimum


@pytest.fixture
def made(france_file, dataset):
    """The same dataset with the grammar's about-file beside the text."""
    about = {"format": 1, "recipe": {"grammar": "france", "size": "small", "level": 0, "seed": 0}}
    companions(france_file)[1].write_text(json.dumps(about), encoding="utf-8")
    return dataset


def test_the_optimum_is_what_the_grammar_says_of_these_documents(made):
    row = optimum_row([made])
    grammar = France(France.Settings(size="small", level=0))
    for name, part in (("valid", made.corpus.valid), ("test", made.corpus.test)):
        lines = "".join(part.documents).splitlines()
        nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        tokens = sum(len(line.split()) + 1 for line in lines)
        assert row[name]["bits_per_char"] == pytest.approx(nats / math.log(2) / part.chars)
        assert row[name]["perplexity"] == pytest.approx(math.exp(nats / tokens))
    assert (row["name"], row["parameters"], row["seeds"]) == ("optimum", None, [])


def test_over_several_splits_it_is_their_mean(made, france_file):
    spec = CorpusSpec((str(france_file),), TextOptions(documents="line"), rotation=3)
    datasets = [made, load_dataset(spec, "word")]
    one, other, both = (optimum_row(d)["test"] for d in (datasets[:1], datasets[1:], datasets))
    assert one["bits_per_char"] != other["bits_per_char"]
    mean = (one["bits_per_char"] + other["bits_per_char"]) / 2
    assert both["bits_per_char"] == pytest.approx(mean)
    assert both["perplexity"] == pytest.approx(math.sqrt(one["perplexity"] * other["perplexity"]))


def test_no_model_is_better_than_the_optimum(made, tmp_path):
    job = prepare_job(made, "ngram", {}, Budget(steps=1), 0, "cpu")
    found = run_trial(Trial("ngram", job, tmp_path / "n", False), lambda event: None)
    assert found.test.bits_per_char > optimum_row([made])["test"]["bits_per_char"]


def test_a_text_that_no_grammar_made_or_that_was_edited_has_no_optimum(made, france_file):
    text = france_file.read_text().replace(" . ", " ! ")
    france_file.write_text(text)
    choice = CorpusSpec((str(france_file),), TextOptions(documents="line"))
    assert made_by(made) is not None
    assert optimum_row([load_dataset(choice, "word")]) is None
    companions(france_file)[1].unlink()
    assert made_by(made) is None
    assert optimum_row([made]) is None
