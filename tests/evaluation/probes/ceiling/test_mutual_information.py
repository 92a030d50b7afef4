"""Mutual information of texts in which it is known."""

import math

import numpy as np
import pytest

from lmcli.evaluation.probes.ceiling.mutual_information import by_distance

V = 8


def copied(count, lag, share, seed=0):
    """Each symbol is that `lag` before it with probability `share`, in every other block."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(V, size=(count // (2 * lag), 2, lag))
    again = rng.random(ids[:, 0].shape) < share
    ids[:, 1][again] = ids[:, 0][again]
    return np.append(V, ids.ravel())


def test_a_copy_at_one_distance_is_found_there_and_nowhere_else():
    rows = by_distance([copied(80_000, 64, 0.8)], V, [1, 2, 16, 64, 128])
    found = {row["lag"]: row for row in rows}
    # Half of the pairs are copies with probability 0.8: a mixture of equal and independent.
    equal = 0.4 + 0.6 / V
    other = (1 - equal) / (V - 1)
    known = equal * math.log(equal * V) + (V - 1) * other * math.log(other * V)
    assert found[64]["value"] == pytest.approx(known, rel=0.05)
    assert found[64]["low"] < known < found[64]["high"]
    for lag in (1, 2, 16, 128):
        assert abs(found[lag]["value"]) < 1e-3
        assert found[lag]["low"] < 0 < found[lag]["high"]


def test_pairs_are_of_one_document_and_short_documents_end_the_curve():
    symbols = np.random.default_rng(0).integers(V, size=500)
    documents = [np.append(V, np.full(10, symbol)) for symbol in symbols]
    rows = by_distance(documents, V, [1, 8, 16])
    assert [(row["lag"], row["count"]) for row in rows] == [(1, 4500), (8, 1000)]
    assert rows[0]["value"] == pytest.approx(math.log(V), rel=0.05)
