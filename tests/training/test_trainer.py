"""Training: what a step does, when it validates and stops, and that resuming is exact."""

import itertools
import json
import math
import os
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lmcli import system
from lmcli.data.token_cache import count_targets
from lmcli.errors import RunError, TrainingError
from lmcli.registry import MODELS
from lmcli.run import LOG, TRAINING, WEIGHTS, Run
from lmcli.system import hold_freed_memory, move, pick_device, pick_precision
from lmcli.tensor_files import read_tensors, write_tensors
from lmcli.training import trainer as trainer_module
from lmcli.training.checkpoint import Trained, count_into, resume, train_into
from lmcli.training.distributed import SingleProcess
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings

V, STEPS = 7, 24
SETTINGS = TrainingSettings(
    batch=3,
    truncation=6,
    learning_rate=0.02,
    reset_probability=0.2,
    validations=6,
    patience=0,
    precision="float32",
)
DROPOUT = {"rnn": {"layers": 2}, "lstm": {"input_dropout": 0.2, "weight_drop": 0.2}}


@pytest.fixture(scope="module")
def trainer(small_settings, stream):
    """A trainer of a small model on a small text, at step 0."""
    train, valid = stream(200, V, 1, start_every=40), stream(25, V, 2, start_every=10)

    def make(
        name="gru",
        budget=None,
        model_settings=None,
        text=train,
        held_out=valid,
        group=None,
        **changes,
    ):
        torch.manual_seed(0)
        chosen = model_settings or {"dropout": 0.3} | DROPOUT.get(name, {})
        model = MODELS.load(name.split()[0])(V, small_settings(name, **chosen))
        made = replace(SETTINGS, **changes)
        budget = budget or Budget(steps=STEPS)
        return Trainer(model, text, held_out, made, budget, seed=3, group=group)

    return make


def finish(loop):
    """The last progress."""
    last = None
    for progress in loop:
        last = progress
    return last


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_a_training_begins_with_the_frequencies_of_tokens(trainer, stream, name):
    one = trainer(name)
    counts = np.bincount(stream(200, V, 1, start_every=40), minlength=V + 1)[:V] + 1.0
    bias = one.model.output_parameters()[1].detach()
    assert bias.exp().tolist() == pytest.approx(counts / counts.sum())


# ------------------------------------------------------------------ exact resume


def kept(folder):
    """All that must be the same in the end: weights, optimiser, state, random state, log, best."""
    tensors, values = read_tensors(folder / TRAINING)
    best, about = read_tensors(folder / WEIGHTS)
    values.pop("seconds", None)
    found = {f"last.{k}": v for k, v in tensors.items()} | {f"best.{k}": v for k, v in best.items()}
    return found, [values, about, (folder / LOG).read_bytes()]


def assert_same(one, other):
    assert one[1] == other[1]
    assert set(one[0]) == set(other[0])
    for name, tensor in one[0].items():
        assert tensor.dtype == other[0][name].dtype, name
        assert torch.equal(tensor, other[0][name]), name


BUDGETS = {"steps": Budget(steps=STEPS), "epochs": Budget(epochs=2.2)}
KINDS = {
    "gru": ("gru", {}),
    "rnn": ("rnn", {}),
    "lstm": ("lstm", {}),
    "window": ("window", {}),
    "lstm, adaptive": (
        "lstm softmax=adaptive",
        {"second_moment": "table", "recurrent_weight_decay": 0.1},
    ),
    "hybrid": ("hybrid", {"recurrent_weight_decay": 0.1}),
    "lstm in bfloat16": ("lstm", {"precision": "bfloat16"}),
    "gru, impatient": ("gru", {"patience": 1, "learning_rate": 0.3}),
}


@pytest.fixture(scope="module")
def unbroken(trainer, make_run, tmp_path_factory):
    """What is kept of a training that was never stopped."""

    @cache
    def train(kind, budget):
        name, changes = KINDS[kind]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer_module, "LOG_EVERY", 5)
            own = {"dropout": 0.3} | DROPOUT.get(name, {})
            run = make_run(tmp_path_factory.mktemp("unbroken") / "run", name, **own)
            last = finish(train_into(run, trainer(name, BUDGETS[budget], **changes)))
        return kept(run.path), last.step

    return train


