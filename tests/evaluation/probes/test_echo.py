"""Lists said twice to models of which it is known what they remember."""

import random

import numpy as np
import pytest
import torch

from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.echo import Echo, draw_lists, fillers
from lmcli.models.base import LanguageModel
from lmcli.models.lstm import LSTM
from lmcli.models.window import Window
from lmcli.registry import TOKENIZERS

WORDS = [
    a + b for a in ("ba", "do", "ke", "lu", "mi") for b in ("r", "sa", "tel", "non", "pu", "g")
]
SETTINGS = Echo.Settings(trials=12, words=6, longest=32)


class Counting(LanguageModel):
    """Thinks the likelier what it has read more often since the start."""

    name = "counting"
    Settings = LSTM.Settings

    def initial_state(self, batch):
        return (torch.zeros(batch, self.vocabulary + 1),)

    def forward(self, tokens, state, tap=None):
        ones = torch.nn.functional.one_hot(tokens, self.vocabulary + 1)
        seen = state[0].unsqueeze(1) + ones.cumsum(1)
        return (2 * seen[..., : self.vocabulary]).float(), (seen[:, -1].float(),)

    def flops_per_token(self):
        return 1


@pytest.fixture(scope="module")
def material():
    draw = random.Random(0)
    texts = [" ".join(draw.choice(WORDS) for _ in range(n)) for n in (900, 90)]
    return ProbeData((texts[1],), (texts[0],))


def subject(name, model, tokenizer="word", material=None):
    cls = TOKENIZERS.load(tokenizer)
    made = cls.train(material.train, cls.Settings())
    torch.manual_seed(0)
    built = model(made.size).eval()
    return ProbedModel(name, name, built, made, lambda: built)


def test_who_counts_finds_the_list_easier_after_hearing_it_in_any_order(material):
    one = subject("counting", lambda v: Counting(v, None), material=material)
    result = Echo().run([one], material, SETTINGS)
    assert [row["gap"] for row in result.rows] == [0, 8, 32]
    first = result.rows[0]
    assert first["high"] < first["chance"]
    assert first["saved_low"] > 0
    assert "counting echoes a list" in result.verdict
    for row in result.rows:
        assert row["order"] == row["order_low"] == row["order_high"] == 0.0
        assert row["value"] == row["permuted"]


@pytest.mark.parametrize("tokenizer", ["word", "char"])
def test_a_window_of_one_token_finds_it_exactly_as_hard_as_before(material, tokenizer):
    def window(size):
        return Window(size, Window.Settings(window=1, hidden=8, embedding=4))

    result = Echo().run([subject("w", window, tokenizer, material)], material, SETTINGS)
    for row in result.rows:
        assert row["value"] == pytest.approx(100.0, abs=1e-3)
        assert row["count"] == 12


@pytest.mark.parametrize("tokenizer", ["word", "char"])
def test_what_was_heard_beyond_a_window_saves_exactly_nothing(material, tokenizer):
    def window(size):
        return Window(size, Window.Settings(window=8, hidden=8, embedding=4))

    result = Echo().run([subject("w", window, tokenizer, material)], material, SETTINGS)
    for row in result.rows[1:]:
        assert row["saved"] == row["saved_low"] == row["saved_high"] == 0.0
        assert row["order"] == 0.0
        # the words that are scored are the same, whatever was heard before
        assert row["value"] == pytest.approx(row["chance"], abs=1e-3)
    assert result.summary[0]["copies"] == {"tokens": None, "at_least": False}


def test_the_permuted_list_has_no_word_in_its_place():
    for same, permuted, novel in draw_lists(WORDS, Echo.Settings(trials=200, words=6), 0):
        assert sorted(permuted) == sorted(same)
        assert all(a != b for a, b in zip(same, permuted, strict=True))
        assert not {*same} & {*novel}


def test_the_text_between_is_of_one_document():
    streams = [np.arange(1000 * k, 1000 * k + n) for k, n in enumerate((300, 40, 500))]
    texts = fillers(streams, 128, 50, 0)
    assert len(texts) == 50
    for ids in texts:
        assert len(ids) == 128
        assert (np.diff(ids) == 1).all()
        assert ids[0] % 1000 > 0  # not the start id
    assert {len(ids) for ids in fillers(streams[1:2], 128, 50, 0)} == {38}
    assert [len(ids) for ids in fillers([], 128, 2, 0)] == [0, 0]


def test_a_text_of_few_words_is_no_error(material):
    few = ProbeData(("a b c",), ("a b c",))
    result = Echo().run([subject("c", lambda v: Counting(v, None), material=few)], few, SETTINGS)
    assert result.rows == []
    assert "too few words" in result.verdict
