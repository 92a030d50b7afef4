"""The adaptive output layer and embedding in NumPy: several clusters, as torch has them."""

import numpy as np
import pytest
import torch

from lmcli.generation.numpy_models.base import Weights
from lmcli.generation.numpy_models.softmax import embedding_table, output_layer
from lmcli.models.layers import softmax
from lmcli.models.layers.softmax import AdaptiveEmbedding, AdaptiveOutput, cutoffs

V, H = 70, 40


@pytest.fixture
def saved(monkeypatch):
    """Both layers in torch, with three clusters of narrow vectors, and their tensors in NumPy."""
    monkeypatch.setattr(softmax, "SHORTEST", 1)
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({"embed": AdaptiveEmbedding(V, H), "output": AdaptiveOutput(H, V)})
    torch.nn.init.normal_(layers["output"].head.bias)
    assert cutoffs(V) == [1, 4, 17]
    return layers, {name: tensor.numpy() for name, tensor in layers.state_dict().items()}


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5])
def test_the_logits_are_the_log_probabilities_of_torch(saved, rows):
    layers, tensors = saved
    made = output_layer(Weights(tensors), V)
    vectors = torch.randn(rows, H)
    for _ in range(2):  # what a caller writes over is made anew
        logits = made(vectors.numpy())
        expected = layers["output"].log_prob(vectors).numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
        logits[:] = -np.inf


@torch.no_grad()
def test_rare_words_have_the_vectors_that_torch_widens(saved):
    layers, tensors = saved
    expected = layers["embed"](torch.arange(V + 1)).numpy()
    found = embedding_table(Weights(tensors), V)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lacking", ["embed.tables.3", "output.tail.2"])
def test_a_cluster_that_is_missing_is_noticed(saved, lacking):
    _, tensors = saved
    left = Weights({name: t for name, t in tensors.items() if not name.startswith(lacking)})
    with pytest.raises(ValueError, match="tensor"):
        (embedding_table if "embed" in lacking else output_layer)(left, V)


def test_a_layer_for_vectors_of_another_size_is_refused(saved):
    _, tensors = saved
    with pytest.raises(ValueError, match=r"output\.head\.weight"):
        output_layer(Weights(tensors), V, H + 1)
