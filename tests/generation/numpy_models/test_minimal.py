"""The sigmoid of mingru's and minlstm's NumPy models."""

import numpy as np
import torch

from lmcli.generation.numpy_models.minimal import sigmoid


def test_sigmoid_neither_overflows_nor_leaves_its_range():
    x = np.array([-1e30, -100, -1, 0, 1, 100, 1e30], np.float32)
    expected = torch.from_numpy(x).double().sigmoid()
    np.testing.assert_allclose(sigmoid(x), expected, atol=1e-7)
