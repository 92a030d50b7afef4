"""Items and optimum beside a text of a grammar: found where they belong to it, else left out."""

import pytest

SMALL = ("--arch", "ngram", "--tokenizer", "word", "-q")


@pytest.fixture
def made(lmcli, tmp_path):
    """A run on fr.txt, which has been edited since its companions were written."""
    assert lmcli("make", "france", "-o", "fr.txt", "--size", "small", "-q").code == 0
    lines = (tmp_path / "fr.txt").read_text().splitlines(keepends=True)
    (tmp_path / "fr.txt").write_text("".join(lines[1:]))
    assert lmcli("train", "fr.txt", *SMALL, "-o", "run").code == 0
    return tmp_path


def warned(done):
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: 'fr.txt' is not the text that 'fr.about.json' was made with")
    return done


def test_compare_leaves_out_optimum_and_items_of_another_text(lmcli, made):
    done = warned(lmcli("compare", "fr.txt", "--run", "run", "-o", "out", "--json"))
    assert [row["name"] for row in done.json["rows"]] == ["run"]
    assert "recall" not in done.json["rows"][0]


def test_cloze_asks_no_items_of_another_text(lmcli, made):
    done = lmcli("cloze", "run")
    done.failed("no text with a blank", code=2)
    warned(done)


def test_probe_asks_no_items_of_another_text(lmcli, made):
    done = warned(lmcli("probe", "recall", "run", "--json"))
    assert "kind" not in done.json["summary"][0]
    done = warned(lmcli("probe", "recall", "run", "fr.txt", "--json"))
    assert "kind" not in done.json["summary"][0]


def test_items_that_are_named_are_asked_whatever_lies_beside_them(lmcli, made):
    assert lmcli("cloze", "run", "--items", "fr.items.jsonl").code == 0


def test_cloze_leaves_out_a_run_on_a_text_that_was_made_again_with_its_items(lmcli, made):
    again = ("make", "france", "-o", "fr.txt", "--size", "small", "--set", "seed=1", "--force")
    assert lmcli(*again, "-q").code == 0
    assert lmcli("train", "fr.txt", *SMALL, "-o", "new").code == 0
    done = lmcli("cloze", "run", "new", "--json")
    assert {row["run"] for row in done.json["rows"]} == {"new"}
    assert "warning: the text of 'run' has changed: its items are left out" in done.err


def test_a_text_that_has_no_name_has_no_companions(lmcli, tmp_path, my_text):
    assert lmcli("train", ".", *SMALL, "-o", "run").code == 0
    lmcli("cloze", "run").failed("no text with a blank", code=2)
    assert lmcli("probe", "context", "run", "--set", "longest=16", "-q").code == 0
    assert lmcli("compare", ".", "--run", "run", "-o", "out", "-q").code == 0


def test_standard_input_and_addresses_have_no_companions(lmcli, tmp_path, my_text):
    for name in ("-.items.jsonl", "-.about.json"):
        (tmp_path / name).write_text("{}")
    text = my_text.read_text()
    done = lmcli("train", "-", *SMALL, "-o", "run", stdin=text)
    assert done.code == 0, done.err
    lmcli("cloze", "run").failed("no text with a blank", code=2)


def test_carries_have_no_ratio_to_an_optimum_per_word(lmcli, tmp_path):
    assert lmcli("make", "addition", "-o", "sums.txt", "--size", "small", "-q").code == 0
    assert lmcli("train", "sums.txt", "--arch", "ngram", "-o", "run", "-q").code == 0
    rows = lmcli("probe", "recall", "run", "--json").json["rows"]
    assert rows
    assert {row["over_optimum"] for row in rows} == {None}


def test_a_run_that_does_not_know_the_answers_is_left_out_of_recall(lmcli, tmp_path, my_text):
    assert lmcli("make", "france", "-o", "fr.txt", "--size", "small", "-q").code == 0
    for name, text in (("strange", "my.txt"), ("mine", "fr.txt")):
        assert lmcli("train", text, *SMALL, "-o", name).code == 0
    done = lmcli("probe", "recall", "mine", "strange", "fr.txt", "--json")
    assert {row["run"] for row in done.json["rows"]} == {"mine"}
    assert any("is not in the vocabulary of strange" in note for note in done.json["notes"])
    alone = lmcli("probe", "recall", "strange", "fr.txt", "--quiet")
    alone.failed("probe recall does not apply", "is not in the vocabulary of strange")
