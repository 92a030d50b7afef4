"""The functions of lmcli: what a command prints as JSON, without printing."""

import json

import pytest

import lmcli
from lmcli.errors import UsageError
from lmcli.grammars.base import companions, read_about


def test_make_writes_a_text_and_says_what_the_command_says(tmp_path, capsys):
    made = lmcli.make("addition", tmp_path / "sums.txt", size="small", digits=12, seed=2)
    assert made.text.read_text().count("\n") == made.about["documents"]
    assert made.about["recipe"]["digits"] == 12
    values = made.to_json()
    assert values["text"] == str(tmp_path / "sums.txt")
    assert values["sha256"] == read_about(companions(made.text)[1])["sha256"]
    assert json.loads(json.dumps(values)) == values
    assert capsys.readouterr() == ("", "")


def test_make_takes_settings_as_set_does_and_refuses_those_of_another_grammar(tmp_path):
    made = lmcli.make("france", tmp_path / "f.txt", settings={"level": 0, "size": "small"})
    assert made.about["recipe"] == {"grammar": "france", "size": "small", "level": 0, "seed": 0}
    with pytest.raises(UsageError, match="no setting named 'digits'"):
        lmcli.make("france", tmp_path / "g.txt", digits=4)
    assert not (tmp_path / "g.txt").exists()


def test_export_names_what_it_wrote(make_run, build, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "gru")
    run.save_weights(build("gru", run.record.vocabulary).tensors(), 1)
    exported = lmcli.export(tmp_path / "run")
    assert exported.output == str(tmp_path / "run-numpy")
    assert exported.bytes == sum(
        f.stat().st_size for f in (tmp_path / "run-numpy").iterdir() if f.is_file()
    )
    assert list(exported.to_json())[2:] == ["run", "to", "output", "bytes", "arch"]
    with pytest.raises(UsageError) as caught:
        lmcli.export(run, to="numpi", output=tmp_path / "other")
    assert caught.value.hint == "did you mean 'numpy'?"
    monkeypatch.chdir(run.path)
    assert lmcli.export(".", force=True).output == str(tmp_path / "run-numpy")