@pytest.mark.parametrize(
    ("kind", "budget"), [*((kind, "steps") for kind in sorted(KINDS)), ("lstm", "epochs")]
)
@given(stops=st.lists(st.tuples(st.integers(1, STEPS), st.booleans()), min_size=1, max_size=3))
@settings(max_examples=4)
def test_a_training_that_was_stopped_and_resumed_ends_like_an_unbroken_one(
    trainer, make_run, unbroken, kind, budget, stops
):
    name, changes = KINDS[kind]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        patch.setattr(trainer_module, "LOG_EVERY", 5)
        own = {"dropout": 0.3} | DROPOUT.get(name, {})
        run, lines = make_run(Path(place) / "0", name, **own), 0
        one = trainer(name, BUDGETS[budget], **changes)
        for number, (stop, killed) in enumerate(sorted(stops), 1):
            loop = train_into(run, one, lines)
            for progress in loop:
                if progress.step >= stop:
                    break
            folder = Path(place) / str(number)
            if killed:  # what is on the disk at this moment, and half a line
                shutil.copytree(run.path, folder)
                with (folder / LOG).open("a") as log:
                    log.write('{"step": 1')
            loop.close()
            if not killed:
                run.path.rename(folder)
            run, one = Run.open(folder), trainer(name, BUDGETS[budget], **changes)
            torch.manual_seed(99)
            lines = resume(run, one)
        finish(train_into(run, one, lines))
        assert_same(kept(run.path), unbroken(kind, budget)[0])


def test_a_stop_goes_on_at_the_next_step_and_a_kill_at_the_last_checkpoint(
    trainer, make_run, tmp_path
):
    run, first = make_run(tmp_path / "run"), trainer()
    loop = train_into(run, first)
    while next(loop).step < 11:  # validates at 4 and 8
        pass
    shutil.copytree(run.path, tmp_path / "killed")
    loop.close()
    stopped, killed = trainer(), trainer()
    resume(run, stopped)
    resume(Run.open(tmp_path / "killed"), killed)
    assert (stopped.step, killed.step) == (11, 8)
    assert stopped.tokens == first.tokens > killed.tokens


def test_resuming_what_was_finished_changes_nothing(trainer, make_run, tmp_path):
    for number, changes in enumerate(({}, {"patience": 1, "learning_rate": 0.3})):
        run = make_run(tmp_path / str(number))
        last = finish(train_into(run, trainer(**changes)))
        assert last.done == ("patience" if changes else "budget")
        before = kept(run.path)
        again = trainer(**changes)
        lines = resume(run, again)
        assert finish(train_into(run, again, lines)) is None
        assert_same(kept(run.path), before)


@pytest.mark.parametrize(
    ("wanted", "first", "measured", "there", "chosen"),
    [
        ("auto", "bfloat16", "float32", True, "bfloat16"),
        ("auto", "float32", "bfloat16", True, "float32"),
        ("auto", "bfloat16", "float32", False, "float32"),  # resumed on another machine
        ("float32", "bfloat16", "float32", True, "float32"),
    ],
)
def test_a_resumed_training_computes_in_the_precision_it_began_in(
    trainer, make_run, tmp_path, monkeypatch, wanted, first, measured, there, chosen
):
    monkeypatch.setattr(trainer_module, "has_bfloat16", lambda device: there)
    monkeypatch.setattr(trainer_module, "pick_precision", lambda setting, device: first)
    run, one = make_run(tmp_path / "run"), trainer(precision=wanted)
    loop = train_into(run, one)
    next(loop)
    loop.close()
    assert Trained.by(one).precision == first
    monkeypatch.setattr(trainer_module, "pick_precision", lambda setting, device: measured)
    again = trainer(precision=wanted)
    assert again.precision == measured
    resume(run, again)
    assert Trained.by(again).precision == chosen


def test_a_checkpoint_without_a_precision_is_resumed_in_that_of_this_machine(trainer):
    one = trainer()
    tensors, values = one.state_dict()
    del values["precision"]  # as earlier versions saved it
    again = trainer()
    again.load_state_dict(tensors, values)
    assert again.precision == one.precision


def test_the_log_holds_no_clock_times_and_one_line_for_each_logged_step(
    trainer, make_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 5)
    run = make_run(tmp_path / "run")
    progress = list(train_into(run, trainer()))
    entries = [json.loads(line) for line in (run.path / LOG).read_text().splitlines()]
    assert [e["step"] for e in entries] == [4, 5, 8, 10, 12, 15, 16, 20, 24]
    assert [e["step"] for e in entries if e["valid"] is not None] == [4, 8, 12, 16, 20, 24]
    assert entries == [p.entry() for p in progress if p.logged]
    assert set(entries[0]) == {"step", "tokens", "loss", "learning_rate", "valid"}


def test_a_training_left_before_it_validated_leaves_weights_to_open(trainer, make_run, tmp_path):
    run, one = make_run(tmp_path / "run"), trainer()
    loop = train_into(run, one)
    next(loop)
    loop.close()
    tensors, about = read_tensors(run.path / WEIGHTS)
    assert about == {"step": 1, "run": run.record.id}
    for name, tensor in one.model.tensors().items():
        assert torch.equal(tensors[name], tensor)


