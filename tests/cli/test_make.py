"""``lmcli make``: a text, its items and what is known about it."""

import hashlib
import json

import pytest

SMALL = ("--size", "small")


def test_three_files_are_written(lmcli, tmp_path):
    assert lmcli("make", "france", *SMALL).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "france.txt",
        "france.items.jsonl",
        "france.about.json",
    }


def test_what_was_written_is_named_and_counted(lmcli):
    shown = lmcli("make", "france", *SMALL, "-o", "fr.txt").out
    (items,) = [line for line in shown.splitlines() if line.startswith("items")]
    counts = "(2,400 country, 700 pronoun, 300 control)"
    assert items.removeprefix("items").strip() == f"fr.items.jsonl {counts}"


def test_the_checksum_is_that_of_the_text(lmcli, tmp_path):
    lmcli("make", "france", *SMALL, "-o", "fr.txt")
    about = json.loads((tmp_path / "fr.about.json").read_text())
    text = (tmp_path / "fr.txt").read_bytes()
    assert about["sha256"] == hashlib.sha256(text).hexdigest()
    assert about["documents"] == text.count(b"\n")


def test_items_hold_their_answer_among_their_candidates(lmcli, tmp_path):
    lmcli("make", "france", *SMALL)
    lines = (tmp_path / "france.items.jsonl").read_text().splitlines()
    for item in map(json.loads, lines):
        assert item.keys() >= {"text", "answer", "candidates", "gap"}
        assert item["answer"] in item["candidates"]


def test_a_seed_makes_one_text_and_another_seed_another(lmcli, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        lmcli("make", "france", *SMALL, "--seed", seed, "-o", f"{name}.txt")
    a, b, c = ((tmp_path / f"{name}.txt").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_sizes_differ(lmcli, tmp_path):
    lmcli("make", "france", *SMALL, "-o", "small.txt")
    lmcli("make", "france", "-o", "default.txt")
    assert (tmp_path / "small.txt").stat().st_size < (tmp_path / "default.txt").stat().st_size


@pytest.mark.parametrize("name", ["fr.txt", "fr.items.jsonl", "fr.about.json"])
def test_each_of_the_three_is_kept_without_force(lmcli, tmp_path, name):
    (tmp_path / name).write_text("mine")
    lmcli("make", "france", *SMALL, "-o", "fr.txt").failed(name, "exists", "--force")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert lmcli("make", "france", *SMALL, "-o", "fr.txt", "--force").code == 0
    assert (tmp_path / name).read_text() != "mine"


def test_the_next_command_can_be_run_as_it_stands(lmcli, tmp_path):
    done = lmcli("make", "france", *SMALL, "-o", "my france.txt")
    assert "next: lmcli compare 'my france.txt' --tokenizer word\n" in done.err


def test_a_made_text_is_read_a_document_a_line(lmcli, tmp_path):
    lmcli("make", "france", *SMALL)
    lmcli("train", "france.txt", "--arch", "ngram", "-o", "run", "-q")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["corpus"]["options"]["documents"] == "line"


def test_what_a_grammar_is_asked_most_often_has_an_option_of_its_own(lmcli, tmp_path):
    assert lmcli("make", "addition", *SMALL, "--digits", "10", "--carry-length", "2").code == 0
    line = (tmp_path / "addition.txt").read_text().splitlines()[0]
    assert len(line) == 3 * 10 + 2
    about = json.loads((tmp_path / "addition.about.json").read_text())
    assert about["recipe"]["carry_length"] == 2
    assert lmcli("make", "france", *SMALL, "--level", "2").code == 0
    done = lmcli("make", "france", "--digits", "6", "-o", "other.txt")
    assert done.code == 2
    assert "no setting named 'digits'" in done.err
