"""Disturbed contexts for models of which it is known what they remember: order, words, nothing."""

import numpy as np
import pytest
import torch

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.order import (
    CONDITIONS,
    Order,
    costs,
    disturb,
    order_value,
    read_units,
)
from lmcli.evaluation.probes.sampling import Mean, draw_targets
from lmcli.models.base import LanguageModel
from lmcli.models.gru import GRU
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.registry import TOKENIZERS

N = 4
WORDS = [c + v for c in "bdfgklmnprst" for v in "aeou"]
SETTINGS = Order.Settings(places=48, span=16, longest=32)


def subject(model, tokenizer):
    return ProbedModel("one", "net", model.eval(), tokenizer, lambda: model)


def topic(words, seed, of=6):
    """A text about something: its words are a few of all."""
    rng = np.random.default_rng(seed)
    some = rng.choice(WORDS, of, replace=False)
    return " ".join(rng.choice(some, words).tolist())


@pytest.fixture(scope="module")
def data():
    return ProbeData(
        tuple(topic(300, seed) for seed in range(1, 7)), (topic(4000, 0, of=len(WORDS)),)
    )


def trained(name, data):
    cls = TOKENIZERS.load(name)
    return cls.train(data.train, cls.Settings())


class Toy(LanguageModel):
    """Reads token by token."""

    def forward(self, tokens, state, recorder=None):
        logits = []
        for token in tokens.unbind(1):
            state = self.read(token, state)
            logits.append(self.predict(*state))
        return torch.stack(logits, dim=1), state

    def flops_per_token(self):
        return 1


class Bag(Toy):
    """How often each token came, in any order."""

    def initial_state(self, batch):
        return (torch.zeros(batch, self.vocabulary + 1, dtype=torch.float64),)

    def read(self, token, state):
        return (state[0].scatter_add(1, token[:, None], torch.ones_like(state[0][:, :1])),)

    def predict(self, counts):
        return (counts[:, :-1] + 0.5).log().float()


class Repeater(Toy):
    """Thinks that the token `self.lag` places before the next one comes again."""

    lag = 12

    def initial_state(self, batch):
        return (torch.full((batch, self.lag), self.start_id),)

    def read(self, token, state):
        return (torch.cat([state[0][:, 1:], token[:, None]], dim=1),)

    def predict(self, last):
        return 5 * torch.nn.functional.one_hot(last[:, 0], self.vocabulary + 1)[:, :-1].float()


def rows_of(model, tokenizer, data, settings=SETTINGS):
    return Order().run([subject(model, tokenizer)], data, settings)


@pytest.mark.parametrize("name", ["word", "char"])
@pytest.mark.parametrize("arch", ["ngram", "window"])
def test_what_lies_beyond_a_window_costs_exactly_nothing(data, name, arch):
    tokenizer = trained(name, data)
    torch.manual_seed(0)
    model = Window(tokenizer.size, Window.Settings(window=N, hidden=16, embedding=6))
    if arch == "ngram":
        model = NGram(tokenizer.size, NGram.Settings(order=N + 1))
        model.fit_counts(encode_documents(tokenizer, data.train))
    result = rows_of(model, tokenizer, data)
    assert [row["kept"] for row in result.rows] == [1, 2, 4, 8, 16, 32]
    for row in result.rows:
        names = "value", "low", "high", *CONDITIONS[1:]
        costly = {name for name in names if row[name]}
        if row["kept"] < N:
            assert costly
        else:
            assert costly == set()
            assert row["replaced_low"] == row["replaced_high"] == 0.0
            assert row["order_value"] is None
    assert max(reach["tokens"] for s in result.summary for reach in (s["order"], s["words"])) < N


def test_for_a_bag_of_words_order_is_worth_exactly_nothing_and_the_words_are(data):
    tokenizer = trained("word", data)
    result = rows_of(Bag(tokenizer.size, None), tokenizer, data)
    for row in result.rows:
        assert row["value"] == row["reversed"] == row["low"] == row["high"] == 0.0
        assert row["replaced"] > row["replaced_low"] > 0.0
        assert row["order_value"] == row["order_value_low"] == row["order_value_high"] == 0.0
    (summary,) = result.summary
    assert summary["order"] == {"tokens": 0, "at_least": False}
    assert summary["words"] == {"tokens": 32, "at_least": True}
    assert result.verdict == (
        "net uses the order of words nowhere, and words at all up to at least 32 tokens back"
    )


