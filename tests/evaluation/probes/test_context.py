"""The curve against restarting everywhere by hand; the effective context of known curves."""

import math

import numpy as np
import pytest
import torch

from lmcli.evaluation.probes.base import bucket_bound
from lmcli.evaluation.probes.context import WORTH, Context, crossings, effective_context, measure
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.restarts import choose_excerpts, read_restarts, restart_places
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
    return CharTokenizer.train(["abcdef "], CharTokenizer.Settings())


def subject(model, tokenizer, name="net"):
    return ProbedModel(name, model.name, model.eval(), tokenizer, lambda: model)


def nats(model, ids, state):
    """-ln p of all ids but the first, one forward pass."""
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids[None, :-1]), state)
        logs = logits[0].double().log_softmax(-1)
    return -logs[torch.arange(len(ids) - 1), torch.from_numpy(ids[1:])].numpy()


def test_the_curve_is_that_of_naive_restarts(tokenizer):
    torch.manual_seed(1)
    model = GRU(tokenizer.size, GRU.Settings(hidden=12, embedding=5)).eval()
    pieces = [letters(90, 0), letters(70, 1)]
    rows, _ = measure(subject(model, tokenizer), pieces, Context.Settings(longest=32))
    excerpts = choose_excerpts(documents(tokenizer, pieces), 32, 1000)
    assert [len(e.ids) for e in excerpts] == [91, 71]
    found = {}
    for restart in (r for some in restart_places(excerpts, 32) for r in some):
        ids = excerpts[restart.row].ids
        full = nats(model, ids, model.initial_state(1))
        for c in range(1, restart.length + 1):
            target = restart.begin + c
            if target < len(ids):
                restarted = nats(model, ids[restart.begin : target + 1], model.initial_state(1))[-1]
                found.setdefault(bucket_bound(c), []).append(restarted - full[target - 1])
    assert [row["context"] for row in rows] == sorted(found) == [1, 2, 4, 8, 16, 32]
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
    rows, effective = measure(subject(model, tokenizer), pieces, Context.Settings(longest=256))
    beyond = [row for row in rows if row["context_from"] > N]
    assert len(beyond) == 6
    for row in beyond:
        assert row["value"] == row["low"] == row["high"] == 0.0
        assert row["donor"] == row["kl"] == 0.0
    assert any(row["value"] != 0.0 for row in rows if row["context"] <= N)
    assert effective["tokens"] <= N
    excerpts = choose_excerpts(documents(tokenizer, pieces), 64, 1000)
    each = read_restarts(model, excerpts, 64, np.random.default_rng(0)).delta
    assert (each[:, N - 1 :][np.isfinite(each[:, N - 1 :])] == 0).all()  # order N + 1 sees N tokens
    assert (each[:, : N - 1] != 0).any()


def test_divergence_is_never_negative(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=12, embedding=5))
    rows, _ = measure(subject(model, tokenizer), [letters(300, 7)], Context.Settings(longest=64))
    assert all(row["kl"] >= 0.0 for row in rows)


def test_what_is_called_whole_has_at_least_k_tokens_before_every_restart():
    streams = [np.arange(n) for n in (20, 100, 1000)]
    excerpts = choose_excerpts(streams, 64, 10_000)
    far, near = restart_places(excerpts, 64)
    assert {r.begin for r in far} == set(range(64, 129, 8))
    assert {r.begin for r in near} == {*range(64, 129)} - {*range(64, 129, 8)}
    assert {r.length for r in far} | {r.length for r in near} == {64, 8}
    for r in [*far, *near]:
        ids = excerpts[r.row].ids
        assert len(ids) > r.begin + 1
        assert len(ids) <= 3 * 64
        assert excerpts[r.row].place + r.begin == r.place
    assert [e.place for e in excerpts][:2] == [20, 120]


def test_excerpts_lie_evenly_over_the_whole_text_and_not_at_its_beginning():
    streams = [np.arange(1000)] * 100
    excerpts = choose_excerpts(streams, 64, 4000)
    places = np.array([e.place for e in excerpts])
    assert len(excerpts) == 4000 // 192
    assert places.min() < 5000
    assert places.max() > 95_000
    assert np.diff(places).max() < 1.5 * np.diff(places).min()


