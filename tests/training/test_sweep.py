"""What a comparison trains: rows, each architecture with settings of its own."""

import inspect

from lmcli import api
from lmcli.training import sweep, trials
from lmcli.training.sweep import lstm_width, trial_specs


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
