"""The law of NumPy models: each gives the logits of its torch model."""

import numpy as np
import pytest
import torch

from lmcli.generation.numpy_models import base
from lmcli.generation.numpy_models.base import TorchAdapter
from lmcli.registry import MODELS, NUMPY_MODELS

V, B, T = 7, 3, 31
CLOSE = 1e-5
VARIANTS = {
    "rnn": [{"activation": "relu"}],
    "lstm": [
        {"peepholes": True},
        {"coupled": True},
        {"forget": False},
        {"coupled": True, "peepholes": True},
        {"forget": False, "peepholes": True},
        {"attend": 1},
        {"attend": 5},
        {"attend": 40, "peepholes": True, "layers": 2},
        {"chrono": 9.0},
        {"block": True, "coupled": True, "peepholes": True, "attend": 5},
    ],
    "window": [{"window": 1}, {"window": 3}, {"direct": True}, {"direct": True, "window": 20}],
    "ngram": [{"order": 1}, {"order": 2}, {"order": 9}],
    "hybrid": [{"order": 1}, {"order": 3}, {"mix": "linear"}, {"attend": 5, "peepholes": True}],
    "mingru": [{"layers": 1}, {"chrono": None}],
    "minlstm": [{"layers": 1}, {"forget_bias": 3.0}],
}
STACKS = [
    {},
    {"layers": 3},
    {"embedding": 12, "tie": True},
    {"hidden": 20, "embedding": 20},
    {"softmax": "adaptive"},
    {"block": True},
    {"block": False},
    {"block": True, "layers": 3, "hidden": 20, "embedding": 20},
]


def cases():
    """Every numpy_model with every variant of its own, and as a stack where it is one."""
    for name in NUMPY_MODELS.names():
        known = MODELS.load(name).Settings.__dataclass_fields__
        for changes in [*STACKS, *VARIANTS.get(name, [])]:
            if changes.keys() <= known.keys():
                yield pytest.param(name, changes, id=f"{name} {changes}")


every_case = pytest.mark.parametrize(("name", "changes"), list(cases()))
every_numpy_model = pytest.mark.parametrize("name", NUMPY_MODELS.names())