def test_weights_that_were_lost_are_those_of_the_checkpoint_or_an_error(
    trainer, make_run, tmp_path
):
    run, one = make_run(tmp_path / "run"), trainer()
    for _ in train_into(run, one):
        if one.step == one.early_stopping.best_step:
            saved = (run.path / WEIGHTS).read_bytes()
            break
    else:
        pytest.fail("no validation was the best")
    at_best = {f.name: f.read_bytes() for f in run.path.iterdir() if f.is_file()}
    (run.path / WEIGHTS).unlink()
    resume(run, trainer())
    assert (run.path / WEIGHTS).read_bytes() == saved
    for name, content in at_best.items():
        (run.path / name).write_bytes(content)
    again = trainer()
    loop = train_into(run, again, resume(run, again))
    while again.step == again.early_stopping.best_step or again.step < 2:
        next(loop)
    loop.close()
    (run.path / WEIGHTS).unlink()
    with pytest.raises(RunError, match="the weights of step"):
        resume(run, trainer())


def test_a_log_that_lost_lines_is_damaged(trainer, make_run, tmp_path):
    run = make_run(tmp_path / "run")
    finish(train_into(run, trainer()))
    log = run.path / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    one = trainer()
    with pytest.raises(RunError, match=r"it has \d+ lines, the checkpoint counts \d+"):
        finish(train_into(run, one, resume(run, one)))


def test_the_log_is_on_the_disk_before_the_checkpoint_that_counts_its_lines(
    trainer, make_run, tmp_path, monkeypatch
):
    run, order = make_run(tmp_path / "run"), []
    log, replace, fsync = run.path / "log.jsonl", os.replace, os.fsync

    def note(name, call, what):
        def noted(*arguments):
            order.append(what(*arguments))
            return call(*arguments)

        monkeypatch.setattr(os, name, noted)

    note("replace", replace, lambda source, target: Path(target).name)
    note("fsync", fsync, lambda fd: os.path.samestat(os.fstat(fd), log.stat()) and "log synced")
    run.append_log({"step": 1})
    run.save_training({}, {})
    assert order.index("log synced") < order.index("training.safetensors")


def test_a_checkpoint_of_another_model_is_refused(trainer, make_run, tmp_path):
    run = make_run(tmp_path / "run")
    finish(train_into(run, trainer("gru", Budget(steps=1))))
    with pytest.raises(RunError, match="cannot be resumed"):
        resume(run, trainer("lstm"))


# ------------------------------------------------------------------ one step


def expected_rate(step, warmup, total=STEPS, peak=0.02):
    used = step / total
    rise = min(1, (step + 1) / total / warmup) if used < warmup else 1
    fall = (1 + math.cos(math.pi * max(0, used - warmup) / (1 - warmup))) / 2 if warmup < 1 else 1
    return peak * rise * fall


@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.25, 1.0])
def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine(trainer, warmup):
    rates = [p.learning_rate for p in trainer(warmup=warmup).run()]
    right = [expected_rate(step, warmup) for step in range(STEPS)]
    assert rates == pytest.approx(right, rel=1e-5, abs=1e-9)


def test_a_learning_rate_of_zero_is_zero(trainer):
    one = trainer(learning_rate=0.0)
    before = {k: v.clone() for k, v in one.model.tensors().items()}
    finish(one.run())
    for name, tensor in one.model.tensors().items():
        assert torch.equal(tensor, before[name])


def test_the_loss_is_the_mean_over_the_tokens_that_are_predicted(trainer, stream):
    one = trainer(model_settings={"dropout": 0.0}, text=stream(200, V, 1, start_every=5))
    batch = one.streams[0]
    assert (batch.targets == -1).any()
    with torch.no_grad():
        logits, _ = one.model(batch.inputs, one.model.initial_state(3))
    naive = []
    for b, t in np.argwhere(batch.targets.numpy() >= 0):
        naive.append(-logits[b, t].log_softmax(0)[batch.targets[b, t]].item())
    assert next(one.run()).loss == pytest.approx(sum(naive) / len(naive), rel=1e-5)


def test_the_state_is_carried_from_chunk_to_chunk_and_forgotten_where_told(trainer):
    one = trainer(model_settings={"dropout": 0.0}, reset_probability=0.5)
    one.sync_every = 1
    loop = one.run()
    for step in range(12):
        batch, state = one.streams[step], one.state
        keep = (~batch.reset_mask).float().unsqueeze(1)
        with torch.no_grad():
            logits, after = one.model(batch.inputs, tuple(part * keep for part in state))
        flat = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1)
        sums = one.loss_sum
        next(loop)
        assert torch.allclose(one.state[0], after[0], atol=1e-6)
        if one.loss_steps:  # not set back by a validation
            assert one.loss_sum - sums == pytest.approx(flat.item(), rel=1e-5)
        assert not one.state[0].requires_grad


