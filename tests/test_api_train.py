"""train, resume, compare and plan from Python: what the commands do, and nothing is printed."""

import pytest

import lmcli
from lmcli import api
from lmcli.errors import RunError, StorageError, TrainingError
from lmcli.report.progress import Message, Training
from lmcli.run import Run

SMALL = {"hidden": 4, "precision": "float32", "dropout": 0.2}


@pytest.fixture
def text(tmp_path):
    """A text of 4,000 characters."""
    path = tmp_path / "my.txt"
    path.write_text("".join(f"line {n} of {n % 7}\n" for n in range(300)))
    return path


def nothing(event):
    """A callback that never stops anything."""


def stop_at(step):
    """A callback that stops at its n-th training event."""
    seen = []

    def callback(event):
        seen.append(isinstance(event, Training))
        return sum(seen) >= step

    return callback


def test_a_training_is_a_run_with_a_result_and_nothing_is_printed(text, tmp_path, capfd):
    events = []
    run = lmcli.train(
        text, steps=20, settings=SMALL, output=tmp_path / "run", on_progress=events.append
    )
    assert run.result("train")["steps"] == 20
    assert run.model().parameter_count() == run.result("train")["parameters"]
    *_, last = said = [e for e in events if isinstance(e, Message)]
    assert [e.level for e in said] == ["note"] * 3
    assert "too small for a network alone" in last.text
    assert [e.fraction for e in events if isinstance(e, Training)][-1] == 1.0
    assert capfd.readouterr() == ("", "")


def test_what_the_callback_stops_is_resumed_exactly(text, tmp_path):
    options = {"steps": 30, "settings": SMALL, "seed": 3}
    whole = lmcli.train(text, **options, output=tmp_path / "whole", on_progress=nothing)
    run = lmcli.train(text, **options, output=tmp_path / "run", on_progress=stop_at(7))
    assert run.result("train") is None
    assert run.load_training()[1]["step"] == 7
    again = lmcli.resume(run, seed=3, on_progress=nothing)
    assert again.result("train")["steps"] == 30
    for name in ("weights.safetensors", "training.safetensors", "log.jsonl"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    with pytest.raises(RunError, match="--seed 4 differs from the run's seed 3"):
        lmcli.resume(run.path, seed=4)


def test_what_an_error_of_the_callback_ends_is_saved_before_the_error_is_raised(text, tmp_path):
    stops = stop_at(7)

    def fail(event):
        if stops(event):
            raise ZeroDivisionError

    options = {"steps": 30, "settings": SMALL, "output": tmp_path / "run"}
    with pytest.raises(ZeroDivisionError) as error:
        lmcli.train(text, **options, on_progress=fail)
    assert error.tb  # which keeps the frames alive
    assert api.load(tmp_path / "run").load_training()[1]["step"] == 7


@pytest.mark.parametrize("kind", [OSError, StorageError])
def test_an_error_of_the_callback_is_raised_also_if_nothing_can_be_saved(
    text, tmp_path, monkeypatch, kind
):
    def fail(event):
        if isinstance(event, Training):
            monkeypatch.setattr(Run, "save_training", full)
            raise ZeroDivisionError

    def full(*_):
        raise full_disk

    full_disk = OSError("no space") if kind is OSError else StorageError("no space", "make room")

    with pytest.raises(ZeroDivisionError) as error:
        lmcli.train(text, steps=30, settings=SMALL, output=tmp_path / "run", on_progress=fail)
    assert error.value.__notes__ == ["the training could not be saved: no space"]


def test_an_error_of_the_callback_ends_several_workers_too(text, tmp_path):
    more = {"settings": SMALL, "workers": 2, "output": tmp_path / "run"}
    stops = stop_at(3)

    def fail(event):
        if stops(event):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lmcli.train(text, steps=10**6, **more, on_progress=fail)


def test_several_workers_report_and_stop_like_one(text, tmp_path, capfd):
    more = {"settings": SMALL, "workers": 2, "output": tmp_path / "run"}
    run = lmcli.train(text, steps=10**6, **more, on_progress=stop_at(3))
    assert run.result("train") is None
    assert run.record.workers == 2
    step = run.load_training()[1]["step"]
    assert 0 < step < 10**6
    assert lmcli.resume(run, on_progress=stop_at(1)).load_training()[1]["step"] > step
    assert capfd.readouterr() == ("", "")


def test_a_comparison_is_what_the_command_prints(text, tmp_path, capfd):
    found = lmcli.compare(
        [text], arch="ngram,rnn", steps=3, settings=SMALL, jobs=1, output=tmp_path / "all"
    )
    values = found.to_json()
    assert {row["name"] for row in values["rows"]} == {"ngram", "rnn"}
    assert values["protocol"]["side_by_side"] == 1
    runs = [row["seeds"][0]["run"] for row in values["rows"]]
    again = lmcli.compare(text, run=[api.load(run) for run in runs], output=tmp_path / "again")
    assert len(again.to_json()["rows"]) == 2
    assert capfd.readouterr() == ("", "")


def test_a_comparison_that_is_stopped_is_an_error(text, tmp_path):
    with pytest.raises(TrainingError, match="stopped; finished runs: none"):
        lmcli.compare(
            text, arch="rnn", steps=10**6, output=tmp_path / "all", on_progress=stop_at(9)
        )


def test_a_plan_has_a_line_for_each_training_with_its_threads(text, tmp_path, monkeypatch):
    monkeypatch.setattr("lmcli.training.trials.available_cores", lambda: list(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    big = {"hidden": 600}

    def lines(jobs):
        made = api.plan(text, arch="lstm,gru", steps=3, settings=big, jobs=jobs)
        return made.lines

    assert all("--set threads=4" in line for line in lines(2))
    assert not any("threads" in line for line in lines(1))
    assert not (tmp_path / "runs").exists()
