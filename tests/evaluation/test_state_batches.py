"""Rows side by side against rows one by one."""

import numpy as np
import pytest
import torch

from lmcli.evaluation.state_batches import advance, random_stretches, token_nll
from lmcli.models.gru import GRU
from lmcli.models.lstm import LSTM
from lmcli.models.ngram.model import NGram
from lmcli.models.rnn import RNN
from lmcli.models.window import Window

V = 7


def rows_of(lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(V, size=n) for n in lengths]


def build(cls, **changes):
    torch.manual_seed(0)
    settings = {} if cls is NGram else {"hidden": 6, "embedding": 4} | changes
    model = cls(V, cls.Settings(**settings)).eval()
    if cls is NGram:
        model.fit_counts(rows_of([300])[0])
    return model


@pytest.mark.parametrize(
    ("cls", "changes"),
    [*((cls, {}) for cls in (LSTM, GRU, RNN, Window, NGram)), (LSTM, {"softmax": "adaptive"})],
)
def test_the_last_logits_are_the_last_of_all_logits(cls, changes):
    model = build(cls, **changes)
    tokens = torch.from_numpy(np.stack(rows_of([20, 20, 20])))
    tokens[1, 12] = V
    with torch.no_grad():
        logits, state = model(tokens, model.initial_state(3))
        last, same = model.last_logits(tokens, model.initial_state(3))
    assert torch.allclose(logits[:, -1], last, atol=1e-5)
    for a, b in zip(state, same, strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-6)


@pytest.mark.parametrize("cls", [LSTM, Window, NGram])
def test_rows_of_any_length_end_in_the_states_they_have_alone(cls):
    model = build(cls)
    rows = rows_of([0, 1, 2, 37, 256, 300, 600])
    state = advance(model, rows, model.initial_state(len(rows)))
    for number, row in enumerate(rows):
        alone = model.initial_state(1)
        if len(row):
            with torch.no_grad():
                _, alone = model(torch.from_numpy(row[None]), model.initial_state(1))
        for a, b in zip(state, alone, strict=True):
            assert torch.allclose(a[number].float(), b[0].float(), atol=1e-5)


@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_spots_save_logits_and_change_none(softmax):
    model = build(LSTM, softmax=softmax)
    rows = rows_of([30, 9, 21])
    whole = token_nll(model, rows, model.initial_state(3))
    some = token_nll(model, rows, model.initial_state(3), [5, 11, 14, 19])
    for a, b in zip(whole, some, strict=True):
        known = np.isfinite(b)
        assert known.tolist() == [not (5 <= t < 11 or 14 <= t < 19) for t in range(len(a))]
        assert a[known] == pytest.approx(b[known], abs=1e-5)


@pytest.mark.parametrize("length", [1, 4, 9])
def test_stretches_lie_anywhere_within_the_stream(length):
    stream = np.arange(9)
    found = random_stretches(stream, length, 200, seed=0)
    expected = {tuple(stream[i : i + length]) for i in range(9 - length + 1)}
    assert {tuple(row) for row in found.tolist()} == expected
    assert torch.equal(found, random_stretches(stream, length, 200, seed=0))
