"""What a comparison trains: rows, each architecture with settings of its own."""

import inspect

import pytest

from lmcli import api
from lmcli.errors import UsageError
from lmcli.training import sweep, trials
from lmcli.training.sweep import lstm_width, row_pairs, trial_specs


def test_what_is_named_twice_is_trained_once():
    assert [e.name for e in trial_specs("gru, gru,gru:hidden=3", False)] == ["gru", "gru:hidden=3"]


def test_with_runs_nothing_is_trained_unless_it_is_named():
    assert trial_specs("", True) == []
    assert [e.arch for e in trial_specs("gru", True)] == ["gru"]


def test_trainings_side_by_side_are_expected_to_read_the_text_less_often(tmp_path, monkeypatch):
    for module in (sweep, trials):
        monkeypatch.setattr(module, "available_cores", lambda: {0, 1})
    monkeypatch.setattr(sweep, "relative_speed", lambda *_: 1.0)
    text = tmp_path / "text.txt"
    text.write_text("a few words of a line\n" * 10_000)
    defaults = {n: p.default for n, p in inspect.signature(api.compare).parameters.items()}
    given = {"texts": [str(text)], "arch": "lstm,lstm:layers=2", "output": tmp_path / "compare"}
    given |= {
        "device": "cpu",
        "settings": {"hidden": 256},
        "minutes": 0.2,
        "plan": False,
        "runs": (),
    }

    def dropout(jobs):
        options = defaults | given | {"jobs": jobs}
        return {t.job.settings.dropout for t in sweep.prepare(options, lambda _: None).trials}

    assert dropout(1) == {0.1}, "7 passes on two cores"
    assert dropout(2) == {0.0}, "4 passes on one each"


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


@pytest.mark.parametrize(
    ("row", "pairs", "problem"),
    [
        ("lstm:tie=true", {"hidden": "448", "embedding": "128"}, "not 128 and 448"),
        ("gru", {"hidden": "48", "embedding": "28", "tie": "true"}, "not 28 and 48"),
        ("lstm:tie=true", {"embedding": "128"}, "embedding=128 the width of this row"),
    ],
)
def test_an_embedding_for_all_that_tied_weights_cannot_have_is_an_error(row, pairs, problem):
    with pytest.raises(UsageError, match=problem):
        settings_of(row, pairs)


def test_what_a_row_cannot_have_is_told_before_the_text_is_read():
    with pytest.raises(UsageError, match="embedding=128"):
        api.compare("missing.txt", arch="lstm:tie=true", settings={"embedding": 128})