def after_one_step(trainer, name, **decays):
    one = trainer(name, warmup=0.0, **decays)
    next(one.run())
    return one.model.tensors()


@pytest.mark.parametrize("recurrent", [None, 0.0, 0.25])
def test_weights_decay_by_their_share_and_biases_never(trainer, recurrent):
    decayed = {}
    for name in ("gru", "lstm", "rnn", "window"):
        begin = {k: v.clone() for k, v in trainer(name).model.tensors().items()}
        decays = {"weight_decay": 0.5, "recurrent_weight_decay": recurrent}
        with_decay = after_one_step(trainer, name, **decays)
        without = after_one_step(trainer, name, weight_decay=0.0)
        for key, value in with_decay.items():
            lost = without[key] - value
            decay = (recurrent or 0.0) if "recurrent" in key else 0.5
            if value.dim() < 2 or not decay:
                assert (lost == 0).all(), key
            else:
                assert torch.allclose(lost, 0.02 * decay * begin[key], atol=1e-6), key
                decayed.setdefault(name, []).append(key)
    others = {"embed.weight", "layers.0.input_weight", "output.weight"}
    assert set(decayed["gru"]) == others | ({"layers.0.recurrent_weight"} if recurrent else set())


def test_moments_without_recurrent_decay_are_numbered_as_in_earlier_checkpoints(trainer):
    one = trainer("lstm", model_settings={"layers": 2})
    shapes = {k: tuple(v.shape) for k, v in one.model.tensors().items()}
    matrices = ["embed.weight", "layers.0.input_weight", "layers.1.input_weight", "output.weight"]
    free = [f"layers.{i}.{name}" for i in (0, 1) for name in ("recurrent_weight", "bias")]
    moments = one.optimizer.tensors()
    found = [tuple(moments[f"{i}.exp_avg"].shape) for i in range(len(shapes))]
    assert found == [shapes[n] for n in (*matrices, *free, "output.bias")]


def norm(model):
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in model.parameters()))


def test_the_gradient_is_cut_to_the_given_norm_and_with_zero_left_alone(trainer):
    free = trainer(clip=0.0)
    next(free.run())
    assert norm(free.model) > 0.05
    cut = trainer(clip=0.05)
    next(cut.run())
    assert norm(cut.model) == pytest.approx(0.05, rel=1e-3)
    for one, other in zip(free.model.parameters(), cut.model.parameters(), strict=True):
        scaled = one.grad * 0.05 / norm(free.model)
        assert torch.allclose(other.grad, scaled, atol=1e-6)


# ------------------------------------------------------------------ budgets


def test_a_budget_in_steps_or_epochs_is_that_many_steps(trainer):
    assert finish(trainer().run()).step == STEPS
    one = trainer(budget=Budget(epochs=1.5))
    assert one.streams.steps_per_epoch == 12  # 200 ids in 3 streams of 67, 6 at a time
    last = finish(one.run())
    assert (last.step, last.fraction, last.done) == (18, 1.0, "budget")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    state = SimpleNamespace(now=0.0)

    def read():
        state.now += 1.0
        return state.now

    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=read, monotonic=read))
    return state


def test_a_budget_in_minutes_counts_training_time_alone_and_across_stops(
    trainer, make_run, tmp_path, clock
):
    budget = Budget(minutes=1)
    settings = {"most_epochs": 0.0}
    unbroken = trainer(budget=budget, **settings)
    last = finish(unbroken.run())
    assert last.seconds == pytest.approx(60, abs=2)
    assert last.valid is not None  # however the clock falls, the end is validated
    run, steps = make_run(tmp_path / "run"), []
    one, lines = trainer(budget=budget, **settings), 0
    for stop in (7, 19, 10**6):
        loop = train_into(run, one, lines)
        for progress in loop:
            steps.append(progress.step)
            clock.now += 1000  # what the caller does in between
            if progress.step >= stop:
                break
        loop.close()
        one = trainer(budget=budget, **settings)
        lines = resume(run, one)
    assert steps == list(range(1, last.step + 1))
    assert one.seconds == pytest.approx(last.seconds)


def test_the_last_validation_belongs_to_a_budget_in_minutes(trainer, clock, monkeypatch):
    """Steps of a second, validations of nine seconds: all ends within a step of the minute."""
    one = trainer(budget=Budget(minutes=1), most_epochs=0.0, validations=4)
    validate = one.validate

    def slow() -> float:
        clock.now += 8.0
        return validate()

    monkeypatch.setattr(one, "validate", slow)
    last = finish(one.run())
    assert last.valid is not None
    assert 58 <= last.seconds <= 62


