"""Short documents come first, as a pure function of the step and the share of the budget used."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.batches import ContiguousBatches
from lmcli.data.curriculum import LengthCurriculum, document_lengths, stage_bounds

START = 1000


def documents_of(lengths):
    """Documents of the given lengths in tokens, start id included; the other ids are numbered."""
    ids, number = [], 0
    for length in lengths:
        ids += [START, *range(number, number + length - 1)]
        number += length - 1
    return np.array(ids)


def lengths_read(batch):
    """How long the documents are that a batch (one row over a whole epoch) shows."""
    ids = batch.inputs[0].numpy()
    first = np.flatnonzero(ids == START)[0]
    return sorted(document_lengths(np.roll(ids, -first), START).tolist())


def test_each_stage_reads_all_documents_up_to_twice_the_length_and_the_last_one_all():
    ids = documents_of([3, 9, 4, 20, 3, 2])
    whole = ContiguousBatches(ids, START, batch=1, truncation=len(ids))
    whole.truncation = 2  # so that a stage needs no more than two tokens
    first = LengthCurriculum(whole, share=0.5)
    assert len(first.stages) == 5
    for stage in first.stages:
        stage.truncation = stage.stream_length
    seen = [lengths_read(first.batch(0, used)) for used in (0, 0.2, 0.34, 0.44, 0.5, 0.99)]
    everything = [2, 3, 3, 4, 9, 20]
    assert seen == [[2], everything[:4], everything[:4], everything[:5], everything, everything]


@given(share=st.sampled_from([0.0, 0.3, 1.0]), used=st.floats(0, 1), step=st.integers(0, 20))
def test_what_comes_first_depends_on_the_budget_and_on_nothing_else(share, used, step):
    whole = ContiguousBatches(documents_of([3, 9, 4, 20, 3, 2]), START, 2, 2, 0.5, seed=3)
    one = LengthCurriculum(whole, share).batch(step, used)
    again = LengthCurriculum(whole, share).batch(step, used)
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.reset_mask, again.reset_mask)
    if share <= used:
        assert torch.equal(one.inputs, whole[step].inputs)


def test_of_a_big_text_the_first_documents_are_looked_at(monkeypatch):
    monkeypatch.setattr("lmcli.data.curriculum.LOOKED_AT", 14)
    ids = documents_of([3, 9, 4, 20, 3, 2])
    assert document_lengths(ids, START).tolist() == [3, 9]
    first = LengthCurriculum(ContiguousBatches(ids, START, batch=1, truncation=1), share=0.5)
    assert [len(stage.ids) for stage in first.stages] == [3, 3, len(ids)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 40))
def test_bounds_double_and_leave_enough_text_but_never_all_of_it(lengths, least):
    lengths = np.array(lengths)
    bounds = stage_bounds(lengths, least)
    assert all(after == 2 * before for before, after in pairwise(bounds))
    for bound in bounds:
        assert least <= lengths[lengths <= bound].sum() < lengths.sum()


def test_places_of_short_documents_are_those_in_the_whole_text():
    ids = documents_of([3, 9, 4, 20, 3, 2])
    whole = ContiguousBatches(ids, START, batch=2, truncation=2, places=np.arange(len(ids)))
    stages = LengthCurriculum(whole, share=0.5).stages
    assert len(stages) > 2
    for stage in stages:
        for step in range(stage.steps_per_epoch):
            batch = stage[step]
            assert np.array_equal(ids[batch.places.numpy()], batch.inputs.numpy())
