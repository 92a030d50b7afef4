"""The n-gram model as a language model: its state, its two ways to answer, its tensors."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from lmcli.errors import TrainingError
from lmcli.models.ngram.kneser_ney import KneserNey
from lmcli.models.ngram.model import BYTES_PER_TOKEN, NGram, NGramSettings, check_memory

V = 6


def stream(length=600, seed=0):
    """Ids in which each token leans on the two before it, with a start id now and then."""
    rng, ids = np.random.default_rng(seed), [V]
    for _ in range(length):
        likely = (ids[-1] + ids[-2 if len(ids) > 1 else -1]) % V
        ids.append(likely if rng.random() < 0.7 else int(rng.integers(0, V)))
        if rng.random() < 0.02:
            ids.append(V)
    return np.array(ids, dtype=np.uint16)


def counted(order=4):
    model = NGram(V, NGramSettings(order=order))
    model.fit_counts(stream())
    return model


@pytest.mark.parametrize(("vocabulary", "order"), [(65, 6), (256, 6), (400, 5), (20000, 5)])
def test_the_order_follows_the_vocabulary(vocabulary, order):
    assert NGram(vocabulary, NGramSettings()).order == order


def test_a_fresh_model_holds_all_tokens_alike():
    model = NGram(V, NGramSettings())
    logits, _ = model(torch.tensor([[V, 0, 3]]), model.initial_state(1))
    assert torch.allclose(logits, torch.full((1, 3, V), -math.log(V)))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_logits_are_the_log_probabilities_of_the_table(order):
    model = counted(order)
    table = KneserNey.estimate(stream(), V, order)
    read = stream(seed=1)[:40].astype(np.int64)
    logits, _ = model(torch.from_numpy(read)[None], model.initial_state(1))
    expected = table.distributions(np.concatenate([np.full(order, V), read])[None], len(read))
    assert logits.dtype == torch.float32
    assert torch.allclose(logits.double(), torch.from_numpy(expected).log(), atol=1e-6)


@pytest.mark.parametrize("excluded", [None, 0, 1])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_looking_up_targets_is_reading_them_off_the_logits(order, excluded):
    model = counted(order)
    read = torch.from_numpy(stream(seed=2)[:101].astype(np.int64))
    tokens, targets = read[:-1].view(2, 50), read[1:].clone().view(2, 50)
    targets[targets == V] = -1
    state = model.initial_state(2)
    quick, after = model.log_probabilities(tokens, targets, state, excluded)
    slow, after_slow = super(NGram, model).log_probabilities(tokens, targets, state, excluded)
    assert torch.allclose(quick, slow, atol=1e-6)
    assert torch.equal(after[0], after_slow[0])
    assert (quick[targets < 0] == 0).all()
    assert (targets < 0).any()


def test_blocks_of_tokens_that_bound_the_memory_change_nothing():
    model = counted(3)
    tokens = torch.from_numpy(stream(seed=3)[:60].astype(np.int64)).view(2, 30)
    whole, _ = model(tokens, model.initial_state(2))
    wide = NGram(900_000, NGramSettings(order=3))  # 2**22 // (2 * 900000) = 2 tokens a block
    wide.fit_counts(np.where(stream() == V, 900_000, stream().astype(np.int64)))
    logits, _ = wide(torch.where(tokens == V, 900_000, tokens)[:, :5], wide.initial_state(2))
    best = logits[..., :V].argmax(-1)
    assert torch.equal(best, whole[:, :5].argmax(-1))


def test_the_state_is_the_last_tokens_and_forgets_at_a_start():
    model = counted(4)
    _, state = model(torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, V, 4]]), model.initial_state(2))
    assert state[0].tolist() == [[2, 3, 4], [V, V, 4]]


def test_saved_and_loaded_is_the_same():
    model, again = counted(), NGram(V, NGramSettings(order=4))
    again.load_tensors(model.tensors())
    tokens = torch.from_numpy(stream(seed=4)[:50].astype(np.int64))[None]
    assert torch.equal(
        model(tokens, model.initial_state(1))[0], again(tokens, again.initial_state(1))[0]
    )
    assert again.parameter_count() == model.parameter_count() > 100


def test_tensors_of_another_order_or_kind_are_refused():
    tensors = counted(3).tensors()
    with pytest.raises(ValueError, match="missing"):
        counted(4).load_tensors(tensors)
    tensors["1.backoff"] = tensors["1.backoff"].to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"\w"):
        counted(3).load_tensors(tensors)


def test_counting_finds_the_rule():
    model = counted(3)
    read = torch.from_numpy(stream(seed=5).astype(np.int64))
    targets = torch.where(read[1:] == V, -1, read[1:])[None]
    nats, _ = model.log_probabilities(read[None, :-1], targets, model.initial_state(1))
    # 0.75 for the likely token, 0.05 for each of the others
    optimum = 0.75 * math.log(0.75) + 0.25 * math.log(0.05)
    mean = nats.sum().item() / int((targets >= 0).sum())
    assert mean == pytest.approx(optimum, abs=0.2)
    assert mean > -math.log(V) + 0.4


def test_a_stream_too_long_for_the_memory_is_refused_before_it_is_counted():
    check_memory(1000, None)
    check_memory(1000, 48_000)
    with pytest.raises(TrainingError, match="counting 1,000 tokens needs") as caught:
        check_memory(1000, 24_000)
    assert "at most 50% of it" in caught.value.hint


def test_the_memory_asked_for_is_no_more_than_counting_takes():
    ids = np.random.default_rng(0).integers(0, V, 200_000).astype(np.uint8)
    tracemalloc.start()
    try:
        NGram(V, NGramSettings(order=3)).fit_counts(ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert BYTES_PER_TOKEN * len(ids) <= peak <= 4 * BYTES_PER_TOKEN * len(ids)