def test_a_long_validation_is_no_time_that_has_been_used_at_the_beginning(trainer, clock, stream):
    """Ten minutes, of which the last validation would take two; a step takes a second."""
    one = trainer(budget=Budget(minutes=10), held_out=stream(6000, V), most_epochs=0.0)
    assert finish(one.run(until=0.04)).step == pytest.approx(20, abs=1)


def test_a_budget_in_minutes_ends_early_after_the_given_passes_over_the_text(trainer, clock):
    last = finish(trainer(budget=Budget(minutes=100), most_epochs=2).run())
    assert last.step == 24
    assert last.done == "epochs"
    assert last.learning_rate < 0.001  # the schedule has come to its end as well


def test_training_until_a_share_and_going_on_is_training_at_once(trainer):
    whole = trainer()
    finish(whole.run())
    parts = trainer()
    first = finish(parts.run(until=0.3))
    assert first.step == 8
    finish(parts.run())
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------ validation


def test_the_validation_loss_is_over_every_token_once(trainer):
    one = trainer(model_settings={"dropout": 0.5})
    for progress in one.run():
        if progress.valid is not None:
            break
    one.model.eval()
    state, nats = one.model.initial_state(1), []
    ids = one.valid.tolist()
    for token, target in pairwise(ids):
        with torch.no_grad():
            logits, state = one.model(torch.tensor([[token]]), state)
        if target != V:
            nats.append(-logits[0, 0].log_softmax(0)[target].item())
    assert len(nats) == count_targets(one.valid, V)
    assert progress.valid == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_validating_leaves_no_trace_in_the_training(trainer):
    often = trainer()
    finish(often.run())
    never = trainer(validations=1)
    finish(never.run())
    for one, other in zip(often.model.parameters(), never.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_validations_lie_evenly_and_one_is_at_the_end(trainer, stream):
    one = trainer(text=stream(2000, V), held_out=stream(20, V), validations=4)
    assert [p.step for p in one.run() if p.valid is not None] == [6, 12, 18, 24]


def test_a_long_validation_text_is_read_less_often(trainer, stream):
    held_out = stream(90, V)
    one = trainer(text=stream(2000, V), held_out=held_out, validations=24)
    steps = [p.step for p in one.run() if p.valid is not None]
    learnt = 18 * np.diff([0, *steps])  # 18 tokens a step
    assert (learnt[:-1] >= 2 * len(held_out)).all()
    assert steps[-1] == STEPS
    assert len(steps) > 1


def test_the_best_weights_are_kept_and_not_the_last(trainer, make_run, tmp_path):
    run, one = make_run(tmp_path / "run"), trainer(learning_rate=0.3)
    losses, best = {}, {}
    for progress in train_into(run, one):
        if progress.valid is not None:
            losses[progress.step] = progress.valid
            best[progress.step] = {k: v.clone() for k, v in one.model.tensors().items()}
    least = min(losses, key=losses.get)
    assert least != STEPS, "this training should become worse again"
    stopping = one.early_stopping
    assert (stopping.best, stopping.best_step) == (losses[least], least)
    tensors, about = read_tensors(run.path / WEIGHTS)
    assert about["step"] == least
    for name, tensor in tensors.items():
        assert torch.equal(tensor, best[least][name])


@pytest.mark.parametrize(("patience", "stop"), [(1, 16), (2, 20), (0, 24)])
def test_patience_is_how_many_validations_may_bring_nothing_once_the_rate_is_low(
    trainer, patience, stop
):
    last = finish(trainer(learning_rate=0.0, patience=patience).run())  # nothing ever changes
    assert last.step == stop
    assert last.done == ("patience" if patience else "budget")


def test_validations_before_long_documents_are_trained_on_do_not_try_the_patience(trainer):
    documents = [np.append(V, np.arange(length) % V) for length in [3] * 10 + [29] * 5]
    text = np.concatenate(documents).astype(np.uint16)
    one = trainer(learning_rate=0.0, patience=1, curriculum=0.7, text=text)
    assert one.batches.ends[-1] == pytest.approx(0.7)
    last = finish(one.run())
    assert last.step == 20  # validated at 4, 8, ...; from 16.8 on the whole text is read
    assert last.done == "patience"


# ------------------------------------------------------------------ when it blows up


def test_a_loss_that_becomes_nan_stops_with_a_hint_and_keeps_the_best_weights(
    trainer, make_run, tmp_path
):
    run, one = make_run(tmp_path / "run"), trainer()
    loop = train_into(run, one)
    while next(loop).step < 9:
        pass
    before = (run.path / WEIGHTS).read_bytes()
    one.model.output.bias.data[0] = math.nan
    with pytest.raises(TrainingError, match="became NaN at step 10 ") as caught:
        finish(loop)
    assert "best weights so far are kept" in caught.value.hint
    assert "--set learning_rate=0.005" in caught.value.hint
    assert (run.path / WEIGHTS).read_bytes() == before
    assert all(v.isfinite().all() for v in read_tensors(run.path / WEIGHTS)[0].values())
    assert all(v.isfinite().all() for v in read_tensors(run.path / TRAINING)[0].values())


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "window"])
def test_a_learning_rate_out_of_all_proportion_is_an_error_and_never_a_result(trainer, name):
    one = trainer(name, Budget(steps=200), learning_rate=1e4, clip=0.0)
    with pytest.raises(TrainingError, match=r"exploded|NaN"):
        finish(one.run())


