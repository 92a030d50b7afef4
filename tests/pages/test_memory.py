"""Memory curves: measured once, saved, shown as they were saved; for these weights only."""

import json
import shutil

import pytest

from lmcli.evaluation.ranking_table import ranking_table
from lmcli.pages.memory import memory_section, saved_probes
from lmcli.pages.subject import Subject
from lmcli.report.progress import Stage
from lmcli.report.result import Figure, figure_from_json
from lmcli.storage import read_json, write_json


@pytest.fixture(scope="module")
def measured(made, tmp_path_factory):
    """A copy of the demo, and the section with its probes; what was said meanwhile."""
    folder = shutil.copytree(made.folder, tmp_path_factory.mktemp("measured") / "out")
    said = []
    subject = Subject.open(folder, said.append)
    return folder, memory_section(subject, True, said.append), said


def figures(section):
    return [block for block in section.blocks if isinstance(block, Figure)]


def test_each_probe_has_a_figure_with_its_two_sentences(measured):
    _, section, said = measured
    assert len(figures(section)) >= 5
    assert all(figure.read and figure.caution for figure in figures(section))
    stages = [event.name for event in said if isinstance(event, Stage)]
    assert next(s for s in stages if "measuring" in s) == "measuring memory: context"


def test_what_was_measured_is_saved_and_not_measured_again(measured):
    folder, section, _ = measured
    values = read_json(folder / "probes.json")
    told = values["probes"][0]["figures"][0]
    assert figure_from_json(told) == figures(section)[0]
    told["series"][0]["points"][0]["value"] = 123.0  # a number that no probe would measure
    write_json(folder / "probes.json", values)
    again = memory_section(Subject.open(folder, lambda event: None), True, lambda event: None)
    assert figures(again)[0].series[0].points[0].value == 123.0


def test_it_does_not_hold_for_other_weights(measured):
    folder, _, _ = measured
    shutil.copyfile(folder / "gru/weights.safetensors", folder / "lstm/weights.safetensors")
    assert not saved_probes(Subject.open(folder, lambda event: None))


def test_without_measuring_there_is_no_section_where_nothing_was_saved(subject):
    assert memory_section(subject, False, lambda event: None) is None


def test_a_ranking_from_json_is_that_of_the_comparison(made):
    measured = ranking_table(made.demo.comparison.values())
    saved = ranking_table(json.loads(json.dumps(made.demo.comparison.to_json())))
    assert measured.cells() == saved.cells()
    assert measured.note == saved.note
