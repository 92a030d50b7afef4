"""Which runs are served, and under which names."""

import shutil

import pytest

from lmcli.errors import RunError
from lmcli.storage import write_json
from lmcli.web.models import open_models


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """runs/ with a comparison, an unfinished run and a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo/lstm", "demo/ngram", "lstm", "half"):
        source = folder / name.rpartition("/")[2] if name != "half" else folder / "lstm"
        shutil.copytree(source, tmp_path / "runs" / name)
    (tmp_path / "runs/half/weights.safetensors").unlink()
    seeds = [{"run": f"runs/demo/{name}"} for name in ("ngram", "lstm")]
    write_json(tmp_path / "runs/demo/comparison.json", {"rows": [{"seeds": seeds}]})
    return tmp_path


def test_without_names_all_finished_runs_below_runs_are_served(here):
    assert list(open_models([])) == ["demo/lstm", "demo/ngram", "runs/lstm"]


def test_a_comparison_stands_for_its_runs_the_best_first(here):
    models = open_models([here / "runs/demo"])
    assert list(models) == ["ngram", "lstm"]
    assert models.comparison == here / "runs/demo"


def test_a_glob_may_catch_the_files_of_a_comparison(here):
    models = open_models(sorted((here / "runs/demo").iterdir()))
    assert list(models) == ["lstm", "ngram"]
    assert models.comparison == here / "runs/demo"


def test_a_run_that_is_named_twice_is_served_once(here):
    assert list(open_models([here / "runs/lstm", here / "runs/lstm"])) == ["lstm"]


def test_runs_of_one_name_can_be_told_apart(here):
    models = open_models([here / "runs/lstm", here / "runs/demo/lstm"])
    assert list(models) == ["runs/lstm", "demo/lstm"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing", "no run at"), ("runs/half", "is unfinished"), (".", "is no run, and has none")],
)
def test_what_is_no_run_is_an_error(here, tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    path = tmp_path / "empty" if name == "." else here / name
    with pytest.raises(RunError, match=says):
        open_models([path])


def test_without_any_run_the_hint_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no trained runs in 'runs'") as error:
        open_models([])
    assert "lmcli train" in error.value.hint


def test_the_page_begins_with_one_run_of_each_kind(here):
    assert open_models([]).shown == ["demo/lstm", "demo/ngram"]
