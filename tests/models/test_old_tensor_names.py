"""Weights that an older version saved under other tensor names give the same model."""

import numpy as np
import pytest
import torch

from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.models import RENAMED, current_names
from lmcli.registry import MODELS
from lmcli.run import Run
from lmcli.tensor_files import write_tensors

OLD = {new: old for old, new in RENAMED.items()}
V = 7


def old_names(tensors):
    """The tensors as an older version named them."""
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


def test_the_names_of_the_older_version_are_these():
    named = {"layers.0.merge.weight": 1, "layers.1.between.bias": 2, "output.weight": 3}
    assert current_names(named) == {
        "layers.0.out_proj.weight": 1,
        "layers.1.ffn_norm.bias": 2,
        "output.weight": 3,
    }


@pytest.mark.parametrize("name", ["attention", "mingru", "minlstm"])
@torch.no_grad()
def test_a_model_loads_them_and_saves_the_new_ones(build, name):
    saved = build(name, V, seed=1)
    loaded = build(name, V, seed=2)
    tensors = old_names(saved.tensors())
    assert tensors.keys() != saved.tensors().keys()
    loaded.load_tensors(tensors)
    assert loaded.tensors().keys() == saved.tensors().keys()
    tokens = torch.tensor([[V, 0, 3, 1, 4]])
    mine, theirs = (model(tokens, model.initial_state(1))[0] for model in (loaded, saved))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["mingru", "minlstm"])
def test_a_run_with_them_is_opened_without_torch(make_run, build, tmp_path, name):
    run = make_run(tmp_path / "run", name)
    tensors = build(name, run.record.vocabulary).tensors()
    run.save_weights(tensors, 1)
    expected = open_numpy_model(Run.open(run.path))
    about = {"step": 1, "run": run.record.id}
    write_tensors(run.weights_file(), old_names(tensors), about)
    opened = open_numpy_model(Run.open(run.path))
    for model in (expected, opened):
        model.reset(1)
        model.read_all([run.record.vocabulary, 1, 2])
    assert np.array_equal(expected.logits(), opened.logits())


def test_no_model_has_a_tensor_under_an_old_name(build):
    for name in MODELS.names():
        tensors = build(name, V).tensors()
        assert current_names(tensors).keys() == tensors.keys(), name
