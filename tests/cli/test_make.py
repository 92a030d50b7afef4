"""``lmcli make``: a text, its items and what is known about it."""

import hashlib
import json
import random
import re

import pytest

from lmcli.data.corpus import CorpusSpec, load_corpus

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


# ------------------------------------------------------------------ a text of the user's own


@pytest.fixture
def story(tmp_path):
    """my.txt: 60,000 characters of prose in which every sentence is another."""
    draw = random.Random(0)
    parts = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    with (tmp_path / "my.txt").open("w") as file:
        for _ in range(1000):
            words = ["".join(draw.choices(parts, k=2)) for _ in range(draw.randint(3, 16))]
            file.write(" ".join(["The", *words, "of it,", "and so", "on."]) + "\n")
    return tmp_path / "my.txt"


OWN = ("make", "france", "--filler", "my.txt", "-o", "f.txt", "--set", "words=2000")


def test_the_sentences_between_cue_and_query_are_the_users_own(lmcli, story, tmp_path):
    done = lmcli(*OWN)
    assert done.code == 0
    assert "the language of the text is 'en': facts 'en'" in done.err
    assert lmcli(*OWN, "-q", "--force").err == ""
    assert "best perplexity" not in done.out
    assert re.search(r"times your text is used +1\.0\n", done.out)
    assert re.search(r"gaps +3, 5, 10, 20, 30, 50, 100, 200, 400 words\n", done.out)
    about = json.loads((tmp_path / "f.about.json").read_text())
    assert "optimum" not in about
    assert about["filler"]["texts"] == ["my.txt"]
    assert (tmp_path / "f.txt").read_text().count("\n") == about["documents"]


def test_what_train_holds_out_is_the_filler_of_the_items(lmcli, story, tmp_path):
    lmcli(*OWN)
    parts = load_corpus(CorpusSpec(("my.txt",))).parts()
    train, valid, test = (
        " ".join("".join(parts[name].documents).split()) for name in ("train", "valid", "test")
    )
    items = [json.loads(line) for line in (tmp_path / "f.items.jsonl").read_text().splitlines()]
    own = [" ".join(i["text"][slice(*i["filler"])].split()) for i in items if i["filler"][1]]
    short = [text for text in own if text and len(text) < 300]
    assert len(short) > 500
    assert all(text in f"{valid} {test}" and text not in train for text in short)


def test_no_optimum_is_no_trouble_to_the_other_commands(lmcli, story):
    lmcli(*OWN)
    done = lmcli("compare", "f.txt", "--tokenizer", "word", "--arch", "ngram", "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    asked = {one["kind"]: one for one in row["recall"]}
    assert set(asked) == {"control", "country", "shuffled"}
    assert asked["shuffled"]["value"] < 0.2


def test_pairs_and_a_frame_make_a_text_too(lmcli, story, tmp_path):
    (tmp_path / "p.csv").write_text("rain,umbrella\nsnow,boots\nsun,hat\n")
    frame = "All day there was {a}. ... So I took my {b}."
    assert lmcli(*OWN, "--pairs", "p.csv", "--frame", frame).code == 0
    lines = (tmp_path / "f.txt").read_text().splitlines()
    ends = {"rain": "umbrella.", "snow": "boots.", "sun": "hat."}
    for line in lines:
        cue = line.removeprefix("All day there was ").split(".")[0]
        assert line.endswith(f"So I took my {ends[cue]}")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--facts", "xx"), ["--facts xx", "no such language"]),
        (("--facts", "none.toml"), ["none.toml", "cannot read"]),
        (("--facts", "bad.toml"), ["bad.toml", "has no 'language'"]),
        (("--frame", "{a} ... {b}"), ["--pairs and --frame go together"]),
        (("--level", "2"), ["no setting named 'level'"]),
        (("--filler", "none.txt"), ["none.txt"]),
    ],
)
def test_what_is_wrong_is_said_in_two_lines_and_nothing_is_written(
    lmcli, story, tmp_path, more, words
):
    (tmp_path / "bad.toml").write_text('cues = ["{cue}"]\npairs = []\nqueries = ["{answer}"]\n')
    done = lmcli(*OWN, *more, "-q")
    assert done.code in (1, 2)
    for word in words:
        assert word in done.err
    assert not (tmp_path / "f.txt").exists()


def test_options_of_the_filler_need_one_and_the_france_grammar(lmcli, story):
    for more in (("france", "--facts", "de"), ("addition", "--filler", "my.txt")):
        done = lmcli("make", *more)
        assert done.code == 2
        assert "make france --filler" in done.err
