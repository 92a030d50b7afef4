"""`probe ceiling` on texts whose memory is known."""

import math

import numpy as np
import pytest

from lmcli.evaluation.probes.ceiling.probe import Ceiling
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.report import ProbeReport
from lmcli.grammars.base import write_grammar
from lmcli.registry import GRAMMARS, TOKENIZERS

KEYS = {"run", "arch", "value", "low", "high", "count", "chance"}


def subject(tokenizer, texts, name="a"):
    cls = TOKENIZERS.load(tokenizer)
    made = cls.train(texts, cls.Settings())
    return ProbedModel(name, "lstm", None, made, lambda: None)  # it asks nothing of a model


def topical(words, seed):
    """Every 60 words are of 5 that are drawn anew."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(200, size=(words // 60, 5))
    return " ".join(f"w{t}" for topic in topics for t in rng.choice(topic, 60))


@pytest.fixture(scope="module")
def data():
    texts = tuple(topical(1500, seed) for seed in range(10))
    return ProbeData(tuple(topical(1500, seed) for seed in (10, 11)), texts)


def test_words_of_topics_reward_memory_and_have_the_keys_of_the_contract(data):
    result = Ceiling().run([subject("word", data.train)], data, Ceiling.Settings(longest=256))
    assert [row["context"] for row in result.rows] == [8, 16, 32, 64, 128, 256]
    assert all(row.keys() >= KEYS | {"context"} for row in result.rows)
    assert all(row["low"] <= row["value"] <= row["high"] for row in result.rows)
    reach = result.summary[0]["reach"]
    assert reach["tokens"] in (16, 32, 64)
    assert not reach["at_least"]
    assert result.verdict.startswith(
        f"words that return reward a memory of up to {reach['tokens']}"
    )
    assert len(ProbeReport([result], all=False).result().blocks) == 3


def test_symbols_tell_of_each_other_within_a_topic():
    rng = np.random.default_rng(0)
    topics = np.array(list("abcdefghijkl")).reshape(4, 3)[rng.integers(4, size=400)]
    text = "".join("".join(rng.choice(topic, 100)) for topic in topics)
    data = ProbeData((text[:4000],), (text[4000:],))
    result = Ceiling().run([subject("char", data.train)], data, Ceiling.Settings(longest=1024))
    assert [row["lag"] for row in result.rows] == [1 << k for k in range(11)]
    assert all(row.keys() >= KEYS | {"lag"} for row in result.rows)
    assert result.summary[0]["reach"] == {"tokens": 64, "at_least": False}
    assert result.verdict == "characters up to 64 apart tell of each other"


def test_runs_with_one_tokenizer_are_measured_once(data):
    runs = [subject("word", data.train, name) for name in "ab"] + [subject("char", data.train, "c")]
    result = Ceiling().run(runs, data, Ceiling.Settings(longest=16))
    assert {row["run"] for row in result.rows} == {"a", "c"}
    assert [row["run"] for row in result.summary] == ["a", "b", "c"]
    assert result.summary[0]["figure"] == result.summary[1]["figure"]
    assert result.verdict.count(";") == 1
    assert [figure.series[0].name for figure in result.figures] == ["word", "char"]


def test_the_answers_of_the_france_grammar_are_worth_ln_16(tmp_path):
    grammar = GRAMMARS.load("france")
    path = tmp_path / "france.txt"
    write_grammar(grammar(grammar.Settings(size="small")), path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    data = ProbeData(tuple(lines[:600]), tuple(lines[600:]), path.with_suffix(".items.jsonl"))
    result = Ceiling().run([subject("word", lines)], data, Ceiling.Settings(longest=256))
    summary = result.summary[0]
    assert math.log(16) - 0.02 < summary["answers"]["value"] < math.log(16) + 0.12
    assert summary["reach"] == {"tokens": 0, "at_least": False}  # no word returns by rule
    assert abs(summary["worth"]["value"]) < 0.001
    assert "which the past decides, it is worth 2." in result.verdict


def test_what_cannot_be_measured_is_said(data):
    probe, runs = Ceiling(), [subject("word", data.train)]
    short = probe.run(runs, ProbeData(("a1 a2",), data.train), Ceiling.Settings())
    assert short.rows == []
    assert "too short" in short.verdict
    bare = ProbeData(data.held_out)
    assert "not at hand" in probe.applies(runs[0], bare, Ceiling.Settings())
    assert probe.applies(runs[0], data, Ceiling.Settings()) is None
