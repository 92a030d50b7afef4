"""`probe stored` on models whose state is known."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.report import ProbeReport
from lmcli.evaluation.probes.stored.probe import Stored
from lmcli.grammars.base import write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.grammars.france.sentences import COUNTRIES
from lmcli.models.attention import Attention
from lmcli.models.base import LanguageModel
from lmcli.models.gru import GRU
from lmcli.models.window import Window
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer

SLOTS = 8
KEYS = {"run", "arch", "value", "low", "high", "count", "chance", "untrained", "shuffled"}


class Shift(LanguageModel):
    """Its state is a shift register of the last 8 tokens."""

    def initial_state(self, batch):
        return tuple(torch.zeros(batch, self.vocabulary + 1) for _ in range(SLOTS))

    def forward(self, tokens, state, recorder=None):
        for token in tokens.unbind(1):
            first = F.one_hot(token, self.vocabulary + 1).float()
            state = (first, *state[:-1])
            kept = (token != self.start_id).float().unsqueeze(1)
            state = (first, *(part * kept for part in state[1:]))
        return torch.zeros(*tokens.shape, self.vocabulary), state

    def flops_per_token(self):
        return 1


class Latch(LanguageModel):
    """Keeps the first country of a document, for ever or for some tokens.

    Whether it predicts the language by it is `told`.
    """

    def __init__(self, tokenizer, told, tokens=10**6):
        super().__init__(tokenizer.size, None)
        first = [int(tokenizer.encode(country)[0]) for country in COUNTRIES]
        self.number = torch.full((tokenizer.size + 1,), -1)
        self.number[first] = torch.arange(len(first))
        said = torch.tensor([int(tokenizer.encode(word)[0]) for word in COUNTRIES.values()])
        self.languages, self.told = F.one_hot(said, tokenizer.size) * 10.0, told
        self.tokens = tokens

    def initial_state(self, batch):
        return torch.zeros(batch, len(COUNTRIES)), torch.zeros(batch, 1)

    def forward(self, tokens, state, recorder=None):
        (held, age), logits = state, []
        for token in tokens.unbind(1):
            number = self.number[token]
            new = F.one_hot(number.clamp_min(0), len(COUNTRIES)).float()
            takes = (number >= 0) & (age[:, 0] == 0)
            held = torch.where(takes.unsqueeze(1), new, held * (age < self.tokens))
            age = (age + ((age > 0) | takes.unsqueeze(1))) * (token != self.start_id).unsqueeze(1)
            held = held * (age > 0)
            logits.append(held @ self.languages * self.told)
        return torch.stack(logits, 1), (held, age.float())

    def flops_per_token(self):
        return 1


def subject(model, tokenizer, untrained=None, name="net"):
    return ProbedModel(name, name, model.eval(), tokenizer, lambda: (untrained or model).eval())


def random_words(count, seed, types=40):
    rng = np.random.default_rng(seed)
    names = ["".join(pair) for pair in itertools.product("bdfgklmnp", ["a", "emu", "i", "o", "u"])]
    return " ".join(names[i] for i in rng.integers(types, size=count))


@pytest.fixture(scope="module")
def text():
    return ProbeData((random_words(2500, 1),), (random_words(6000, 0),))


SMALL = Stored.Settings(tokens=6000, items=40, longest=32)


@pytest.mark.parametrize("kind", [WordTokenizer, CharTokenizer])
def test_a_shift_register_holds_all_it_has_room_for_and_nothing_else(text, kind):
    tokenizer = kind.train(text.train, kind.Settings())
    result = Stored().run([subject(Shift(tokenizer.size, None), tokenizer)], text, SMALL)
    rows = {row["lag"]: row for row in result.rows}
    assert list(rows) == [1, 2, 4, 8, 16, 32]
    assert all(row.keys() >= KEYS for row in result.rows)
    for lag, row in rows.items():
        assert row["count"] == 40
        assert row["shuffled"] == pytest.approx(0.5, abs=0.1)
        if lag > 2 * SLOTS:
            assert row["value"] == row["low"] == row["high"] == 0.5
        elif lag <= SLOTS and kind is WordTokenizer:
            assert row["value"] == 1
    if kind is WordTokenizer:
        assert rows[16]["value"] == 0.5
        assert result.summary[0]["reach"] == {"tokens": 5, "at_least": False}
        assert result.verdict == "net's state tells a word 5 tokens later (before training: 5)"
    assert len(ProbeReport([result], all=False).result().blocks) == 3


def test_a_net_that_was_not_trained_is_a_control_of_its_own(text):
    tokenizer = WordTokenizer.train(text.train, WordTokenizer.Settings())
    torch.manual_seed(0)
    net = GRU(tokenizer.size, GRU.Settings(hidden=8, embedding=4))
    result = Stored().run([subject(Shift(tokenizer.size, None), tokenizer, net)], text, SMALL)
    near = result.rows[2]
    assert near["value"] == 1
    assert near["untrained"] < 0.95
    same = Stored().run([subject(net, tokenizer)], text, SMALL)
    assert [row["value"] for row in same.rows] == [row["untrained"] for row in same.rows]


@pytest.fixture(scope="module")
def france(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "france.txt"
    write_grammar(France(France.Settings(size="small", level=0)), path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    data = ProbeData(tuple(lines[:50]), tuple(lines[50:400]), path.with_suffix(".items.jsonl"))
    return data, WordTokenizer.train(lines, WordTokenizer.Settings())


@pytest.mark.parametrize("told", [True, False])
def test_a_latch_stores_the_country_for_ever_and_it_is_said_whether_it_is_used(france, told):
    data, tokenizer = france
    torch.manual_seed(0)
    net = GRU(tokenizer.size, GRU.Settings(hidden=4, embedding=4))
    one = subject(Latch(tokenizer, told), tokenizer, net)
    result = Stored().run([one], data, Stored.Settings(items=20))
    assert len(result.rows) > 3
    assert all(row["value"] == 1 for row in result.rows)
    assert all(row["answered"] == told for row in result.rows)
    assert all(row["shuffled"] < 0.5 for row in result.rows)
    assert result.rows[-1]["untrained"] < 0.5
    far = f"at least gap {result.rows[-1]['gap']}"
    used = f"is given up to {far}" if told else "is not given at the smallest gap"
    assert f"net: the answer is in the state up to {far}, and {used}" in result.verdict
    assert ("stored, not used" in result.verdict) != told


def test_a_state_that_has_lost_the_country_is_told_from_one_that_is_not_used(france):
    data, tokenizer = france
    one = subject(Latch(tokenizer, True, tokens=12), tokenizer)
    result = Stored().run([one], data, Stored.Settings(items=20))
    shares = {row["gap"]: (row["value"], row["answered"]) for row in result.rows}
    assert all(pair == (1, 1) for gap, pair in shares.items() if gap <= 10)
    assert all(max(pair) < 0.4 for gap, pair in shares.items() if gap > 12)
    assert result.summary[0]["stored"] == {"tokens": 10, "at_least": False}
    assert result.verdict.endswith("is given up to gap 10, further back it is forgotten")


def test_what_has_no_recurrent_state_or_no_training_text_is_left_out(text):
    probe, tokenizer = Stored(), WordTokenizer.train(text.train, WordTokenizer.Settings())
    window = subject(Window(tokenizer.size, Window.Settings(window=3, hidden=4)), tokenizer)
    cache = subject(Attention(tokenizer.size, Attention.Settings(hidden=8)), tokenizer)
    assert "last tokens themselves" in probe.applies(window, text, SMALL)
    assert "last tokens themselves" in probe.applies(cache, text, SMALL)
    net = subject(GRU(tokenizer.size, GRU.Settings(hidden=4)), tokenizer)
    assert probe.applies(net, text, SMALL) is None
    assert "not at hand" in probe.applies(net, ProbeData(text.held_out), SMALL)
    short = probe.run([net], ProbeData(("ba bi",), ("ba bi bo",)), SMALL)
    assert short.rows == []
    assert "too few words" in short.verdict
