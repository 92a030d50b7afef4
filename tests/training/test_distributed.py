"""Several workers: shares that make up the whole, gradients of the batch, decisions of one."""

import socket
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lmcli.data.batches import IGNORED, Batch
from lmcli.errors import LostWorkerError, TrainingError
from lmcli.system import world_size
from lmcli.training.distributed import MEETING, ProcessGroup, SingleProcess, contact, joined

ROWS = 6


@pytest.fixture
def summed(monkeypatch):
    """What each all-reduce was given; `peers` are added to it, as other workers would."""
    given, peers = [], []

    def all_reduce(tensor):
        given.append(tensor.clone())
        for peer in peers:
            tensor += peer
        return

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return given, peers


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_shares_of_all_workers_are_the_batch(size):
    whole = Batch(
        torch.arange(ROWS * 4).view(ROWS, 4),
        torch.arange(ROWS * 4).view(ROWS, 4) + 1,
        torch.arange(ROWS) % 2 == 0,
    )
    shares = [ProcessGroup(rank, size, rank).shard_batch(whole) for rank in range(size)]
    for name in ("inputs", "targets", "reset_mask"):
        parts = [getattr(share, name) for share in shares]
        assert torch.cat(parts).equal(getattr(whole, name))
        assert {len(part) for part in parts} == {ROWS // size}


def test_rows_that_cannot_be_dealt_out_are_an_error():
    with pytest.raises(ValueError, match=r"6 rows .* 4 workers"):
        ProcessGroup(0, 4, 0).shard(torch.zeros(6))


def test_gradient_and_loss_are_those_of_all_targets_however_they_are_spread(summed):
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 3)
    targets = torch.tensor([[0, 1, IGNORED, 2, IGNORED], [1, 1, 0, 2, 2]])

    def learn(rows):
        model = nn.Linear(3, 3)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        loss = nn.functional.cross_entropy(
            model(inputs[rows]).flatten(0, 1), targets[rows].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        return model, loss

    whole, loss = learn(slice(0, 2))
    given, peers = summed
    other, other_loss = learn(slice(1, 2))
    ProcessGroup(1, 2, 1).all_reduce_gradients(other, other_loss, targets[1:])
    peers.append(given.pop())
    one, one_loss = learn(slice(0, 1))
    mean = ProcessGroup(0, 2, 0).all_reduce_gradients(one, one_loss, targets[:1])
    assert mean.item() == pytest.approx(loss.item(), rel=1e-6)
    for mine, right in zip(one.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(mine.grad, right.grad, atol=1e-7)


def test_a_worker_without_a_target_adds_nothing(summed):
    given, _ = summed
    model = nn.Linear(2, 2)
    nothing = torch.full((1, 3), IGNORED)
    loss = nn.functional.cross_entropy(
        model(torch.ones(3, 2)), nothing.flatten(), ignore_index=IGNORED
    )
    loss.backward()
    assert loss.isnan()
    ProcessGroup(0, 2, 0).all_reduce_gradients(model, loss, nothing)
    assert (given[0] == 0).all()


def test_a_parameter_that_is_not_used_has_no_gradient_afterwards(summed):
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    loss = model["used"](torch.ones(1, 2)).sum()
    loss.backward()
    ProcessGroup(0, 2, 0).all_reduce_gradients(model, loss, torch.zeros(1, 1, dtype=torch.long))
    assert model["used"].weight.grad is not None
    assert model["unused"].weight.grad is None


def test_the_time_is_the_first_workers_and_all_leave_together(summed):
    given, _ = summed
    first, second = ProcessGroup(0, 2, 0), ProcessGroup(1, 2, 1)
    assert (first.sync_clock(3.5), second.sync_clock(99.0)) == (3.5, 0.0)
    assert [told.tolist() for told in given] == [[3.5, 0.0], [0.0, 0.0]]
    assert not second.should_stop(True)  # the others have not heard it
    second.sync_clock(99.0)
    assert given[-1].tolist() == [0.0, 1.0]
    assert second.should_stop(True)


def test_what_torch_says_of_a_lost_worker_is_one_kind_of_error():
    with (
        pytest.raises(LostWorkerError, match=r"lost contact .*: connection closed by peer"),
        contact(),
    ):
        raise RuntimeError("[/src/gloo/pair.cc:547] Connection closed by peer [127.0.0.1]:2")


def test_several_workers_share_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert [ProcessGroup(r, 4, r).local_device("cpu") for r in range(4)] == ["cpu"] * 4
    assert [ProcessGroup(r, 4, r % 2).local_device("cuda") for r in range(4)] == [
        "cuda:0",
        "cuda:1",
    ] * 2
    assert taken == [0, 1, 0, 1]
    with pytest.raises(TrainingError, match="worker 3 of this machine has none, there are 2"):
        ProcessGroup(2, 3, 2).local_device("cuda")
    for device in ("mps", "cuda:1"):
        with pytest.raises(TrainingError, match=f"cannot share '{device}'"):
            ProcessGroup(0, 2, 0).local_device(device)


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "4"}, 1),  # some schedulers say how many, but start one
        ({"RANK": "0", "WORLD_SIZE": "4"}, 4),
        ({"RANK": "0", "WORLD_SIZE": "many"}, 1),
    ],
)
def test_a_launcher_is_known_by_rank_and_world_size(environment, size):
    assert world_size(environment) == size


def test_one_process_alone_has_nobody_to_ask():
    with joined() as alone:
        assert type(alone) is SingleProcess
        assert (alone.size, alone.is_main, alone.sync_clock(2.0), alone.should_stop(True)) == (
            1,
            True,
            2.0,
            True,
        )
        part = torch.arange(3)
        assert alone.gather({"a": part})["a"] is part
        assert alone.shard(part) is part


@pytest.mark.parametrize("rank", [0, 1])
def test_others_that_never_come_are_waited_for_no_longer_than_a_meeting_may_take(monkeypatch, rank):
    """As in a container in which a launcher's variables are left over."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    left = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in left.items():
        monkeypatch.setenv(name, str(value))
    began = time.monotonic()
    with (
        pytest.raises(TrainingError, match=f"worker {rank + 1} of 2 cannot reach") as raised,
        joined(meeting=timedelta(seconds=1)),
    ):
        pass
    assert time.monotonic() - began < 20
    assert "unset RANK and WORLD_SIZE" in raised.value.hint
    assert timedelta(minutes=10) >= MEETING


@pytest.fixture
def group(tmp_path):
    """A true group of torch.distributed, of one."""
    store = dist.FileStore(str(tmp_path / "meeting"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield ProcessGroup(0, 1, 0)
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_state_of_any_type_is_gathered_bit_by_bit(group, kind):
    part = (torch.arange(24).view(4, 3, 2) % 5).to(kind)
    parts = group.gather({"slice": part[:, :, 0], "whole": part})
    assert parts["slice"].equal(part[:, :, 0])
    assert parts["whole"].equal(part)
    assert parts["whole"].dtype == kind
    assert group.broadcast(lambda: 0.1) == 0.1
    group.check_same(lambda: "anything")
    with group.local_main_first():
        pass