def isotonic(values, weights):
    """The non-increasing fit by pooling adjacent violators."""
    blocks = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] <= blocks[-1][0]:
            b, a = blocks.pop(), blocks.pop()
            weight = a[1] + b[1]
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / weight, weight, a[2] + b[2]])
    return [value for value, _, count in blocks for _ in range(count)]


def test_the_effective_context_is_where_the_isotonic_fit_falls_to_the_threshold():
    rng = np.random.default_rng(0)
    for _ in range(200):
        length = int(rng.integers(1, 30))
        values = rng.normal(size=length) + np.linspace(1, -1, length)
        weights = rng.integers(1, 9, size=length)
        fit = isotonic(values, weights)
        within = [c for c, value in enumerate(fit, 1) if value <= 0.1]
        assert crossings(weights * (values - 0.1)) == (within[0] if within else length + 1)


def decaying(blocks, rng, scale=12.0, width=128):
    """Curves that fall as 0.5 exp(-c / scale), with noise that the restarts of a block share."""
    c = np.arange(1, width + 1)
    number = np.repeat(np.arange(blocks), 4)
    shared = rng.normal(size=(blocks, 1))[number]
    noise = 0.02 * shared * np.exp(-c / scale) + 0.1 * rng.normal(size=(4 * blocks, width))
    delta = 0.5 * np.exp(-c / scale) + noise
    return delta, np.broadcast_to(number[:, None], delta.shape)


def test_less_text_makes_the_interval_wider_and_the_effective_context_no_longer():
    true = next(c for c in range(1, 129) if 0.5 * math.exp(-c / 12) <= 0.02)
    middle, width, covered = {}, {}, []
    for blocks in (12, 96):
        found = []
        for seed in range(30):
            delta, number = decaying(blocks, np.random.default_rng(seed))
            found.append(effective_context(delta, number, 0.02, seed))
        middle[blocks] = np.median([f["tokens"] for f in found])
        width[blocks] = np.median([f["high"] - f["low"] for f in found])
        covered += [f["low"] <= true <= f["high"] for f in found]
    assert middle[12] == pytest.approx(true, rel=0.12)
    assert middle[96] == pytest.approx(true, rel=0.12)
    assert width[12] > 1.8 * width[96]
    assert np.mean(covered) >= 0.85


def test_what_is_never_worth_less_than_the_threshold_is_at_least_the_longest():
    delta, blocks = np.full((20, 16), 0.3), np.arange(20)[:, None].repeat(16, axis=1)
    delta[:, 12:] = np.nan  # not scored
    found = effective_context(delta, blocks, 0.1, 0)
    assert found == {"tokens": 12, "at_least": True, "low": 12, "high": 12, "high_at_least": True}
    assert effective_context(delta, blocks, 0.5, 0)["tokens"] == 1
    few = effective_context(delta[:7], blocks[:7], 0.5, 0)
    assert few["low"] is few["high"] is None


def test_the_threshold_is_one_percent_of_perplexity_per_word(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=6, embedding=4))
    text = " ".join(letters(4, seed) for seed in range(200))
    data = ProbeData((text,))
    result = Context().run([subject(model, tokenizer)], data, Context.Settings(longest=32))
    row = result.rows[-1]
    assert row["tokens_per_word"] == pytest.approx(len(text) / 200)
    assert row["words"] == pytest.approx(32 / row["tokens_per_word"])
    figure = result.figures[0]
    assert figure.reference == WORTH
    assert figure.series[0].points[-1].value == pytest.approx(row["value"] * row["tokens_per_word"])
    assert figure.second_ticks[-1] == "6.4"
    assert "words" in result.verdict
    streams = documents(tokenizer, [text])
    excerpts = choose_excerpts(streams, 32, 48_000)
    each = read_restarts(model, excerpts, 32, np.random.default_rng(0))
    effective = effective_context(each.delta, each.targets // 40, WORTH / row["tokens_per_word"], 0)
    found = result.summary[0]["effective"]
    assert {k: v for k, v in found.items() if k != "words"} == effective


def test_short_documents_have_a_short_curve(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=6, embedding=4))
    pieces = tuple(letters(20, seed) for seed in range(30))
    result = Context().run([subject(model, tokenizer)], ProbeData(pieces), Context.Settings())
    assert max(row["context"] for row in result.rows) == 8
    assert result.verdict.startswith("gru makes use of")
    short = Context().run([subject(model, tokenizer)], ProbeData(("abc",)), Context.Settings())
    assert short.rows == []
    assert "too short" in short.verdict
