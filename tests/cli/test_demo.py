"""``lmcli demo``: one command from a text of the user's own to what was seen on it."""

import re
import shlex
import signal
import subprocess
import time

import pytest

from lmcli.cli.probe import sort_arguments

FAST = ("--minutes", "0.01", "--set", "hidden=4", "--set", "words=9000")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with my.txt: 8,000 characters, every sentence another."""
    folder = tmp_path_factory.mktemp("own")
    lines = (f"The {n % 9} men of it saw {n} ships, and so on.\n" for n in range(200))
    (folder / "my.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def shown(own, here):
    """What a demo of two models prints at 80 columns; its folder is own/out."""
    done = here("demo", "my.txt", "--arch", "gru,ngram", *FAST, "-o", "out", cwd=own)
    assert done.code == 0, done.err
    return done


def test_the_table_has_gaps_models_controls_and_chance(shown):
    table = shown.out[shown.out.index("who still knows the country?") :]
    assert re.search(r"words +gru +ngram +order-free +chance", table)
    first = [line.split()[0] for line in table.splitlines()[4:14]]
    assert first == ["control", "3", "5", "10", "20", "30", "50", "100", "200", "shuffled"]
    assert re.search(r"\n 200 +\d+ ± \d +\d+ ± \d +100 +6 \n", table)
    assert "shuffled: cue and answer unrelated" in table
    assert max(map(len, shown.out.splitlines())) <= 80


def test_what_was_trained_its_cost_and_the_chart_are_shown(shown):
    trained, cost = shown.out.index("what was trained"), shown.out.index("what planting costs")
    assert trained < cost < shown.out.index("who still knows the country?")
    assert re.search(r"\n gru +[\d,]+ +5 +\d+ +0\.\d +\d+ +\d+ +budget", shown.out)
    assert re.search(r"\n ngram +[\d,]+ +0 +1 +0\.\d +\d+ +\d+ +counted", shown.out)
    assert "best first" not in shown.out  # its held-out part repeats sentences it was trained on
    assert "a gru   b ngram   ┄┄ 6 %: chance" in shown.out


def test_three_sentences_say_what_was_seen(shown):
    said = " ".join(shown.out.split())
    assert "The GRU had not learnt the task in 0.01 minutes (right after the cue: " in said
    assert "so the other figures show no forgetting" in said
    assert said.index("On my.txt ") < said.index("The GRU had not") < said.index("Do not conclude")


def test_it_is_said_before_what_happens_and_how_long_it_takes(shown):
    said = shown.err.splitlines()
    assert said[0] == "makes a text, trains gru, ngram on it, asks what they know"
    longest = "1 training of 0.01 min or less, 1 side by side: about 0.0 min, and the questions"
    assert longest in said
    assert any(line.startswith("this machine trains the gru on ") for line in said)
    slow = "warning: in 0.01 min it may not learn the task: --minutes "
    assert any(line.startswith(slow) for line in said)


def test_the_next_commands_run_as_they_stand(shown, own, here):
    cloze, sample, compare = shown.err.split("next: ")[1].splitlines()
    words = shlex.split(cloze)[1:]
    everything = sorted(str(p.relative_to(own)) for p in (own / "out").iterdir())
    assert {"out/text.txt", "out/comparison.json", "out/gru", "out/ngram"} < {*everything}
    assert words[1] == "out/*"
    filled = here(words[0], *everything, *words[2:], cwd=own)
    assert filled.code == 0, filled.err
    assert "100 words in the gap" in filled.out
    assert "with France or Spain" in filled.out
    assert here(*shlex.split(sample)[1:], "--length", "5", cwd=own).code == 0
    again = here(*shlex.split(compare)[1:], "-o", "again", cwd=own)
    assert again.code == 0, again.err


def test_the_texts_of_the_folder_are_no_texts_to_probe(shown, own, monkeypatch):
    monkeypatch.chdir(own)
    _, runs, texts = sort_arguments(["recall", *map(str, (own / "out").iterdir()), "my.txt"])
    assert sorted(run.name for run in runs) == ["gru", "ngram"]
    assert texts == ["my.txt"]


def test_json_has_rows_sentences_paths_and_timings(own, shown, here):
    done = here("demo", "out/text.txt", "--arch", "ngram", "--json", "-o", "json", cwd=own)
    assert done.err == ""
    found = done.json
    assert (found["schema"], found["command"]) == (1, "demo")
    (row,) = found["rows"]
    assert {one["kind"] for one in row["recall"]} == {"control", "country", "shuffled"}
    assert len(found["sentences"]) == 3
    assert found["order_free"]["3"] == 1.0
    assert found["paths"] == {
        "folder": "json",
        "text": "out/text.txt",
        "items": "out/text.items.jsonl",
        "about": "out/text.about.json",
        "comparison": "json/comparison.json",
        "page": "json/demo.html",
    }
    assert {*found["timings"]} == {"making", "training", "total"}
    assert (found["protocol"]["minutes"], found["corpus"]["tokenizer"]) == (4.8, "word")
    assert found["corpus"]["times_used"] > 1


def test_a_demo_without_a_text_has_one_made_by_rule(lmcli, tmp_path):
    done = lmcli("demo", "--arch", "ngram", "-q")
    assert done.code == 0, done.err
    assert "held-out text, best first" in done.out
    assert "On a text made by rule the n-gram still knew the country after 3 words" in done.out
    assert done.err == ""
    assert (tmp_path / "runs" / "demo" / "text.items.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.txt",), 1, ("none.txt", "no file")),
        (("my.txt", "-o", "taken"), 1, ("'taken' exists", "-o")),
        (("my.txt", "--arch", "gruu"), 1, ("gruu", "did you mean 'gru'")),
        (("my.txt", "--arch", ","), 2, ("--arch names nothing",)),
        (("my.txt", "--set", "hiden=4"), 2, ("hiden", "did you mean 'hidden'")),
        (("my.txt", "--facts", "xx"), 2, ("--facts xx",)),
        (("my.txt", "--minutes", "0"), 2, ("minutes",)),
        (("short.txt",), 1, ("'short.txt' is too short", "10,000 characters")),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(own, here, words, code, said):
    (own / "short.txt").write_text((own / "my.txt").read_text()[:900])
    (own / "taken").mkdir(exist_ok=True)
    (own / "taken" / "notes.md").write_text("mine")
    before = sorted(own.rglob("*"))
    here("demo", *words, "--set", "words=9000", "-q", cwd=own).failed(*said, code=code)
    assert sorted(own.rglob("*")) == before


def test_answers_that_the_tokenizer_does_not_know_are_an_error(own, here):
    words = ("demo", "my.txt", "--arch", "ngram", "--set", "max_vocabulary=30", "-o", "few", "-q")
    done = here(*words, "--set", "words=9000", cwd=own)
    done.failed("is not in the vocabulary", "another --tokenizer")


def test_ctrl_c_leaves_finished_runs_that_can_be_asked(own, start, here):
    words = ("demo", "my.txt", "--arch", "ngram,gru", "--minutes", "5", *FAST[2:], "-o", "cut")
    run = start(*words, cwd=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log, end = own / "cut" / "gru" / "log.jsonl", time.monotonic() + 60
    while not log.exists():
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, err = (stream.decode() for stream in run.communicate(timeout=60))
    assert (run.returncode, out) == (130, "")
    assert "stopped; finished runs: cut/ngram\nnext: lmcli cloze cut/ngram\n" in err
    assert here("cloze", "cut/ngram", cwd=own).code == 0
