"""What a comparison trains: rows, each architecture with settings of its own."""

from lmcli.training.sweep import trial_specs


def test_what_is_named_twice_is_trained_once():
    assert [e.name for e in trial_specs("gru, gru,gru:hidden=3", False)] == ["gru", "gru:hidden=3"]


def test_with_runs_nothing_is_trained_unless_it_is_named():
    assert trial_specs("", True) == []
    assert [e.arch for e in trial_specs("gru", True)] == ["gru"]
