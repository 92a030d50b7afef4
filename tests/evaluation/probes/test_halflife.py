"""Half-lives against the closed form of a gate at its bias."""

import math

import pytest
import torch

from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.halflife import Halflife, half_lives, shares
from lmcli.models.gru import GRU
from lmcli.models.lstm import LSTM
from lmcli.models.mingru import MinGRU
from lmcli.models.minlstm import MinLSTM
from lmcli.models.rnn import RNN
from lmcli.tokenizers.char import CharTokenizer

H = 5


def at_bias(cls, bias, gate):
    """A net of which one gate has a bias, and nothing else is at work."""
    model = cls(6, cls.Settings(hidden=H, embedding=3)).eval()
    layer = model.layers[0]
    with torch.no_grad():
        layer.input_weight.zero_()
        layer.recurrent_weight.zero_()
        layer.bias.zero_()
        layer.bias[gate * H : (gate + 1) * H] = bias
    return model


@pytest.mark.parametrize(
    ("bias", "life"), [(0, 1.0), (1, 2.2), (2, 5.5), (3, 14), (4, 38), (5, 103), (7, 760)]
)
@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_a_gate_at_its_bias_has_the_half_life_of_the_closed_form(cls, bias, life):
    model = at_bias(cls, bias, 1)
    found = half_lives(model, torch.zeros(2, 10, dtype=torch.long))
    exact = -math.log(2) / math.log(1 / (1 + math.exp(-bias)))
    assert found.tolist() == pytest.approx([exact] * H, rel=1e-3)
    assert exact == pytest.approx(life, rel=0.03)


@pytest.mark.parametrize(
    ("cls", "changes", "biases"),
    [
        (LSTM, {"coupled": True}, (-1.0,)),  # 1 - i, i = 1/4
        (MinGRU, {}, (-1.0, 0.0)),  # 1 - z, z = 1/4
        (MinLSTM, {}, (1.0, -1.0, 0.0)),  # f / (f + i), f = 3/4, i = 1/4
    ],
)
def test_each_gated_cell_has_the_retention_of_its_definition(cls, changes, biases):
    model = cls(6, cls.Settings(hidden=H, embedding=3, layers=1, **changes)).eval()
    layer = model.layers[0]
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        for gate, bias in enumerate(biases):
            layer.bias[gate * H : (gate + 1) * H] = bias * math.log(3)
    found = half_lives(model, torch.zeros(2, 10, dtype=torch.long))
    assert found.tolist() == pytest.approx([-math.log(2) / math.log(0.75)] * H)


def test_document_starts_are_left_out():
    model = at_bias(LSTM, 2.0, 1)
    tokens = torch.tensor([[6, 0, 1, 6, 2, 3]])
    assert half_lives(model, tokens)[0] == pytest.approx(5.46, abs=0.01)


def test_all_layers_are_counted():
    torch.manual_seed(0)
    model = LSTM(6, LSTM.Settings(hidden=H, embedding=3, layers=2)).eval()
    assert len(half_lives(model, torch.zeros(1, 4, dtype=torch.long))) == 2 * H


def test_every_unit_is_in_one_octave():
    found = shares(torch.tensor([0.2, 1.0, 1.5, 16.0, 17.0, 5000.0]).numpy())
    assert sum(found.values()) == 6
    assert (found[1], found[2], found[16], found[32], found[1024]) == (2, 1, 1, 1, 1)


def test_the_probe_says_what_half_of_the_units_do():
    tokenizer = CharTokenizer.train(["abcde"], CharTokenizer.Settings())
    model = at_bias(LSTM, 3.0, 1)
    subject = ProbedModel("a", "lstm", model, tokenizer, lambda: at_bias(LSTM, 1.0, 1))
    result = Halflife().run([subject], ProbeData(("abcde" * 50,)), Halflife.Settings())
    row = result.summary[0]
    assert row["median"] == pytest.approx(14.3, abs=0.1)
    assert row["initial_median"] == pytest.approx(2.2, abs=0.1)
    assert sum(r["value"] for r in result.rows) == pytest.approx(1.0)
    # the units of one net are no sample of nets
    assert all(r["low"] is None and r["high"] is None for r in result.rows)


def test_what_has_no_such_gate_is_left_out():
    tokenizer = CharTokenizer.train(["abcde"], CharTokenizer.Settings())
    model = RNN(6, RNN.Settings(hidden=H, embedding=3)).eval()
    subject = ProbedModel("a", "rnn", model, tokenizer, lambda: model)
    assert "no gate" in Halflife().applies(subject, ProbeData(("a",)), Halflife.Settings())
