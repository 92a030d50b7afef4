"""Kneser-Ney against a sum worked by hand and against a slow implementation with dicts."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.models.ngram.kneser_ney import FALLBACK, KneserNey, discounts

A, B, C, D, START = range(5)
BY_HAND = np.array([START, A, B, A, B, A, B, A, B, START, A, START, C])


class Naive:
    """Modified Kneser-Ney with n-grams as tuples in dicts, one n-gram at a time."""

    def __init__(self, ids, vocabulary, order):
        self.vocabulary, self.order = vocabulary, order
        self.adjusted = [Counter() for _ in range(order + 1)]
        seen = [Counter() for _ in range(order + 1)]
        history = [vocabulary]
        for token in ids:
            if token == vocabulary:
                history = [vocabulary]
                continue
            history.append(token)
            for k in range(1, min(order, len(history)) + 1):
                seen[k][tuple(history[-k:])] += 1
        for k in range(1, order + 1):
            for gram, count in seen[k].items():
                if k == order or gram[0] == vocabulary:
                    self.adjusted[k][gram] = count
                else:
                    self.adjusted[k][gram] = sum(g[1:] == gram for g in seen[k + 1])
        self.followers = defaultdict(list)
        for k in range(1, order + 1):
            for gram, count in self.adjusted[k].items():
                self.followers[gram[:-1]].append(count)
        self.discounts = [None, *(self.discount(self.adjusted[k]) for k in range(1, order + 1))]

    @staticmethod
    def discount(counts):
        n = [sum(c == i for c in counts.values()) for i in range(5)]
        if 0 in n[1:4]:
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        return (0, *found) if all(0 < d <= i for i, d in enumerate(found, 1)) else FALLBACK

    def p(self, token, history):
        """p(token | history), the history cut at its last start id and to the order."""
        history = list(history)
        while self.vocabulary in history[1:]:
            history = history[1:]
        return self._p(token, tuple(history[-(self.order - 1) :]) if self.order > 1 else ())

    def _p(self, token, context):
        lower = self._p(token, context[1:]) if context else 1 / self.vocabulary
        counts = self.followers.get(context)
        if not counts:
            return lower
        taken = self.discounts[len(context) + 1]
        count = self.adjusted[len(context) + 1][(*context, token)]
        gamma = sum(taken[min(c, 3)] for c in counts) / sum(counts)
        return (count - taken[min(count, 3)]) / sum(counts) + gamma * lower


def after(model, history):
    """The distribution behind one history."""
    return model.distributions(np.array([history]), 1)[0, 0]


def test_the_sums_worked_by_hand():
    # documents "a b a b a b a b", "a", "c" of the vocabulary a b c d
    # 2-grams: <a 2, <c 1, ab 4, ba 3, so n1 = n2 = n3 = n4 = 1, y = 1 / (1 + 2) and
    #   D1 = 1 - 2/3 = 1/3, D2 = 2 - 3/3 = 1, D3 = 3 - 4/3 = 5/3
    # tokens in front of a: < and b; of b: a; of c: <; so n1 = 2, n2 = 1, n3 = 0: D = 1/2, 1, 3/2
    model = KneserNey.estimate(BY_HAND, 4, 2)
    # gamma = (1/2 + 1/2 + 1) / 4 = 1/2;  p(a) = (2 - 1)/4 + 1/2 1/4;  p(b) = (1 - 1/2)/4 + 1/8
    alone = np.array([3 / 8, 1 / 4, 1 / 4, 1 / 8])
    assert after(model, [C]) == pytest.approx(alone, abs=1e-7)  # nothing follows c
    # gamma(a) = 5/3 / 4 = 5/12, p(b|a) = (4 - 5/3)/4 + 5/12 1/4 = 11/16
    assert after(model, [A]) == pytest.approx([5 / 32, 11 / 16, 5 / 48, 5 / 96], abs=1e-7)
    # gamma(b) = 5/3 / 3 = 5/9, p(a|b) = (3 - 5/3)/3 + 5/9 3/8 = 47/72
    assert after(model, [B]) == pytest.approx([47 / 72, 5 / 36, 5 / 36, 5 / 72], abs=1e-7)
    # gamma(<) = (1/3 + 1) / 3 = 4/9, p(a|<) = (2 - 1)/3 + 4/9 3/8, p(c|<) = (1 - 1/3)/3 + 4/9 1/4
    assert after(model, [START]) == pytest.approx([1 / 2, 1 / 9, 1 / 3, 1 / 18], abs=1e-7)


def test_discounts_of_counts_by_hand():
    found = discounts(np.array([1, 1, 1, 2, 2, 3, 4, 9]))
    # n = 3 2 1 1, y = 3/7
    assert found == pytest.approx((0, 1 - 2 * 3 / 7 * 2 / 3, 2 - 3 * 3 / 7 / 2, 3 - 4 * 3 / 7))


@pytest.mark.parametrize(
    "counts", [[], [1, 1, 3], [1, 2, 2], [1, 2] + 9 * [3], [1, 2, 3, 3], [0, 0, 1, 1, 3]]
)
def test_discounts_that_cannot_be_had_are_the_fallback(counts):
    assert discounts(np.array(counts, dtype=int)) == FALLBACK


streams = st.integers(1, 5).flatmap(
    lambda v: st.tuples(st.just(v), st.lists(st.integers(0, v), max_size=80))
)


@settings(max_examples=60, deadline=None)
@given(streams, st.integers(1, 5), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_every_probability_is_that_of_the_naive_implementation(stream, order, history):
    vocabulary, ids = stream
    history = [min(token, vocabulary) for token in history]
    model = KneserNey.estimate(np.array(ids, int), vocabulary, order)
    naive = Naive(ids, vocabulary, order)
    expected = [naive.p(token, history) for token in range(vocabulary)]
    found = after(model, history)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(streams, st.integers(1, 5), st.data())
def test_the_two_ways_to_ask_agree(stream, order, data):
    vocabulary, ids = stream
    model = KneserNey.estimate(np.array(ids, int), vocabulary, order)
    read = np.array([data.draw(st.lists(st.integers(0, vocabulary), min_size=9, max_size=9))] * 2)
    read[1] = read[1, ::-1]
    targets = np.array(
        data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=10, max_size=10))
    ).reshape(2, 5)
    p = model.distributions(read, 5)
    chosen = np.take_along_axis(p, targets[..., None], -1)[..., 0]
    assert model.log_probabilities(read, targets) == pytest.approx(np.log(chosen), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_rows_of_every_context_sum_to_one(order):
    ids = np.random.default_rng(0).zipf(1.5, 3000).clip(max=40) - 1
    model = KneserNey.estimate(ids, 40, order)
    unseen_too = np.random.default_rng(1).integers(0, 41, (200, 6))
    for read in (ids[None, :500], unseen_too):
        sums = model.distributions(read, read.shape[1]).sum(-1)
        assert np.abs(sums - 1).max() < 1e-6


def test_a_start_id_hides_what_stands_before_it():
    ids = np.random.default_rng(0).integers(0, 4, 500)
    ids[::9] = 3
    model = KneserNey.estimate(ids, 3, 4)
    behind = [after(model, [*before, 3, 1]) for before in ([0, 2], [1, 1], [3, 3], [0, 3])]
    assert all(np.array_equal(behind[0], other) for other in behind)
    assert not np.allclose(behind[0], after(model, [0, 2, 2, 1]))


def test_a_stream_begins_with_a_document_whether_it_says_so_or_not():
    silent = KneserNey.estimate(BY_HAND[1:], 4, 3).arrays()
    for name, array in KneserNey.estimate(BY_HAND, 4, 3).arrays().items():
        assert np.array_equal(array, silent[name]), name


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_the_kind_of_integer_does_not_matter(kind, tmp_path):
    BY_HAND.astype(kind).tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", dtype=kind, mode="r")
    model = KneserNey.estimate(mapped, 4, 2)
    assert after(model, [A])[B] == pytest.approx(11 / 16)


def test_large_vocabularies_do_not_overflow():
    ids = np.random.default_rng(0).integers(0, 2**30, 50)
    model = KneserNey.estimate(np.tile(ids % 999_983, 3), 1_000_000, 6)
    read = np.tile(ids % 999_983, 2)[None]
    nats = model.log_probabilities(read[:, :-1], read[:, 1:])
    assert math.exp(nats.mean()) > 0.1


def test_nothing_counted_makes_all_tokens_alike():
    model = KneserNey.estimate(np.empty(0, int), 8, 4)
    assert after(model, [8, 3, 1]) == pytest.approx(np.full(8, 1 / 8))
    assert model.log_probabilities(np.array([[8, 1]]), np.array([[2, 3]])) == pytest.approx(
        -math.log(8)
    )


@pytest.mark.parametrize("ids", [[0, 5], [-1, 0]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="ids from"):
        KneserNey.estimate(np.array(ids), 4, 2)


def test_arrays_hold_the_whole_model():
    model = KneserNey.estimate(BY_HAND, 4, 3)
    again = KneserNey.from_arrays(model.arrays(), 4, 3)
    read = np.array([[4, 0, 1, 2, 3, 0, 1, 0]])
    assert np.array_equal(model.distributions(read, 8), again.distributions(read, 8))
    assert again.size == model.size == 4 + 4 + 3


def damaged(name, change):
    arrays = {k: v.copy() for k, v in KneserNey.estimate(BY_HAND, 4, 3).arrays().items()}
    arrays[name] = change(arrays[name])
    return arrays


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("1.token", lambda a: a[::-1].copy()),
        ("2.token", lambda a: a + 4),
        ("2.token", lambda a: a[:-1]),
        ("2.token", lambda a: -a - 1),
        ("2.children", lambda a: a[::-1] * -1),
        ("2.children", lambda a: np.append(a, a[:1] * 0)),
        ("2.token", lambda a: a[[0, 1, 3, 2]]),
        ("2.probability", lambda a: a * 0),
        ("2.probability", lambda a: a * np.float32("nan")),
        ("2.probability", lambda a: a[1:]),
        ("2.backoff", lambda a: a + 1),
        ("3.backoff", lambda a: np.ones(3, np.float32)),
        ("2.backoff", lambda a: a.astype(np.float64)),
        ("2.backoff", lambda a: a[None]),
        ("4.token", None),
    ],
)
def test_damaged_arrays_are_refused(name, change):
    arrays = damaged(name, change) if change else {"4.token": np.zeros(1, np.int32)}
    with pytest.raises(ValueError, match=r"\w"):
        KneserNey.from_arrays(arrays, 4, 3)
