"""The functions of a block's NumPy layer that NumPy lacks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lmcli.generation.numpy_models.layer import gelu, normed


@pytest.mark.parametrize("size", [1e-3, 1.0, 5.0, 40.0])
def test_gelu_is_torchs_exact_one(size):
    x = np.linspace(-size, size, 99_999, dtype=np.float32).reshape(3, -1)
    expected = F.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(gelu(x) - expected).max() < 2e-7 + 1e-7 * size


def test_normed_is_a_layer_norm_without_weights():
    x = np.random.default_rng(0).normal(3, 2, (5, 64)).astype(np.float32)
    np.testing.assert_allclose(normed(x), F.layer_norm(torch.from_numpy(x), (64,)), atol=2e-6)
