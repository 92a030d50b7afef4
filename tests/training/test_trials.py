"""The trainings of a comparison: variants, seeds, side by side, and what if one goes wrong."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from lmcli.data.corpus import TextOptions
from lmcli.data.dataset import CorpusSpec, load_dataset
from lmcli.errors import TrainingError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.trial_result import score_parts
from lmcli.report.progress import Finished, Message, Training, Trainings
from lmcli.run import TRAINING, Run
from lmcli.training.trials import (
    StoppedError,
    Trial,
    run_trial,
    run_trials,
    share_cores,
    sharing_cores,
)


def nothing(event):
    """A callback that never stops anything."""


# ------------------------------------------------------------------ one


def test_a_trial_is_trained_scored_and_saved(job_of, words, tmp_path):
    events = []
    found = run_trial(
        Trial("gru", job_of("gru", curriculum=0), tmp_path / "gru", True), events.append
    )
    run = Run.open(tmp_path / "gru")
    assert events[-1].fraction == 1.0
    assert run.record.training["learning_rate"] == found.learning_rate
    assert not (run.path / TRAINING).exists()  # only resuming would need it
    valid, test = score_parts(run.model(), run.tokenizer, words)
    assert (found.valid.nats, found.test.nats) == (valid.nats, test.nats)
    documents = score_documents(run.model(), run.tokenizer, words.corpus.test.documents)
    assert test.nats == pytest.approx(sum(p.nats.sum(dtype=np.float64) for p in documents))
    assert found.parameters == run.model().parameter_count()
    assert found.tokens_seen == 4 * 12 * 100  # 8 of the steps are those of the other rates


def test_the_result_of_a_trial_has_the_keys_of_a_training_alone(job_of, tmp_path, lmcli_values):
    found = run_trial(Trial("rnn#1", job_of("rnn", 5), tmp_path / "rnn", False), nothing)
    saved = Run.open(tmp_path / "rnn").result("train")
    assert set(saved) == lmcli_values
    assert (saved["arch"], saved["steps"], saved["stopped"]) == ("rnn", 5, "budget")
    assert saved["tokens_seen"] == found.tokens_seen
    assert saved["valid"]["bits_per_char"] == found.valid.bits_per_char
    assert found.name == "rnn"


@pytest.fixture
def lmcli_values(tmp_path, stream):
    """The keys of ``lmcli train --json``."""
    from lmcli.api import train

    text = tmp_path / "text.txt"
    text.write_text("one line and another\n" * 100)
    settings = {"hidden": 4}
    run = train(text, steps=2, settings=settings, output=tmp_path / "alone", on_progress=nothing)
    return set(run.result("train"))


def test_a_hybrid_that_only_gets_worse_in_a_comparison_keeps_its_counts(job_of, tmp_path):
    job = job_of("hybrid", learning_rate=3.0, curriculum=0.0, clip=0.0)
    run_trial(Trial("hybrid", job, tmp_path / "hybrid", True), nothing)
    run = Run.open(tmp_path / "hybrid")
    assert run.result("train")["best_step"] == 0
    counted, kept = job.trainer().model.tensors(), run.model().tensors()
    assert all(np.array_equal(counted[name], kept[name]) for name in counted)


def test_a_trial_that_is_stopped_is_saved_at_once(job_of, tmp_path):
    def stop(event):
        if event.fraction >= 0.5:
            raise InterruptedError

    path = tmp_path / "gru"
    with pytest.raises(InterruptedError) as caught:  # which holds the frames
        run_trial(Trial("gru", job_of("gru", 100, curriculum=0), path, False), stop)
    assert caught.traceback
    assert Run.open(path).load_training()[1]["step"] == 50


def test_a_trial_that_only_gets_worse_after_its_search_is_saved_too(job_of, tmp_path):
    rng = np.random.default_rng(0)  # two words that never come again: all that is learnt is wrong
    (tmp_path / "words.txt").write_text("".join(rng.choice(list("abcdefgh"), 100_000)))
    dataset = load_dataset(CorpusSpec((str(tmp_path / "words.txt"),), TextOptions()), "word")
    job = job_of("gru", dataset=dataset)
    found = run_trial(Trial("gru", job, tmp_path / "gru", True), nothing)
    losses = [
        entry["valid"]
        for entry in map(json.loads, (tmp_path / "gru" / "log.jsonl").read_text().splitlines())
        if entry["valid"] is not None
    ]
    assert losses == sorted(losses)
    nats = stream_nats(Run.open(tmp_path / "gru").model(), dataset.tokenized.valid)
    assert nats.sum() / found.valid.tokens == pytest.approx(losses[0], rel=0.05)


# ------------------------------------------------------------------ several


def test_side_by_side_gives_what_one_after_the_other_gives(job_of, tmp_path):
    def results(jobs):
        made = [
            Trial(name, job_of(name, 25), tmp_path / f"{name}{jobs}", True)
            for name in ("rnn", "gru", "ngram")
        ]
        return {result.name: result for result in run_trials(made, jobs, events.append)}

    events = []
    apart, together = results(1), results(2)
    plans = [event for event in events if isinstance(event, Trainings)]
    assert plans == [Trainings(["rnn", "gru"], jobs, None) for jobs in (1, 2)]
    ended = [event.name for event in events if isinstance(event, Finished)]
    assert sorted(ended) == ["gru", "gru", "ngram", "ngram", "rnn", "rnn"]
    assert set(apart) == set(together) == {"rnn", "gru", "ngram"}
    for name, one in apart.items():
        other = together[name]
        assert one.learning_rate == other.learning_rate
        assert one.tokens_seen == other.tokens_seen
        assert one.test.nats == pytest.approx(other.test.nats, rel=1e-3)
        assert Run.open(tmp_path / f"{name}2").record.arch == name


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_loss_that_explodes_is_a_warning_with_its_name_and_the_others_go_on(
    job_of, tmp_path, jobs
):
    broken = job_of("gru", learning_rate=1e6, clip=0.0)
    made = [
        Trial("gru", broken, tmp_path / "gru", False),
        Trial("rnn", job_of("rnn"), tmp_path / "rnn", False),
    ]
    events = []
    results = run_trials(made, jobs, events.append)
    (warning,) = [event for event in events if isinstance(event, Message)]
    assert warning.level == "warning"
    assert warning.text.startswith("gru: the loss")
    assert "learning_rate" in warning.text
    assert [result.name for result in results] == ["rnn"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_callback_stops_all_and_the_finished_runs_are_named(job_of, tmp_path, jobs):
    made = [
        Trial("ngram", job_of("ngram"), tmp_path / "ngram", False),
        *(Trial(n, job_of(n, 10**6), tmp_path / n, False) for n in ("rnn", "gru")),
    ]
    with pytest.raises(StoppedError, match=rf"finished runs: {tmp_path / 'ngram'}$"):
        run_trials(made, jobs, lambda event: isinstance(event, Training) and event.tokens > 500)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_a_process_that_is_killed_is_an_error_with_its_name(job_of, tmp_path):
    from multiprocessing import active_children

    made = [Trial(n, job_of(n, 10**6), tmp_path / n, False) for n in ("rnn", "gru")]

    def kill(event):
        if isinstance(event, Training):
            os.kill(active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"the training of (rnn|gru) ended with code -9"):
        run_trials(made, 2, kill)
    assert not active_children()


@pytest.mark.parametrize("jobs", [1, 2, 3, 7])
def test_every_process_has_a_core(jobs):
    shares = share_cores(jobs)
    assert len(shares) == jobs
    assert all(shares)


def test_trials_side_by_side_share_the_threads(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr("lmcli.training.trials.available_cores", lambda: list(range(8)))
    free = job_of("rnn")
    free = replace(free, training=replace(free.training, threads=None))
    made = [Trial(str(n), free, tmp_path / str(n), False) for n in range(4)]
    for jobs, running, threads in ((None, 4, 2), (3, 3, 2), (2, 2, 4), (1, 1, None)):
        shared, count = sharing_cores(made, jobs)
        assert count == running
        assert {trial.job.training.threads for trial in shared} == {threads}
    given = replace(made[0], job=replace(free, training=replace(free.training, threads=5)))
    assert sharing_cores([given, *made], 2)[0][0].job.training.threads == 5