def ids(rows=B, length=T, seed=1, starts=0.1):
    """Random tokens with a start id here and there."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(V, size=(rows, length))
    tokens[rng.random((rows, length)) < starts] = V
    return tokens


@pytest.fixture
def pair(build):
    """``pair("lstm", layers=2)``: a model in which every weight has changed; its NumPy model."""

    def make(name, **changes):
        model = build(name, V, **changes)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                size = 0.3 if parameter.dim() == 1 else 0.1 * parameter.shape[-1] ** -0.5
                parameter.add_(torch.randn(parameter.shape) * size)
        tensors = {key: tensor.numpy() for key, tensor in model.tensors().items()}
        return model, NUMPY_MODELS.load(name)(V, model.settings, tensors)

    return make


def stepped(numpy_model, tokens):
    """Logits after every token, read one by one. Shapes: (B, T) -> (B, T, V)."""
    numpy_model.reset(len(tokens))
    found = []
    for column in tokens.T.tolist():
        numpy_model.read(column)
        found.append(numpy_model.logits().copy())
    return np.stack(found, 1)


@torch.no_grad()
def whole(model, tokens):
    return model(torch.from_numpy(tokens), model.initial_state(len(tokens)))[0].numpy()


def near(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=CLOSE)


@every_case
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("table", [base.TABLE, 0], ids=["table", "product"])
def test_a_numpy_model_says_what_its_model_says(pair, name, changes, rows, table, monkeypatch):
    monkeypatch.setattr(base, "TABLE", table)
    model, numpy_model = pair(name, **changes)
    for seed, starts in enumerate((0.0, 0.1, 0.4)):
        tokens = ids(rows, seed=seed, starts=starts)
        near(stepped(numpy_model, tokens), whole(model, tokens))


@every_case
def test_behind_a_start_id_nothing_is_left_of_what_came_before(pair, name, changes):
    _, numpy_model = pair(name, **changes)
    before, after = ids(length=60, starts=0), ids(length=12, seed=2, starts=0)
    after[:, 0] = V
    joined = stepped(numpy_model, np.concatenate([before, after], 1))[:, 60:]
    near(joined, stepped(numpy_model, after))


@every_case
def test_streams_can_be_taken_apart_and_doubled(pair, name, changes):
    _, numpy_model = pair(name, **changes)
    tokens, after = ids(length=20), ids(4, length=9, seed=2)
    chosen = [2, 0, 0, 1]
    expected = stepped(numpy_model, np.concatenate([tokens[chosen], after], 1))
    stepped(numpy_model, tokens)
    numpy_model.select(chosen)
    near(numpy_model.logits(), expected[:, 19])
    for place, column in enumerate(after.T.tolist(), 20):
        numpy_model.read(column)
        near(numpy_model.logits(), expected[:, place])
    numpy_model.select([3])
    numpy_model.read([4])
    last = np.concatenate([tokens[[1]], after[[3]], [[4]]], 1)
    near(numpy_model.logits(), stepped(numpy_model, last)[:, -1])


@pytest.mark.parametrize("name", MODELS.names())
def test_any_model_is_a_numpy_model_when_wrapped(build, name):
    model = build(name, V)
    wrapped, tokens = TorchAdapter(model), ids()
    expected = whole(model, tokens)
    near(stepped(wrapped, tokens), expected)
    wrapped.select([2, 2, 0])
    near(wrapped.logits(), expected[[2, 2, 0], -1])
    wrapped.read([1, 3, V])
    near(wrapped.logits()[1], whole(model, np.append(tokens[2], 3)[None])[0, -1])
    wrapped.reset(1)
    long = ids(1, length=1100)
    wrapped.read_all(long[0].tolist())
    near(wrapped.logits(), whole(model, long)[:, -1])


@every_numpy_model
def test_logits_may_be_written_over(pair, name):
    _, numpy_model = pair(name)
    numpy_model.reset(2)
    numpy_model.read([1, 2])
    first = numpy_model.logits().copy()
    numpy_model.logits()[:] = -np.inf
    near(numpy_model.logits(), first)
    assert first.dtype == np.float64
    assert first.shape == (2, V)


@every_case
@pytest.mark.parametrize("harm", ["missing", "misshapen"])
def test_tensors_that_do_not_fit_are_refused(build, name, changes, harm):
    model = build(name, V, **changes)
    whole = {key: tensor.numpy() for key, tensor in model.tensors().items()}
    for key in whole.keys() - ({"output.weight"} if changes.get("tie") else set()):
        tensors = dict(whole)
        if harm == "missing":
            del tensors[key]
        else:
            tensors[key] = np.zeros((2, 3, 5), np.float32)
        with pytest.raises(ValueError, match=r"tensor|array|n-gram"):
            NUMPY_MODELS.load(name)(V, model.settings, tensors)


@every_numpy_model
def test_a_numpy_model_needs_settings_that_its_architecture_has(name):
    assert NUMPY_MODELS.load(name).name == name
    assert set(NUMPY_MODELS.load(name).required_settings) <= set(
        MODELS.load(name).Settings.__dataclass_fields__
    )


@pytest.mark.parametrize("name", [*NUMPY_MODELS.names(), "lstm attend=5", "gru block=true"])
def test_a_restored_snapshot_goes_on_as_if_nothing_had_been_read_since(pair, name):
    arch, *settings = name.split()
    changes = {"attend": {"attend": 5}, "block": {"block": True}}
    model, numpy_model = pair(arch, **changes[settings[0].split("=")[0]] if settings else {})
    streams, other = ids(), ids(rows=1, seed=2)
    for one in (numpy_model, TorchAdapter(model)):
        stepped(one, streams[:, : T // 2])
        kept, wanted = one.snapshot(), one.logits().copy()
        for _ in range(2):  # the snapshot itself stays as it is
            stepped(one, other)
            one.restore(kept)
            assert np.array_equal(one.logits(), wanted)
            one.read(streams[:, T // 2].tolist())
