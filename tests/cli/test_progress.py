"""What long commands show while they work: a bar a training, and one of all together."""

import os
import signal

import pytest

from lmcli.cli.progress import ProgressDisplay
from lmcli.report.progress import Finished, Stage, Training, Trainings


@pytest.fixture
def display():
    """A display that draws bars although there is no terminal."""
    display = ProgressDisplay(shown=True)
    display.draws, display.patience = True, 0.0
    with display:
        yield display


def statuses(display):
    return {task.description: task.fields["status"] for task in display.bars.tasks}


def training(name, fraction, seconds, bits=None):
    return Training(name, fraction, 1.5, bits, 1000, seconds)


def test_the_time_left_of_all_trainings_has_a_bar_of_its_own(display):
    display(Stage("loading torch", 0, 0, ""))
    assert statuses(display) == {"loading torch": ""}
    display(Trainings(["rnn", "gru", "lstm"], 2, 60.0))
    display(training("rnn", 0.5, 30.0, 2.0))
    assert statuses(display) == {
        "all": "0 of 3 done  1:30 left in all",
        "rnn": "loss 1.500  bits/char 2.000  0k tok/s  0:30 left",
    }
    assert [task.description for task in display.bars.tasks] == ["all", "rnn"]


def test_a_training_that_ends_early_is_done(display):
    display(Trainings(["rnn", "gru"], 1, 60.0))
    display(training("rnn", 0.25, 15.0, 2.0))
    display(Finished("rnn"))
    assert statuses(display) == {
        "all": "1 of 2 done  1:00 left in all",
        "rnn": "bits/char 2.000  done",
    }
    assert [task.completed for task in display.bars.tasks if task.description == "rnn"] == [1.0]
    display(Finished("gru"))
    assert statuses(display)["all"] == "2 of 2 done"


def test_one_training_alone_needs_no_bar_of_all(display):
    display(Trainings(["rnn"], 1, 60.0))
    display(training("rnn", 0.5, 30.0))
    assert [*statuses(display)] == ["rnn"]


def test_signals_stop_a_training_at_its_next_step_and_a_stage_after_it_as_usual():
    usual = signal.getsignal(signal.SIGTERM)
    with ProgressDisplay(False, stoppable=True) as shown:
        assert not shown(Stage("reading", 0, 0, ""))
        assert signal.getsignal(signal.SIGTERM) == usual
        assert not shown(Training("lstm", 0.5, 2.0, None, 1, 1.0))
        assert signal.getsignal(signal.SIGTERM) != usual
        shown(Stage("measuring memory", 0, 0, ""))
        assert signal.getsignal(signal.SIGTERM) == usual
    with ProgressDisplay(False, stoppable=True) as shown:
        shown(Training("lstm", 0.5, 2.0, None, 1, 1.0))
        os.kill(os.getpid(), signal.SIGTERM)
        assert shown(Training("lstm", 0.6, 2.0, None, 1, 1.0))
        assert shown.stop.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == usual
