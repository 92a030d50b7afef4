"""``lmcli report`` and ``--html``: pages from the command line, and what is in their way."""

import json

import pytest


@pytest.fixture
def run(trained):
    return str(trained / "char")


def test_a_run_becomes_a_page(lmcli, run, tmp_path):
    done = lmcli("report", run, "-o", "page.html", "--no-probes", "--json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["page"] == "page.html"
    assert values["bytes"] == (tmp_path / "page.html").stat().st_size


def test_without_a_name_the_page_stands_beside_the_folder(lmcli, copied, tmp_path):
    copied("gru")
    assert lmcli("report", "gru", "--no-probes", "-q").code == 0
    assert (tmp_path / "gru.html").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "RUN", "text.txt"),
        ("inspect", "RUN", "the cat"),
        ("cloze", "RUN", "--text", "the old ___"),
        ("probe", "halflife", "RUN"),
    ],
    ids=lambda command: command[0],
)
def test_a_result_is_written_as_a_page_too(lmcli, run, tmp_path, command):
    (tmp_path / "text.txt").write_text("the old cat sees a dog .\n")
    words = [run if word == "RUN" else word for word in command]
    plain, done = lmcli(*words), lmcli(*words, "--html", "made/page.html")
    assert done.code == 0, done.err
    assert done.out == plain.out
    assert "page: made/page.html" in done.err
    page = (tmp_path / "made" / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    again = lmcli(*words, "--html", "made/page.html")
    assert (again.code, again.out) == (1, "")
    assert "made/page.html' exists" in again.err
    assert lmcli(*words, "--html", "made/page.html", "--force", "--quiet").code == 0


@pytest.mark.parametrize("flag", ["--html=there", "--html=there/text.txt/page.html"])
def test_a_page_that_cannot_be_written_is_an_error_before_any_training(lmcli, my_text, flag):
    there = my_text.parent / "there"
    there.mkdir()
    (there / "text.txt").write_text("x")
    for command in (("compare", "my.txt", "-o", "out"), ("demo", "my.txt", "-o", "out")):
        done = lmcli(*command, flag)
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert "hint: " in done.err
    assert not (my_text.parent / "out").exists()


def test_compare_writes_the_page_of_the_comparison(lmcli, my_text, tmp_path):
    tiny = ("--arch", "ngram,gru", "--steps", "2", "--set", "hidden=4", "--jobs", "1")
    done = lmcli("compare", "my.txt", *tiny, "-o", "out", "--html", "page.html")
    assert done.code == 0, done.err
    assert "page: page.html" in done.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Which one predicts the text best" in page
    assert "Who still knows" not in page


def test_what_is_no_run_is_two_lines(lmcli, tmp_path):
    (tmp_path / "notes").mkdir()
    done = lmcli("report", "notes")
    assert done.code == 1
    assert done.err.splitlines()[0] == (
        "error: 'notes' is neither a run nor a comparison that has ended"
    )
