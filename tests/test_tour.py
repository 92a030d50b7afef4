"""The notebook of docs/ runs from top to bottom, and is kept without outputs."""

import copy
import os
import warnings

import pytest

with warnings.catch_warnings():  # of the packages that it imports
    warnings.simplefilter("ignore")
    import nbformat
    from nbclient import NotebookClient


@pytest.fixture(scope="module")
def tour(project):
    return nbformat.read(project / "docs" / "tour.ipynb", as_version=4)


@pytest.mark.filterwarnings("ignore")  # what the machinery of Jupyter warns of is not ours
def test_it_runs_and_every_result_is_displayed(tour, project, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{project}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = NotebookClient(copy.deepcopy(tour), timeout=100, kernel_name="python3").execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    shown = {}
    for cell in done.cells:
        if cell.get("outputs") and "data" in cell.outputs[-1]:
            shown.setdefault(cell.source.split("(")[0], cell.outputs[-1].data)
    said = {"lmcli.evaluate": "bits/char", "lmcli.cloze": "French", "lmcli.probe": "half-lives"}
    for call, words in said.items():
        assert words in shown[call]["text/html"], call


def test_it_is_kept_without_outputs(tour):
    code = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_every_step_is_explained_in_words_before_it(tour):
    kinds = [cell.cell_type for cell in tour.cells]
    assert kinds[0] == kinds[-1] == "markdown"
    for command in ("train", "sample", "evaluate", "compare", "cloze", "probe", "to_pandas"):
        assert any(f"{command}(" in c.source for c in tour.cells if c.cell_type == "code"), command