def test_a_text_that_is_merely_hard_is_no_explosion(trainer):
    rng = np.random.default_rng(0)
    noise = np.append(V, rng.integers(V, size=300)).astype(np.uint16)
    assert finish(trainer(text=noise).run()).step == STEPS


# ------------------------------------------------------------------ counting


def test_a_model_that_counts_first_begins_with_its_validation_loss_and_may_keep_it(
    trainer, make_run, tmp_path
):
    run, one = make_run(tmp_path / "run", "hybrid"), trainer("hybrid", learning_rate=0.0)
    first, *rest = list(train_into(run, one))
    assert (first.step, first.best, first.logged) == (0, True, False)
    assert rest[0].step == 1
    validated = [progress for progress in rest if progress.valid is not None]
    assert [progress.valid for progress in validated] == [first.valid] * 6
    assert not any(progress.best for progress in validated)
    assert run.weights_step() == 0


def test_a_model_that_counts_first_left_at_once_keeps_what_it_has_counted(
    trainer, make_run, tmp_path
):
    run = make_run(tmp_path / "run", "hybrid")
    loop = train_into(run, trainer("hybrid", learning_rate=0.5))
    while next(loop).step < 1:
        pass
    loop.close()
    assert run.weights_step() == 0  # those that were validated


def test_counting_belongs_to_a_budget_in_minutes(trainer):
    one = trainer("hybrid", Budget(minutes=1))
    assert one.counting_seconds > 0
    one.counting_seconds, one.seconds, one.validation_seconds = 40.0, 5.0, 1e-9
    assert one.fraction == pytest.approx(5 / 20)
    one.counting_seconds = 80.0  # nothing is left
    assert one.fraction == 1.0


def test_a_resumed_training_has_used_as_much_of_its_minutes_as_before(trainer, make_run, tmp_path):
    run, one = make_run(tmp_path / "run", "hybrid"), trainer("hybrid", Budget(minutes=1))
    one.counting_seconds = 17.0
    loop = train_into(run, one)
    while one.step < 3:
        next(loop)
    one.validation_seconds = 2.5
    loop.close()
    other = trainer("hybrid", Budget(minutes=1))
    resume(run, other)
    assert other.counting_seconds == 17.0
    assert other.fraction == one.fraction


def test_counts_that_are_the_best_so_far_are_in_the_first_checkpoint(trainer, make_run, tmp_path):
    run, one = make_run(tmp_path / "run", "hybrid"), trainer("hybrid")
    weights = {name: t.clone() for name, t in one.model.tensors().items()}
    for _ in one.run(0.2):
        pass
    loop = train_into(run, one, counted=(0.5, weights))
    next(loop)
    values = run.load_training()[1]
    assert (values["best"], values["best_step"], run.weights_step()) == (0.5, 0, 0)
    other = trainer("hybrid")
    resume(run, other)
    assert other.step > 0
    assert other.early_stopping.best == 0.5
    loop.close()


def test_weights_of_step_0_that_were_lost_are_missed(trainer, make_run, tmp_path):
    run = make_run(tmp_path / "run", "hybrid")
    loop = train_into(run, trainer("hybrid", learning_rate=0.5))
    while next(loop).step < 1:
        pass
    loop.close()
    (run.path / WEIGHTS).unlink()
    with pytest.raises(RunError, match=r"the weights of step 0 are missing \(none found\)"):
        resume(run, trainer("hybrid", learning_rate=0.5))


def test_all_workers_take_what_the_first_has_counted_off_the_budget(trainer):
    class Second(SingleProcess):
        """A worker that is slower at counting than the main one."""

        def sync_clock(self, seconds):
            return 12.0

    one = trainer("hybrid", Budget(minutes=1), group=Second())
    assert one.counting_seconds == 12.0
    one.seconds, one.validation_seconds = 24.0, 1e-9
    assert one.fraction == pytest.approx(24 / 48)


