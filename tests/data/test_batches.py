"""Batches: every token of the text, in order, as a pure function of the step."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.batches import IGNORED, RELEASE_EVERY, ContiguousBatches, release

START = 1000


def numbered(length):
    """A text in which every token is different, so that each can be followed."""
    return np.arange(length, dtype=np.uint16)


def epoch(streams, number=0):
    steps = streams.steps_per_epoch
    return [streams[step] for step in range(number * steps, (number + 1) * steps)]


sizes = {
    "length": st.integers(1, 60),
    "batch": st.integers(1, 7),
    "truncation": st.integers(1, 9),
    "number": st.integers(0, 3),
}


@given(**sizes)
def test_places_are_where_the_inputs_are_in_the_text(length, batch, truncation, number):
    ids = numbered(length)
    plain = ContiguousBatches(ids, START, batch, truncation)
    assert plain[0].places is None
    streams = ContiguousBatches(ids, START, batch, truncation, places=np.arange(length))
    for read in epoch(streams, number):
        assert torch.equal(read.places, read.inputs)  # each token is its place


@given(**sizes)
def test_an_epoch_reads_every_token_and_repeats_only_what_fills_up_the_rows(
    length, batch, truncation, number
):
    streams = ContiguousBatches(numbered(length), START, batch, truncation)
    read = Counter()
    for one in epoch(streams, number):
        read.update(one.inputs.flatten().tolist())
    assert set(read) == set(range(length))
    assert read.total() == batch * -(-length // batch)
    assert read.total() - length < batch  # N mod B: filled up, never dropped


@given(**sizes)
def test_an_epoch_reads_every_token_exactly_once_where_streams_are_of_equal_length(
    length, batch, truncation, number
):
    streams = ContiguousBatches(numbered(length * batch), START, batch, truncation)
    read = Counter()
    for one in epoch(streams, number):
        read.update(one.inputs.flatten().tolist())
    assert read == dict.fromkeys(range(length * batch), 1)


@given(**sizes)
def test_a_target_is_the_token_behind_its_input(length, batch, truncation, number):
    streams = ContiguousBatches(numbered(length), START, batch, truncation)
    for one in epoch(streams, number):
        assert torch.equal(one.targets, (one.inputs + 1) % length)


@given(**sizes)
def test_a_stream_goes_on_where_its_last_chunk_ended(length, batch, truncation, number):
    streams = ContiguousBatches(numbered(length), START, batch, truncation)
    chunks = epoch(streams, number)
    for one, following in pairwise(chunks):
        assert torch.equal(one.targets[:, -1], following.inputs[:, 0])
        assert one.inputs.shape[1] == truncation


def test_the_chunks_of_a_text_counted_by_hand():
    streams = ContiguousBatches(numbered(10), START, batch=2, truncation=3)
    assert streams.steps_per_epoch == 2
    first, second = streams[0], streams[1]
    turn = first.inputs[0, 0].item()
    assert first.inputs.tolist() == [
        [(turn + k) % 10 for k in (0, 1, 2)],
        [(turn + k) % 10 for k in (5, 6, 7)],
    ]
    assert second.inputs.tolist() == [
        [(turn + k) % 10 for k in (3, 4)],
        [(turn + k) % 10 for k in (8, 9)],
    ]


def test_nobody_predicts_where_a_document_begins():
    ids = np.array([START, 1, 2, START, 3, START, 4, 5], np.uint16)
    for step in range(12):
        batch = ContiguousBatches(ids, START, batch=2, truncation=3)[step]
        assert START not in batch.targets
        following = {(1, 2), (START, 1), (START, 3), (START, 4), (4, 5)}
        ends = {(2, IGNORED), (3, IGNORED), (5, IGNORED)}
        pairs = zip(batch.inputs.flatten().tolist(), batch.targets.flatten().tolist(), strict=True)
        assert set(pairs) <= following | ends


def test_a_batch_is_a_pure_function_of_step_and_seed():
    def batches(order, seed=0):
        streams = ContiguousBatches(numbered(97), START, 4, 5, reset_probability=0.3, seed=seed)
        found = {step: streams[step] for step in order}
        return [
            (found[s].inputs.tolist(), found[s].targets.tolist(), found[s].reset_mask.tolist())
            for s in sorted(found)
        ]

    assert batches(range(30)) == batches(reversed(range(30)))
    assert batches(range(30)) != batches(range(30), seed=1)


def test_each_epoch_turns_the_text_by_another_amount():
    streams = ContiguousBatches(numbered(500), START, 4, 10)
    firsts = [epoch(streams, number)[0].inputs[0, 0].item() for number in range(8)]
    assert len(set(firsts)) > 5


def test_all_streams_begin_anew_with_every_epoch_and_carry_on_within():
    streams = ContiguousBatches(numbered(100), START, 4, 6)
    for number in range(3):
        reset_mask = [batch.reset_mask.tolist() for batch in epoch(streams, number)]
        assert reset_mask[0] == [True] * 4
        assert not any(map(any, reset_mask[1:]))


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_streams_forget_as_often_as_they_are_told_to(probability):
    streams = ContiguousBatches(numbered(8000), START, 8, 2, reset_probability=probability)
    reset_mask = torch.cat([streams[s].reset_mask for s in range(streams.steps_per_epoch)[1:]])
    error = (probability * (1 - probability) / len(reset_mask)) ** 0.5
    assert reset_mask.float().mean().item() == pytest.approx(probability, abs=4 * error + 1e-9)


def test_ids_on_disk_are_read_like_those_in_memory(tmp_path):
    np.save(tmp_path / "ids.npy", numbered(100))
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    for step in range(9):
        one, other = (
            ContiguousBatches(mapped, START, 3, 7)[step],
            ContiguousBatches(numbered(100), START, 3, 7)[step],
        )
        assert torch.equal(one.inputs, other.inputs)
        assert one.inputs.dtype == torch.int64


def resident(path):
    """Bytes of a mapped file that count as memory of this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = 0
    for line in lines:
        if line.endswith(str(path)):
            found += next(int(x.split()[1]) * 1024 for x in lines if x.startswith("Rss:"))
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell")
def test_what_was_read_of_a_mapped_file_is_given_back_and_read_again(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(10_000_000, dtype=np.int32))
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    total = int(ids.sum())
    assert resident(tmp_path / "ids.npy") > 30_000_000
    streams = ContiguousBatches(ids, start=-1, batch=2, truncation=8)
    streams[1]
    assert resident(tmp_path / "ids.npy") > 30_000_000
    streams[RELEASE_EVERY]
    assert resident(tmp_path / "ids.npy") < 10_000_000
    assert int(ids.sum()) == total
    release(np.arange(3))
