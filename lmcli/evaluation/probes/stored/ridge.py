"""Ridge regression in closed form: what can be read out of states by a linear map.

**In:** states and labels; which states the penalty is chosen on.
**Out:** `Readout`s, which score a label in other states.

    W = (X'X + penalty N I)^-1 X'(Y - mean Y)      X: standardised states, Y: labels 0 or 1

One Cholesky factor a penalty serves all labels. Hoerl and Kennard (1970); as a probe of what nets
hold: Alain and Bengio (2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmcli.evaluation.statistics import Floats

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""times the number of states"""
CONSTANT = 1e-6
"""standard deviation below which a unit says nothing"""

States = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Readout:
    """A linear map from states to scores of labels."""

    mean: States
    scale: States
    weights: Floats
    """(D, labels)"""
    offset: Floats
    penalty: float

    def scores(self, states: States) -> Floats:
        """Shapes: (N, D) -> (N, labels)."""
        scores: Floats = ((states - self.mean) / self.scale) @ self.weights + self.offset
        return scores


class Ridge:
    """States, ready to be regressed on; `held` are those that choose the penalty."""

    def __init__(self, states: States, held: Flags) -> None:
        self.mean = states.mean(0, dtype=np.float64).astype(np.float32)
        scale = states.std(0, dtype=np.float64).astype(np.float32)
        self.scale = np.where(scale > CONSTANT, scale, 1.0).astype(np.float32)
        x = torch.from_numpy((states - self.mean) / self.scale)
        self.held = torch.from_numpy(held)
        self.parts = [x[~self.held], x[self.held]]
        grams = [(part.T @ part).double() for part in self.parts]  # (D, D)
        self.held_gram = grams[1]
        self.factors = {
            penalty: [
                _factor(gram, penalty * count)
                for gram, count in ((grams[0], len(self.parts[0])), (sum(grams), len(x)))
            ]
            for penalty in PENALTIES
        }

    def fit(self, labels: npt.NDArray[Any]) -> Readout:
        """The read-out of labels, by the penalty with the least squared error where it is held.

        Shapes: (N, labels).
        """
        y = torch.from_numpy(labels)
        offset = y.mean(0)
        products = [
            (part.T @ (y[share] - offset)).double()
            for part, share in zip(self.parts, (~self.held, self.held), strict=True)
        ]

        def error(penalty: float) -> float:
            weights = torch.cholesky_solve(products[0], self.factors[penalty][0])
            squares = weights * (self.held_gram @ weights - 2 * products[1])
            return float(squares.sum())

        best = min(PENALTIES, key=error)
        weights = torch.cholesky_solve(products[0] + products[1], self.factors[best][1])
        found = weights.numpy(), offset.double().numpy()
        return Readout(self.mean, self.scale, *found, best)


def _factor(gram: Any, ridge: float) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
    return factor
