"""The context curve against restarting everywhere by hand."""

import numpy as np
import pytest
import torch

from lmcli.evaluation.probes.base import bucket_bound
from lmcli.evaluation.probes.context import (
    Context,
    effective_context,
    measure,
    restart_places,
    span,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.state_batches import documents
from lmcli.models.gru import GRU
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.tokenizers.char import CharTokenizer

N = 4


def letters(length, seed):
    rng = np.random.default_rng(seed)
    return "".join("abcdef"[i] for i in rng.integers(6, size=length))


@pytest.fixture(scope="module")
def tokenizer():
    return CharTokenizer.train(["abcdef"], CharTokenizer.Settings())


def subject(model, tokenizer):
    return ProbedModel(model.name, model.name, model.eval(), tokenizer, lambda: model)


def nats(model, ids, state):
    """-ln p of all ids but the first, one forward pass."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids[None, :-1]), state)
        logs = logits[0].double().log_softmax(-1)
    return -logs[torch.arange(len(ids) - 1), torch.from_numpy(ids[1:])].numpy()


def test_the_curve_is_that_of_naive_restarts(tokenizer):
    torch.manual_seed(1)
    model = GRU(tokenizer.size, GRU.Settings(hidden=12, embedding=5)).eval()
    pieces = [letters(90, 0), letters(40, 1)]
    rows = measure(subject(model, tokenizer), pieces, Context.Settings(longest=32))
    streams = documents(tokenizer, pieces)
    longest = span(max(map(len, streams)), 32)
    assert longest == 32
    found = {}
    for place in restart_places(streams, longest):
        ids = streams[place.row]
        full = nats(model, ids, model.initial_state(1))
        for c in range(1, longest + 1):
            target = place.begin + c
            if target < len(ids):
                restarted = nats(model, ids[place.begin : target + 1], model.initial_state(1))[-1]
                found.setdefault(bucket_bound(c), []).append(restarted - full[target - 1])
    assert [row["context"] for row in rows] == sorted(found)
    for row in rows:
        mine = found[row["context"]]
        assert row["count"] == len(mine)
        assert row["value"] == pytest.approx(np.mean(mine), abs=1e-5)
        assert row["low"] <= row["value"] <= row["high"]


def models(tokenizer):
    torch.manual_seed(0)
    ngram = NGram(tokenizer.size, NGram.Settings(order=N + 1))
    ngram.fit_counts(tokenizer.encode(letters(3000, 5)))
    window = Window(tokenizer.size, Window.Settings(window=N, hidden=16, embedding=6))
    return {"ngram": ngram, "window": window}


@pytest.mark.parametrize("name", ["ngram", "window"])
def test_beyond_its_window_forgetting_costs_exactly_nothing(tokenizer, name):
    model = models(tokenizer)[name]
    pieces = [letters(900, 2), letters(700, 3)]
    rows = measure(subject(model, tokenizer), pieces, Context.Settings(longest=256))
    beyond = [row for row in rows if row["context_from"] > N]
    assert len(beyond) == 6
    for row in beyond:
        assert row["value"] == row["low"] == row["high"] == 0.0
        assert row["donor"] == 0.0
        assert row["kl"] == 0.0
    assert any(row["value"] != 0.0 for row in rows if row["context"] <= N)
    assert effective_context(rows)["tokens"] <= N


def test_divergence_is_never_negative(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=12, embedding=5))
    rows = measure(subject(model, tokenizer), [letters(300, 7)], Context.Settings(longest=64))
    assert all(row["kl"] >= 0.0 for row in rows)


def test_the_effective_context_is_the_last_that_is_worth_a_percent():
    rows = [{"context": c, "high": h} for c, h in ((1, 2.0), (2, 0.5), (4, 0.02), (8, 0.001))]
    assert effective_context(rows) == {"tokens": 4, "at_least": False}
    assert effective_context(rows[:3]) == {"tokens": 4, "at_least": True}


def test_short_documents_have_a_short_curve(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=6, embedding=4))
    pieces = tuple(letters(20, seed) for seed in range(30))
    result = Context().run([subject(model, tokenizer)], ProbeData(pieces), Context.Settings())
    assert max(row["context"] for row in result.rows) == 8
    assert result.verdict.startswith("gru makes use of")