def test_all_workers_compute_in_the_precision_of_the_first(trainer):
    class Second(SingleProcess):
        """A worker whose main process has bfloat16."""

        def broadcast(self, measure):
            return 1.0

    assert trainer(precision="float32", group=Second()).precision == "bfloat16"
    assert trainer(precision="float32").precision == "float32"


def test_a_model_that_counts_is_trained_in_one_step(make_run, small_settings, stream, tmp_path):
    run = make_run(tmp_path / "run", "ngram")
    model = run.new_model()
    train, valid = stream(300, V, 1, start_every=50), stream(60, V, 2)
    trained = count_into(run, model, train, valid)
    assert (trained.steps, trained.best_step, trained.stopped) == (1, 1, "counted")
    assert trained.tokens_seen == (train != V).sum()
    assert trained.precision == "float64"
    again = run.model()
    tokens = torch.from_numpy(valid[:-1].astype(np.int64)).unsqueeze(0)
    logits, _ = again(tokens, again.initial_state(1))
    nats = F.cross_entropy(logits[0], torch.from_numpy(valid[1:].astype(np.int64)))
    entry = json.loads((run.path / LOG).read_text())
    assert set(entry) == {"step", "tokens", "loss", "learning_rate", "valid"}
    assert entry["loss"] is None
    assert entry["valid"] == pytest.approx(nats.item(), rel=1e-5)


# ------------------------------------------------------------------ devices and precision


