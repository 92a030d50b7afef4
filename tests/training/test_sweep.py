"""What a comparison trains: rows, each architecture with settings of its own."""

import inspect

import pytest

from lmcli import api
from lmcli.errors import UsageError
from lmcli.training import sweep, trials
from lmcli.training.problem_size import MachineSpeed
from lmcli.training.sweep import lstm_width, row_pairs, trial_specs


def test_what_is_named_twice_is_trained_once():
    assert [e.name for e in trial_specs("gru, gru,gru:hidden=3", False)] == ["gru", "gru:hidden=3"]


def test_with_runs_nothing_is_trained_unless_it_is_named():
    assert trial_specs("", True) == []
    assert [e.arch for e in trial_specs("gru", True)] == ["gru"]


def test_trainings_side_by_side_are_expected_to_read_the_text_less_often(tmp_path, monkeypatch):
    for module in (sweep, trials):
        monkeypatch.setattr(module, "available_cores", lambda: {0, 1})
    monkeypatch.setattr(sweep, "machine_speed", lambda *_: MachineSpeed())

    def dropout(jobs):
        made = trials_of(tmp_path, arch="lstm,lstm:layers=2", minutes=0.35, jobs=jobs)
        return {trial.job.settings.dropout for trial in made}

    assert dropout(1) == {0.1}, "12 passes on two cores"
    assert dropout(2) == {0.0}, "7 passes on one each"


def trials_of(folder, **given):
    """The trainings of a comparison on a text of 220,000 characters, none of them begun."""
    text = folder / "text.txt"
    text.write_text("a few words of a line\n" * 10_000)
    options = {n: p.default for n, p in inspect.signature(api.compare).parameters.items()}
    options |= {"texts": [str(text)], "output": folder / "compare", "device": "cpu"}
    options |= {"settings": {"hidden": 256}, "plan": False, "runs": (), **given}
    return sweep.prepare(options, lambda _: None).trials


def test_the_speed_of_each_row_is_that_of_the_threads_it_gets(tmp_path, monkeypatch):
    for module in (sweep, trials):
        monkeypatch.setattr(module, "available_cores", lambda: {0, 1})
    paces = {None: 1.2e5, 1: 3e4}

    def machine_speed(device, threads):
        return MachineSpeed(1.0, paces[threads])

    monkeypatch.setattr(sweep, "machine_speed", machine_speed)
    rows = trials_of(tmp_path, arch="lstm,lstm:threads=1", minutes=0.35, jobs=1)
    assert [row.job.settings.dropout for row in rows] == [0.1, 0.0]
    assert [row.job.training.threads for row in rows] == [None, 1]


def test_of_tied_weights_a_given_embedding_is_the_width_to_which_others_are_matched():
    found = [
        lstm_width({"settings": pairs, "match": match})
        for pairs, match in (
            ({"tie": "true", "embedding": "40"}, "params"),
            ({"tie": "true", "hidden": "40"}, "state"),
            ({"embedding": "40"}, "params"),
            ({"hidden": "40"}, "width"),
        )
    ]
    assert found == [40, 40, None, None]


def settings_of(row, pairs, match="params"):
    return row_pairs(trial_specs(row, False)[0], {"settings": pairs, "match": match})


def test_a_width_for_all_is_left_to_matching_and_so_is_the_embedding_of_tied_weights():
    both = {"hidden": "40", "embedding": "40"}
    assert settings_of("gru", both) == {"embedding": "40"}
    assert settings_of("gru:tie=true", both) == {"tie": "true"}
    assert settings_of("gru", {**both, "tie": "true"}) == {"tie": "true"}
    assert settings_of("gru", {"embedding": "40", "tie": "true"}) == {"tie": "true"}
    default = {"embedding": "none", "tie": "true"}  # as if it were not given
    assert settings_of("gru", default) == default
    assert settings_of("gru", both, "width") == both


def test_what_ties_no_weights_keeps_the_embedding_given_for_all():
    pairs = {"embedding": "40", "tie": "true"}
    assert settings_of("window", pairs) == pairs
    assert settings_of("lstm:tie=false", {"hidden": "9", **pairs}) == {**pairs, "tie": "false"}


def test_a_row_has_its_own_width():
    pairs = {"hidden": "40", "embedding": "20"}
    assert settings_of("gru:hidden=30", pairs) == {"embedding": "20", "hidden": "30"}
    own = {"tie": "true", "embedding": "30"}
    assert settings_of("gru:tie=true:embedding=30", pairs) == own
    own = {"tie": "true", "hidden": "30"}
    assert settings_of("gru:tie=true:hidden=30", pairs) == own


@pytest.mark.parametrize(
    ("row", "pairs", "problem"),
    [
        ("lstm:tie=true", {"hidden": "448", "embedding": "128"}, "not 128 and 448"),
        ("gru", {"hidden": "48", "embedding": "28", "tie": "true"}, "not 28 and 48"),
        ("lstm:tie=true", {"embedding": "128"}, "embedding=128 the width of this row"),
        ("lstm:tie=true:embedding=9:hidden=8", {}, "not 9 and 8"),
    ],
)
def test_an_embedding_for_all_that_tied_weights_cannot_have_is_an_error(row, pairs, problem):
    with pytest.raises(UsageError, match=problem):
        settings_of(row, pairs)


def test_an_embedding_that_tied_weights_of_equal_width_cannot_have_is_an_error():
    pairs = {"hidden": "448", "embedding": "128"}
    with pytest.raises(UsageError, match="not 128 and 448"):
        settings_of("lstm:tie=true", pairs, "width")


def test_what_a_row_cannot_have_is_told_before_the_text_is_read():
    with pytest.raises(UsageError, match="embedding=128"):
        api.compare("missing.txt", arch="lstm:tie=true", settings={"embedding": 128})
