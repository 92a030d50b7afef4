"""Several seeds of a model in one picture, one sentence and one result."""

from lmcli.evaluation.probes.base import Probe
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.report.result import Figure, Metric
from lmcli.settings import Settings


class Told(Probe):
    """Measures what the path of a run says."""

    name = "told"
    Settings = Settings
    x = "gap"
    columns = ()
    picture = Figure("", (), (), Metric(""))
    note = "told"

    def run(self, subjects, data, settings, seed=0):
        rows, summary = [], []
        for one in subjects:
            number = float(one.name)
            rows += [one.row(gap=g, value=number / g, low=0.0, high=99.0) for g in (1, 2)]
            reach = {"tokens": int(number), "at_least": number > 8}
            summary.append(one.row(reach=reach, figure=f"{number:g} tokens"))
        return self.result(subjects, rows, summary)


def seeds(arch, *numbers):
    return [ProbedModel(str(n), arch, None, None, None, label=arch) for n in numbers]


def test_a_picture_has_one_series_a_model_the_median_of_its_seeds_and_their_range():
    result = Told().run([*seeds("gru", 2, 9, 4), *seeds("rnn", 6)], ProbeData(()), None)
    gru, rnn = result.figures[0].series
    assert (gru.name, rnn.name) == ("gru", "rnn")
    assert [(p.value, p.low, p.high) for p in gru.points] == [(4.0, 2.0, 9.0), (2.0, 1.0, 4.5)]
    assert [(p.value, p.low, p.high) for p in rnn.points] == [(6.0, 0.0, 99.0), (3.0, 0.0, 99.0)]
    assert len(result.rows) == 8
    assert len(result.summary) == 4


def test_the_sentence_is_that_of_the_median_seed():
    result = Told().run([*seeds("gru", 2, 9, 4), *seeds("rnn", 6)], ProbeData(()), None)
    assert result.verdict == "gru: 4 tokens (median of 3 seeds); rnn: 6 tokens"
    assert [row["run"] for row in result.middle] == ["4", "6"]


def test_results_of_seeds_with_texts_of_their_own_are_combined():
    whole, probe = [*seeds("gru", 2, 9, 4), *seeds("rnn", 6)], Told()
    parts = [probe.run(some, ProbeData(()), None) for some in (whole[:1], whole[1:])]
    combined, at_once = probe.combine(whole, parts), probe.run(whole, ProbeData(()), None)
    assert combined.to_json() == at_once.to_json()
    assert combined.figures == at_once.figures
    assert combined.notes == ["told"]