@pytest.mark.parametrize(
    ("capabilities", "kernels", "seconds", "chosen"),
    [
        ({"avx512_bf16": True}, True, (2e-3, 1e-3), "bfloat16"),
        ({"avx512_bf16": True}, True, (1e-3, 2e-3), "float32"),
        ({"avx512_bf16": True}, True, (1.1e-3, 1e-3), "float32"),  # too near to be sure
        ({"amx_bf16": True, "avx512_bf16": False}, True, (2e-3, 1e-3), "bfloat16"),
        ({"avx512_bf16": True}, False, (2e-3, 1e-3), "float32"),
        ({"avx2": True}, True, (2e-3, 1e-3), "float32"),
        ({}, True, (2e-3, 1e-3), "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_and_kernels_and_is_faster(
    monkeypatch, capabilities, kernels, seconds, chosen
):
    monkeypatch.setattr(system, "_product_seconds", lambda: seconds)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: kernels)
    monkeypatch.setattr(torch, "lstm", lambda *arguments: None)  # as if it were there
    assert pick_precision("auto", "cpu") == chosen
    assert pick_precision("float32", "cpu") == "float32"
    assert pick_precision("bfloat16", "cpu") == "bfloat16"
    assert pick_precision("auto", "mps") == "float32"


def test_the_time_of_a_product_is_the_least_of_several(monkeypatch):
    lasting = itertools.chain(itertools.repeat(9.0, 2), [3.0, 5.0], itertools.repeat(9.0))
    ticks = (tick for seconds in lasting for tick in (0.0, seconds))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(system, "time", clock)
    kinds = []
    monkeypatch.setattr(torch, "mm", lambda a, b: kinds.append((a.dtype, b.dtype)))
    assert system._product_seconds.__wrapped__() == (3.0, 5.0)
    assert kinds == [(kind, kind) for kind in (torch.float32, torch.bfloat16)] * system.ROUNDS


def test_a_cpu_computes_in_float32_where_onednn_was_told_to_do_without_bfloat16(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch, "lstm", fail)
    monkeypatch.setattr(system, "_product_seconds", lambda: (2e-3, 1e-3))
    assert pick_precision("auto", "cpu") == "float32"


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_where_it_can(monkeypatch, supported, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert pick_precision("auto", "cuda:1") == chosen


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_best_device_is_taken_and_a_missing_one_is_an_error(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == chosen
    assert pick_device("cpu") == "cpu"
    for name, there in (("cuda", cuda), ("cuda:0", cuda), ("mps", mps), ("tpu", False)):
        if there:
            assert pick_device(name) == name
        else:
            with pytest.raises(TrainingError, match=name):
                pick_device(name)


def test_low_precision_learns_as_well(trainer):
    exact, low = (finish(trainer(precision=p).run()) for p in ("float32", "bfloat16"))
    assert low.valid == pytest.approx(exact.valid, abs=0.1)
    assert low.valid != exact.valid


# ------------------------------------------------------------------ losses that wait on a GPU


def test_losses_that_are_fetched_together_make_the_same_log_and_weights(
    trainer, make_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 5)
    runs = []
    for every in (1, 7):
        one = trainer()
        one.sync_every = every
        run = make_run(tmp_path / str(every))
        loop = train_into(run, one)
        while next(loop).step < 7:
            pass
        loop.close()  # with losses that nobody has looked at yet
        again = trainer()
        again.sync_every = every
        lines = resume(run, again)
        finish(train_into(run, again, lines))
        runs.append(kept(run.path))
    assert_same(*runs)


def test_losses_are_fetched_once_in_so_many_steps_and_when_they_are_logged(trainer, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 12)
    one = trainer(validations=1)
    one.sync_every, fetched = 5, []
    for progress in one.run():
        if not one.unread:
            fetched.append(progress.step)
    # the first since the last line of the log, then every fifth, then the line itself
    assert fetched == [1, 6, 11, 12, 13, 18, 23, 24]


def test_a_nan_that_is_fetched_late_is_named_by_its_step_and_never_saved(
    trainer, make_run, tmp_path
):
    run, one = make_run(tmp_path / "run"), trainer(validations=1)
    one.sync_every = 10
    loop = train_into(run, one)
    while next(loop).step < 4:
        pass
    one.model.output.bias.data[0] = math.nan
    next(loop)
    before = (run.path / TRAINING).read_bytes()
    with pytest.raises(TrainingError, match="became NaN at step 5 "):
        loop.close()
    assert (run.path / TRAINING).read_bytes() == before


def test_what_is_measured_after_an_explosion_is_an_error(trainer):
    one = trainer(validations=1)
    one.sync_every = 10
    loop = one.run()
    while next(loop).step < 4:
        pass
    one.model.output.bias.data[0] = math.nan
    next(loop)
    with pytest.raises(TrainingError, match="at step 5 "):
        one.validate()


def test_a_checkpoint_that_was_made_on_a_gpu_goes_on_without_one(trainer, make_run, tmp_path):
    run, one = make_run(tmp_path / "run"), trainer()
    loop = train_into(run, one)
    while next(loop).step < 9:
        pass
    loop.close()
    tensors, values = read_tensors(run.path / TRAINING)
    write_tensors(run.path / TRAINING, tensors | {"random.cuda": torch.zeros(16)}, values)
    other = trainer()
    resume(run, other)
    assert other.step == 9
    assert finish(other.run()).step == STEPS


def test_a_gpu_is_given_pinned_memory_and_a_cpu_its_own(monkeypatch):
    tensor, calls = torch.arange(3), []
    assert move(tensor, "cpu") is tensor
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *where, **how: calls.append((where, how)) or self
    )
    move(tensor, "cuda:1")
    assert calls == ["pinned", (("cuda:1",), {"non_blocking": True})]


def test_who_trains_or_opens_a_model_holds_freed_memory(tmp_path, make_run, trainer):
    def held(call):
        hold_freed_memory.cache_clear()
        call()
        return hold_freed_memory.cache_info().misses == 1

    run = make_run(tmp_path / "run")
    run.save_weights(run.new_model().tensors(), 1)
    assert held(trainer)
    assert held(Run.open(run.path).model)
    assert not held(lambda: None)


def test_a_training_has_its_threads_and_gives_them_back(trainer):
    before = torch.get_num_threads()
    loop = trainer(threads=before + 1).run()
    next(loop)
    assert torch.get_num_threads() == before + 1
    finish(loop)
    assert torch.get_num_threads() == before


def test_a_checkpoint_of_an_earlier_version_is_resumed(trainer, make_run, tmp_path):
    """It named what is now bad_validations otherwise."""
    run = make_run(tmp_path / "run")
    loop = train_into(run, trainer(learning_rate=0.0))
    while next(loop).step < 17:  # validates at 4, 8, 12, 16, and nothing ever changes
        pass
    loop.close()
    tensors, values = read_tensors(run.path / TRAINING)
    values["worse"] = values.pop("bad_validations")
    write_tensors(run.path / TRAINING, tensors, values)
    other = trainer(learning_rate=0.0)
    resume(run, other)
    assert other.early_stopping.bad_validations == values["worse"] == 1


def test_a_checkpoint_sets_nothing_but_what_it_is_for(trainer, make_run, tmp_path):
    run = make_run(tmp_path / "run")
    finish(train_into(run, trainer()))
    tensors, values = read_tensors(run.path / TRAINING)
    write_tensors(run.path / TRAINING, tensors, values | {"validate": 3})
    other = trainer()
    resume(run, other)
    assert callable(other.validate)
    del values["step"]
    (run.path / "training.json").unlink()
    write_tensors(run.path / TRAINING, tensors, values)
    with pytest.raises(RunError, match="'step' is missing"):
        resume(run, trainer())
