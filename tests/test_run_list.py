"""Runs of a folder: each with a row, whatever state it is in; nothing big is loaded."""

import json
import subprocess
import sys

import pytest

from lmcli import api
from lmcli.errors import RunError
from lmcli.run import RECORD


@pytest.fixture
def runs(tmp_path, make_run):
    """A folder with a finished, an unfinished and a damaged run, one in a folder of its own."""
    folder = tmp_path / "runs"
    done = make_run(folder / "compare" / "gru", "gru")
    valid = {"bits_per_char": 2.5, "perplexity": 6.0, "standard_error": 0.01}
    test = valid | {"bits_per_char": 2.25}
    done.save_result("train", {"valid": valid, "test": test, "parameters": 1234})
    make_run(folder / "lstm", "lstm").save_training({}, {"step": 7})
    make_run(folder / "old", "rnn")
    (folder / "old" / RECORD).write_text("{")
    make_run(folder / ".hidden" / "rnn", "rnn")
    (folder / "notes").mkdir()
    return folder


def test_every_run_has_a_row_with_its_state(runs):
    rows = {row["run"]: row for row in api.list_runs(runs).to_json()["runs"]}
    assert [*rows] == [str(runs / name) for name in ("compare/gru", "lstm", "old")]
    done, begun, broken = rows.values()
    assert (done["state"], done["parameters"], done["bits_per_char"]) == ("finished", 1234, 2.25)
    assert (done["arch"], done["tokenizer"], done["text"]) == ("gru", "char", "a.txt")
    assert (begun["state"], begun["step"]) == ("unfinished", 7)
    assert broken["state"] == "damaged"
    assert "run.json" in broken["problem"]


def test_without_a_test_part_the_score_is_that_of_validation(tmp_path, make_run):
    run = make_run(tmp_path / "a", "gru")
    run.save_result("train", {"valid": {"bits_per_char": 2.5}, "test": None, "parameters": 3})
    (row,) = api.list_runs(tmp_path).rows
    assert (row["bits_per_char"], row["part"]) == (2.5, "valid")


def test_a_folder_without_runs_says_what_makes_one(tmp_path):
    for folder, says in ((tmp_path, "no runs in"), (tmp_path / "no", "no folder")):
        with pytest.raises(RunError, match=says) as caught:
            api.list_runs(folder)
        assert "lmcli" in caught.value.hint


def test_the_command_shows_the_table_and_json_without_torch(runs, tmp_path, project):
    code = "import sys; sys.modules['torch'] = None\nfrom lmcli.__main__ import main\nmain()"
    words = ["list", "--runs"]
    for more in ([], ["runs"], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *words, *more],
            cwd=tmp_path,
            env={"PYTHONPATH": str(project), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if more == ["--json"]:
            assert json.loads(done.stdout)["runs"][1]["state"] == "unfinished"
        else:
            assert "2.2500" in done.stdout
            assert max(map(len, done.stdout.splitlines())) <= 80
