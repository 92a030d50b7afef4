"""Gradients against the chain rule written out."""

import numpy as np
import pytest
import torch
from rich.console import Console

from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.gradient import Gradient, below, choose_targets, decay, gradient_norms
from lmcli.models.lstm import LSTM
from lmcli.models.ngram.model import NGram
from lmcli.models.rnn import RNN
from lmcli.models.window import Window
from lmcli.report.bar_chart import print_figure
from lmcli.tokenizers.char import CharTokenizer

V = 9


def tokens(rows, length, vocabulary=V):
    return torch.from_numpy(np.random.default_rng(0).integers(vocabulary, size=(rows, length)))


@pytest.mark.parametrize("tie", [False, True])
def test_norms_are_those_of_the_product_of_jacobians(tie):
    torch.manual_seed(0)
    model = RNN(V, RNN.Settings(hidden=6, embedding=6, tie=tie)).eval()
    layer = model.layers[0]
    W, U, b = (p.detach().numpy() for p in (layer.input_weight, layer.recurrent_weight, layer.bias))
    output = (model.embed.weight[:V] if tie else model.output.weight).detach().numpy()
    read = tokens(3, 9)
    found = gradient_norms(model, read)
    for row, norms in zip(read.tolist(), found, strict=True):
        hidden, h = [], np.zeros(6)
        for token in row[:-1]:
            h = np.tanh(W @ model.embed.weight[token].detach().numpy() + U @ h + b)
            hidden.append(h)
        p = np.exp(output @ h + model.output.bias.detach().numpy())
        p /= p.sum()
        p[row[-1]] -= 1
        flow = output.T @ p
        for k in range(len(norms)):
            into = flow * (1 - hidden[-1 - k] ** 2)
            assert norms[k] == pytest.approx(np.linalg.norm(W.T @ into), rel=1e-3)
            flow = U.T @ into


def test_beyond_a_window_the_gradient_is_exactly_zero():
    torch.manual_seed(0)
    model = Window(V, Window.Settings(window=5, hidden=8, embedding=4))
    norms = gradient_norms(model, tokens(8, 40), tokens(8, 10))
    assert (norms[:, :5] > 0).all()
    assert (norms[:, 5:] == 0).all()


def test_nothing_of_the_probe_stays_in_the_model():
    torch.manual_seed(0)
    model = LSTM(V, LSTM.Settings(hidden=6, embedding=4)).eval()
    before, _ = model(tokens(2, 7), model.initial_state(2))
    gradient_norms(model, tokens(2, 7))
    after, _ = model(tokens(2, 7), model.initial_state(2))
    assert torch.equal(before, after)
    assert all(p.grad is None for p in model.parameters())


def test_at_initialisation_it_vanishes_in_a_tanh_rnn_then_in_an_lstm_and_much_later_with_chrono():
    read, warm = tokens(24, 200, 60), tokens(24, 16, 60)
    vanished = {}
    for name, model in {
        "rnn": lambda: RNN(60, RNN.Settings(hidden=64, embedding=32)),
        "lstm": lambda: LSTM(60, LSTM.Settings(hidden=64, embedding=32)),
        "keeper": lambda: LSTM(60, LSTM.Settings(hidden=64, embedding=32, forget_bias=4.0)),
        "chrono": lambda: LSTM(60, LSTM.Settings(hidden=64, embedding=32, chrono=1000.0)),
    }.items():
        torch.manual_seed(0)
        vanished[name] = below(decay(gradient_norms(model(), read, warm)), 1e-3) or 999
    assert vanished["rnn"] < 100
    assert vanished["rnn"] < vanished["lstm"] < vanished["keeper"]
    assert 2 * vanished["lstm"] < vanished["chrono"]


def test_rows_come_before_and_after_training_with_intervals():
    tokenizer = CharTokenizer.train(["abcdefgh"], CharTokenizer.Settings())
    torch.manual_seed(0)
    model = LSTM(tokenizer.size, LSTM.Settings(hidden=6, embedding=4)).eval()
    subject = ProbedModel("a", "lstm", model, tokenizer, lambda: model)
    text = "".join("abcdefgh"[i] for i in np.random.default_rng(0).integers(8, size=400))
    settings = Gradient.Settings(targets=8, longest=20)
    result = Gradient().run([subject], ProbeData((text,)), settings)
    assert {row["time"] for row in result.rows} == {"initial", "trained"}
    assert [r["lag"] for r in result.rows if r["time"] == "trained"] == [0, 1, 2, 4, 8, 16]
    assert all(r["low"] <= r["value"] <= r["high"] for r in result.rows)
    assert result.rows[0]["value"] == 1.0


def test_all_that_is_read_for_a_target_is_of_its_document():
    streams = [np.arange(1000 * k, 1000 * k + n) for k, n in enumerate((300, 30, 200))]
    chosen = choose_targets(streams, Gradient.Settings(targets=64, longest=40), 0)
    both = torch.cat([chosen.warm, chosen.read], dim=1)
    assert chosen.read.shape == (64, 40 + 2)
    assert chosen.warm.shape[1] > 0
    assert (both.diff(dim=1) == 1).all()
    assert (both % 1000 > 0).all()  # no start id, which would cut the gradient
    assert choose_targets([np.arange(3)], Gradient.Settings(), 0) is None


def test_shares_of_the_total_add_up_and_are_nothing_beyond_a_window():
    tokenizer = CharTokenizer.train(["abcdefgh"], CharTokenizer.Settings())
    torch.manual_seed(0)
    model = Window(tokenizer.size, Window.Settings(window=4, hidden=8, embedding=4))
    subject = ProbedModel("a", "window", model, tokenizer, lambda: model)
    text = "".join("abcdefgh"[i] for i in np.random.default_rng(0).integers(8, size=400))
    settings = Gradient.Settings(targets=16, longest=16)
    result = Gradient().run([subject], ProbeData((text,)), settings)
    share = {row["lag"]: row["share"] for row in result.rows if row["time"] == "trained"}
    assert sum(share.values()) == pytest.approx(1.0)
    assert share[8] == share[16] == 0.0
    assert min(share[0], share[1], share[2], share[4]) > 0
    assert result.summary[0]["trained"]["half_total"] in (0, 1, 2)
    assert [f.series[0].points[1].value for f in result.figures][2] == share[1]


def test_the_pictures_say_that_a_vanished_gradient_is_no_forgetting():
    tokenizer = CharTokenizer.train(["abcdefgh"], CharTokenizer.Settings())
    model = Window(tokenizer.size, Window.Settings(window=4, hidden=8, embedding=4))
    subject = ProbedModel("a", "window", model, tokenizer, lambda: model)
    result = Gradient().run([subject], ProbeData(("abcdefgh" * 20,)), Gradient.Settings())
    console = Console(width=100)
    with console.capture() as shown:
        for figure in result.figures[:2]:
            print_figure(figure, console)
    assert " ".join(shown.get().split()).count("a vanished gradient and perfect memory") == 2


def test_a_table_of_counts_has_no_gradient():
    tokenizer = CharTokenizer.train(["ab"], CharTokenizer.Settings())
    model = NGram(tokenizer.size, NGram.Settings())
    subject = ProbedModel("a", "ngram", model, tokenizer, lambda: model)
    assert "no embedding" in Gradient().applies(subject, ProbeData(("ab",)), Gradient.Settings())
