"""Cross-fitting: each place is told what the counts of the other folds say."""

import numpy as np
import pytest

from lmcli.errors import TrainingError
from lmcli.models.hybrid import cross_fit as cross_fit_module
from lmcli.models.hybrid.cross_fit import Tables, cross_fit, fold_of, number_of_folds
from lmcli.models.ngram.kneser_ney import KneserNey

V, FOLDS, LENGTH, ORDER = 5, 20, 30, 4


@pytest.fixture(scope="module")
def documents():
    """As many documents as there are folds, each as long as a fold, with a rule in them."""
    rng, found = np.random.default_rng(0), []
    for _ in range(FOLDS):
        document = [V, *rng.integers(V, size=2)]
        while len(document) < LENGTH:
            lean = (document[-1] + document[-2]) % V
            document.append(lean if rng.random() < 0.7 else rng.integers(V))
        found.append(np.array(document))
    return found


@pytest.fixture(scope="module")
def fitted(documents):
    return cross_fit(np.concatenate(documents), V, ORDER)


def looked_up(fitted, places):
    """p of every token, and the back-off weights, at some places."""
    contexts, fold = fitted.at(np.array(places))
    weights = fitted.tables.weights(contexts, fold)
    return fitted.tables.distributions(contexts, fold, weights), weights, contexts, fold


@pytest.mark.parametrize("fold", [0, 7, FOLDS - 1])
def test_a_fold_is_told_what_a_model_of_all_other_documents_says(documents, fitted, fold):
    assert number_of_folds(FOLDS * LENGTH) == FOLDS
    others = np.concatenate([d for i, d in enumerate(documents) if i != fold])
    expected = KneserNey.estimate(others, V, ORDER).distributions(documents[fold][None], LENGTH)[0]
    places = fold * LENGTH + np.arange(LENGTH - 1)  # what follows the last one is a start id
    found, *_ = looked_up(fitted[1], places)
    np.testing.assert_allclose(found, expected[:-1], atol=1e-6)


def test_counts_of_the_same_text_would_say_more(documents, fitted):
    ids = np.concatenate(documents)
    places = np.flatnonzero(ids[1:] != V)
    p, *_ = looked_up(fitted[1], places)
    own = fitted[0].distributions(ids[None], len(ids))[0][places]
    chosen = np.arange(len(places)), ids[places + 1]
    assert np.log(own[chosen]).mean() > np.log(p[chosen]).mean() + 0.1


def test_every_distribution_sums_to_one_and_holds_the_target(documents, fitted):
    places = np.arange(FOLDS * LENGTH)
    p, weights, contexts, fold = looked_up(fitted[1], places)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    for target in range(V):
        one = fitted[1].tables.of_targets(contexts, fold, weights, np.full(len(places), target))
        np.testing.assert_allclose(one, p[:, target], rtol=1e-6)


def test_a_single_table_says_what_it_said_before(documents, fitted):
    table, ids = fitted[0], np.concatenate(documents)
    contexts = [rank[0] for rank in table.contexts(ids[None])]
    tables, fold = Tables.of(table), np.zeros(len(ids), np.int64)
    p = tables.distributions(contexts, fold, tables.weights(contexts, fold))
    np.testing.assert_allclose(p, table.distributions(ids[None], len(ids))[0], rtol=1e-5)
    expected = KneserNey.estimate(ids, V, ORDER).arrays()
    for name, array in table.arrays().items():
        assert np.array_equal(array, expected[name])


def test_a_context_that_was_never_counted_weighs_all_that_is_shorter_fully(fitted):
    tables = fitted[1].tables
    contexts = [np.array([V, 0]), np.array([-1, -1]), np.array([-1, -1])]
    weights = tables.weights(contexts, np.array([0, 1]))
    assert (weights[:, 1:] == 1).all()
    assert (weights[:, 0] < 1).all()


def test_folds_are_equal_pieces_of_the_text():
    folds = fold_of(np.arange(103), 103, 5)
    assert (np.diff(folds) >= 0).all()
    assert set(np.bincount(folds)) == {20, 21}


def test_an_order_of_one_has_no_contexts():
    _, fitted = cross_fit(np.array([V, 0, 1, 1, 2, V, 3, 3]), V, 1)
    p, weights, *_ = looked_up(fitted, [0, 3])
    assert weights.shape == (2, 0)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)


def test_more_n_grams_than_the_free_memory_holds_are_refused(monkeypatch):
    ids = np.random.default_rng(0).integers(7, size=500)
    table, found = cross_fit(ids, 7, 4)
    stacks = [*found.tables.probability, *found.tables.backoff]
    needed = 32 * (table.size + 1) + sum(stack.nbytes for stack in stacks)
    monkeypatch.setattr(cross_fit_module, "available_memory", lambda: needed)
    cross_fit(ids, 7, 4)
    monkeypatch.setattr(cross_fit_module, "available_memory", lambda: needed - 1)
    with pytest.raises(TrainingError, match=r"the tables of [0-9,]+ n-grams need"):
        cross_fit(ids, 7, 4)
