"""Samples and event files: what they hold, and that the training is the same without them."""

import sys
import warnings

import pytest

from lmcli import api
from lmcli.errors import LmcliError
from lmcli.report.progress import SampleText, Training
from lmcli.run import TRAINING, WEIGHTS

TEXT = "the old cat sees a dog .\nthe dog hears the old cat .\n" * 60
SETTINGS = {"hidden": 8, "dropout": 0.2, "validations": 3}


@pytest.fixture
def train(tmp_path):
    """``train("a", samples=True)`` -> the run, the events."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")

    def make(name, arch="gru", **more):
        events = []
        options = {"arch": arch, "steps": 120, "settings": SETTINGS, "output": tmp_path / name}
        run = api.train(text, **options | more, on_progress=lambda e: events.append(e) and None)
        return run, events

    return make


@pytest.mark.parametrize("arch", ["gru", "attention"])
def test_weights_and_training_state_are_bit_identical_with_and_without(train, tmp_path, arch):
    plain, events = train("plain", arch)
    assert not any(isinstance(e, SampleText) for e in events)
    watched, _ = train("watched", arch, samples=True, tensorboard=tmp_path / "events")
    for name in (WEIGHTS, TRAINING):
        assert (plain.path / name).read_bytes() == (watched.path / name).read_bytes()


def test_a_sample_follows_each_validation_and_is_text(train):
    _, events = train("run", samples=True)
    samples = [event for event in events if isinstance(event, SampleText)]
    validations = [e for e in events if isinstance(e, Training) and e.valid is not None]
    assert len(samples) == len(validations) >= 3
    assert len({sample.text for sample in samples}) == len(samples)
    assert all(len(s.text) == 300 and set(s.text) <= set(TEXT) for s in samples)
    assert samples[-1].step == 120


def test_tensorboard_reads_losses_and_learning_rate_by_step(train, tmp_path):
    run, _ = train("run", tensorboard=tmp_path / "events")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that TensorBoard imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(tmp_path / "events"))
    found.Reload()
    for tag, name in (("loss/train", "loss"), ("learning_rate", "learning_rate")):
        logged = {line["step"]: line[name] for line in run.log()}
        assert {e.step: e.value for e in found.Scalars(tag)} == pytest.approx(logged)
    valid = {line["step"]: line["valid"] for line in run.log() if line["valid"] is not None}
    assert {e.step: e.value for e in found.Scalars("loss/valid")} == pytest.approx(valid)


def test_without_the_package_nothing_is_trained(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LmcliError, match="needs tensorboard") as caught:
        train("run", tensorboard=tmp_path / "events")
    assert "lmcli[tensorboard]" in caught.value.hint
    assert not (tmp_path / "run").exists()
