"""The commands from Python: typed results that print what the command line prints."""

import json

import pytest
from typer.testing import CliRunner

import lmcli
from lmcli import api
from lmcli.cli import app
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.cloze import ClozeResult
from lmcli.evaluation.inspection import Inspection
from lmcli.evaluation.perplexity import Evaluation
from lmcli.evaluation.probes.report import ProbeReport
from lmcli.grammars.base import companions, read_about
from lmcli.report.progress import Message, Stage

TEXT = "the old cat sees a dog .\nthe dog hears the old bird .\n"


def command(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="lmcli")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text and two runs on it."""
    place = tmp_path_factory.mktemp("api")
    (place / "text.txt").write_text(TEXT * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(place / "cache"))
        small = ("--steps", "3", "--set", "hidden=6", "--set", "embedding=4")
        for name, more in {"gru": small, "ngram": ()}.items():
            arch = ("--arch", name, "--tokenizer", "word")
            command("train", place / "text.txt", *arch, *more, "-o", place / name, "--json")
    return place


def test_a_run_is_a_path_or_a_run(folder):
    run = api.load(folder / "gru")
    assert api.load(run) is run
    first, second = (api.evaluate(r, split="test") for r in (run, str(folder / "gru")))
    assert first.score.nats == second.score.nats


@pytest.mark.parametrize("level", ["summary", "line", "token"])
def test_evaluate_gives_what_eval_prints(folder, level):
    found = api.evaluate(folder / "gru", folder / "text.txt", level=level)
    assert isinstance(found, Evaluation)
    printed = command("eval", folder / "gru", folder / "text.txt", "--level", level, "--json")
    assert {**found.to_json(), "seconds": 0} == {**printed, "seconds": 0}
    assert found.score.tokens == printed["tokens"]


def test_evaluate_scores_a_list_of_texts_or_a_part_of_its_own(folder):
    texts = [folder / "text.txt", folder / "more.txt"]
    texts[1].write_text(TEXT * 2)
    assert api.evaluate(folder / "gru", texts).texts == [str(text) for text in texts]
    train, test = (api.evaluate(folder / "gru", split=s).score for s in ("train", "test"))
    assert train.chars > 5 * test.chars > 0
    alone = api.evaluate(folder / "gru").score
    assert (alone.nats, alone.tokens) == (
        api.evaluate(folder / "gru", split="test").score.nats,
        api.evaluate(folder / "gru", split="test").score.tokens,
    )
    with pytest.raises(UsageError, match="--split tests: no such choice"):
        api.evaluate(folder / "gru", split="tests")
    (folder / "other.txt").write_text(TEXT * 90)
    with pytest.raises(TextError, match="has changed"):
        api.evaluate(folder / "gru", folder / "other.txt", split="test")


def test_cloze_gives_what_cloze_prints(folder):
    runs = [folder / "gru", folder / "ngram"]
    asked = {"text": "the old ... ___", "swap": "old=dog", "filler": folder / "text.txt"}
    found = api.cloze(runs, **asked, candidates=["cat", "bird"], gaps=[0, 3])
    assert isinstance(found, ClozeResult)
    options = [f"--{name}={value}" for name, value in asked.items()]
    more = ("--candidates", "cat,bird", "--gaps", "0,3", "--json")
    assert found.to_json() == command("cloze", *runs, *options, *more)
    assert found.to_json() == api.cloze(runs, **asked, candidates="cat,bird", gaps="0,3").to_json()


def test_probe_gives_what_probe_prints(folder):
    found = api.probe(folder / "gru", name="context", settings={"longest": 16}, seed=3)
    assert isinstance(found, ProbeReport)
    more = ("--set", "longest=16", "--seed", "3", "--json")
    assert found.to_json() == command("probe", "context", folder / "gru", *more)
    every = api.probe([folder / "gru", folder / "ngram"], settings={"longest": 16})
    assert every.to_json()["probe"] == "all"
    assert {r.probe for r in every.results} >= {"context", "gradient", "halflife"}


@pytest.mark.parametrize(
    "asked", [{}, {"gate": "keep", "units": 2}, {"unit": 1}, {"correlate": "the old"}]
)
def test_inspect_gives_what_inspect_prints(folder, asked):
    text = TEXT * 10
    found = api.inspect(folder / "gru", text, **asked)
    assert isinstance(found, Inspection)
    options = [f"--{name}={value}" for name, value in asked.items()]
    assert found.to_json() == command("inspect", folder / "gru", text, *options, "--json")


def test_inspect_compares_two_runs(folder):
    found = api.inspect(folder / "gru", TEXT, versus=folder / "ngram").to_json()
    assert found["versus"]["arch"] == "ngram"
    assert found["nats"] == pytest.approx(sum(item["nats"] for item in found["items"]))
    with pytest.raises(UsageError, match="--unit and --versus at once"):
        api.inspect(folder / "gru", TEXT, unit=1, versus=folder / "ngram")


def test_progress_and_warnings_go_to_the_callback(folder):
    events = []
    strange = folder / "strange.txt"
    strange.write_text("zebras quack and gnus yodel loudly\n" * 20)
    api.evaluate(folder / "gru", strange, on_progress=events.append)
    stages = [event for event in events if isinstance(event, Stage)]
    assert stages[-1].name == "scoring"
    assert stages[-1].done == stages[-1].total
    (warning,) = [event for event in events if isinstance(event, Message)]
    assert warning.level == "warning"
    assert "are unknown to" in warning.text
    with pytest.warns(UserWarning, match="are unknown to"):
        api.evaluate(folder / "gru", strange)


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
