"""The line of `train` and `compare` on texts whose memory is known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.data.split import Split
from lmcli.errors import TextError
from lmcli.evaluation.probes.ceiling.one_line import SHORTEST, ceiling_of_corpus, describe_ceiling
from lmcli.evaluation.probes.data import ProbeData
from lmcli.grammars.base import write_grammar
from lmcli.registry import GRAMMARS


def topical(words, seed):
    """Every 60 words are of 5 that are drawn anew."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(200, size=(words // 60, 5))
    return " ".join(f"w{t}" for topic in topics for t in rng.choice(topic, 60))


@pytest.fixture(scope="module")
def data():
    return ProbeData((topical(3000, 10),), tuple(topical(1500, seed) for seed in range(10)))


def test_a_text_in_topics_rewards_a_memory_of_a_topic(data):
    found = describe_ceiling(data, SHORTEST)
    tokens = found["reach"]["tokens"]
    assert tokens in (16, 32, 64)
    assert found["worth"]["low"] > 0
    assert found["sentence"].startswith(f"on this text a memory beyond {tokens} words has little")
    assert "\n" not in found["sentence"]
    assert describe_ceiling(data, SHORTEST) == found


def test_the_answers_of_items_are_named_apart(tmp_path):
    grammar = GRAMMARS.load("france")
    path = tmp_path / "france.txt"
    write_grammar(grammar(grammar.Settings(size="small")), path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    data = ProbeData(tuple(lines[:400]), tuple(lines[400:]), path.with_suffix(".items.jsonl"))
    sentence = describe_ceiling(data, SHORTEST)["sentence"]
    assert "no word that returns rewards a memory beyond 4 words" in sentence
    assert "at the answers of its items memory is worth 2." in sentence


def test_nothing_is_said_after_a_short_training_or_of_a_text_that_cannot_tell(data):
    assert describe_ceiling(data, SHORTEST - 1) is None
    assert describe_ceiling(ProbeData(data.held_out), SHORTEST) is None
    assert describe_ceiling(ProbeData(("a b c",), data.train), SHORTEST) is None
    runs_of_letters = "".join(chr(0x4E00 + i % 977) for i in range(4000))
    blankless = ProbeData(("，".join(runs_of_letters[i : i + 9] for i in range(3000)),), data.train)
    assert describe_ceiling(blankless, SHORTEST) is None


class Vanished(Sequence):
    """Documents whose file cannot be read any more."""

    def __len__(self):
        return 1

    def __getitem__(self, number):
        raise TextError("cannot read 'topics.txt'", "")


def test_a_corpus_is_described_by_its_test_part_and_a_vanished_one_not_at_all(tmp_path):
    path = tmp_path / "topics.txt"
    path.write_text("\n".join(topical(600, seed) for seed in range(60)), encoding="utf-8")
    corpus = load_corpus(CorpusSpec((str(path),)))
    found = ceiling_of_corpus(corpus, SHORTEST)
    assert found == describe_ceiling(ProbeData.of_corpus(corpus), SHORTEST)
    assert found["sentence"]
    assert ceiling_of_corpus(corpus, SHORTEST - 1) is None
    assert ceiling_of_corpus(replace(corpus, train=Split(Vanished())), SHORTEST) is None