def test_who_remembers_places_needs_the_order_as_far_as_it_looks():
    rng = np.random.default_rng(0)
    held_out = []
    for _ in range(4):
        words = rng.choice(WORDS, Repeater.lag).tolist()
        while len(words) < 400:  # the word 12 places before, or a new one
            words.append(words[-Repeater.lag] if rng.random() < 0.9 else str(rng.choice(WORDS)))
        held_out.append(" ".join(words))
    data = ProbeData(tuple(held_out), (topic(3000, 9, of=len(WORDS)),))
    tokenizer = trained("word", data)
    result = rows_of(Repeater(tokenizer.size, None), tokenizer, data)
    rows = {row["kept"]: row for row in result.rows}
    for kept in (1, 2, 4, 8):
        assert rows[kept]["value"] > rows[kept]["low"] > 1.0
        assert rows[kept]["order_value_low"] < 1.0 < rows[kept]["order_value_high"] + 0.2
    assert rows[16]["value"] == rows[16]["replaced"] == rows[32]["value"] == 0.0
    assert rows[16]["order_value"] is None
    assert result.summary[0]["order"] == {"tokens": 8, "at_least": False}


def test_each_cost_is_that_of_the_disturbed_text_read_alone(data):
    tokenizer = trained("char", data)
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=8, embedding=4)).eval()
    texts = read_units(tokenizer, data.held_out)
    drawn = draw_targets([t.ids for t in texts], 10, np.random.default_rng(0), 16)
    places = disturb(tokenizer, data.train, texts, drawn, 16, np.random.default_rng(1))
    table = costs(model, places, [1, 2, 4, 8])
    for number, place in enumerate(places):
        nats = []
        for span in place.spans:
            ids = torch.from_numpy(np.concatenate([place.before, span, place.after[:20]]))
            with torch.no_grad():
                logits, _ = model(ids[None, :-1], model.initial_state(1))
            logs = logits[0].double().log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            nats.append(-logs.numpy()[len(place.before) + len(span) - 1 :])
        for column, k in enumerate([1, 2, 4, 8]):
            apart = [n[k : k + 2] - nats[0][k : k + 2] for n in nats[1:]]
            assert table[:, number, column] == pytest.approx(np.array(apart), abs=5e-5)


def test_whole_words_are_moved_and_the_words_left_out_are_those_asked_for():
    train = "the cat and the dog saw the red house ; the old man and a boy sat . " * 60
    rare = " ".join(WORDS[i % len(WORDS)] + WORDS[i // len(WORDS)] for i in range(400))
    held_out = "the zebu and the dodo saw the blue house , " * 30
    data = ProbeData((held_out,), (train + " ".join(f"w{w}" for w in rare.split()),))
    for name in ("char", "byte", "word"):
        tokenizer = trained(name, ProbeData((), (train + held_out,)))
        texts = read_units(tokenizer, data.held_out)
        drawn = draw_targets([t.ids for t in texts], 12, np.random.default_rng(0), 24)
        places = disturb(tokenizer, data.train, texts, drawn, 24, np.random.default_rng(1))
        for place in places:
            real, shuffled, reverse, no_content, no_function, other = (
                tokenizer.decode(span).split() for span in place.spans
            )
            assert sorted(shuffled) == sorted(real)
            assert reverse == real[::-1]
            assert no_content == [w for w in real if w not in ("zebu", "dodo", "blue")]
            assert set(no_function) <= {"zebu", "dodo", "blue", ","}
            assert len(no_content) + len([w for w in no_function if w != ","]) == len(real)
            assert other != []


def test_text_without_blanks_is_moved_token_by_token_and_short_text_is_not_tried():
    tokenizer = trained("char", ProbeData((), ("字句文章学生" * 50,)))
    (text,) = read_units(tokenizer, ("文章字句" * 20,))
    assert text.begins.all()
    data = ProbeData(("ab cd",), ("ab cd ef " * 100,))
    tokenizer = trained("char", data)
    model = Bag(tokenizer.size, None)
    assert rows_of(model, tokenizer, data).verdict == "the held-out text is too short"
    alone = ProbeData(data.held_out)
    assert "not at hand" in Order().applies(subject(model, tokenizer), alone, SETTINGS)


def test_the_order_value_is_a_ratio_whose_limits_take_both_costs_from_the_same_stretches():
    stretch = np.arange(8)
    replaced = np.array([[0, 0, 0, 0, 4, 8, 4, 8]], float).T  # 4 in 1,000 samples have none at all
    worth = Mean.of(replaced, stretch, 0)
    value = order_value(replaced / 4, replaced, worth, stretch, 0)
    assert list(value.values()) == [0.25, 0.25, 0.25]
    nothing = order_value(replaced, -replaced, Mean.of(-replaced, stretch, 0), stretch, 0)
    assert list(nothing.values()) == [None, None, None]
