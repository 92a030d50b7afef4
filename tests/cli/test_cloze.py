"""``lmcli cloze``: the blank, by a text of the user's or by the items of a grammar."""

import shutil

import pytest

TINY = ("--steps", "20", "--set", "hidden=8", "--set", "validations=1", "--quiet")


@pytest.fixture
def rows(lmcli, trained):
    """The rows of a cloze over these runs."""

    def ask(runs, *arguments):
        done = lmcli("cloze", *[trained / run for run in runs], *arguments, "--json")
        assert done.code == 0, done.err
        return done.json["rows"]

    return ask


@pytest.mark.parametrize("run", ["char", "word", "ngram"])
def test_top_words_come_best_first(rows, run):
    (row,) = rows([run], "--text", "the old ___", "--top", "7")
    shown = [c["probability"] for c in row["candidates"]]
    assert shown == sorted(shown, reverse=True)
    assert 0 < sum(shown) <= 1 + 1e-6
    assert len(shown) == (7 if run == "word" else len(shown))
    assert len({c["text"] for c in row["candidates"]}) == len(shown)


def test_top_words_are_all_shown(lmcli, trained):
    done = lmcli("cloze", trained / "word", "--text", "the old ___", "--top", "8")
    assert sum(line.count(" 0.") for line in done.out.splitlines()) == 8


@pytest.mark.parametrize("run", ["char", "word", "ngram"])
def test_candidates_share_one_between_them(rows, run):
    (row,) = rows([run], "--text", "the old ___ sees", "--candidates", "cat, dog,tree")
    assert {c["text"] for c in row["candidates"]} == {"cat", "dog", "tree"}
    assert sum(c["probability"] for c in row["candidates"]) == pytest.approx(1)


def test_a_swap_for_the_same_word_changes_nothing(rows):
    more = ("--candidates", "cat,dog", "--swap", "old=old")
    (row,) = rows(["word"], "--text", "the old ___", *more)
    assert [c["log_odds_swap"] for c in row["candidates"]] == [0, 0]


@pytest.mark.parametrize("run", ["char", "word"])
def test_of_two_candidates_a_swap_gives_one_what_it_takes_from_the_other(rows, run):
    more = ("--candidates", "cat,dog", "--swap", "old=small")
    (row,) = rows([run], "--text", "the old ___", *more)
    moves = [c["log_odds_swap"] for c in row["candidates"]]
    assert moves[0] == pytest.approx(-moves[1])
    assert moves[0] != 0


def test_there_is_a_row_for_every_run_and_gap(rows, trained):
    more = ("--candidates", "cat,dog", "--gaps", "0,3,20", "--filler", trained / "text.txt")
    found = rows(["char", "word"], "--text", "the old ... the ___", *more)
    assert [row["gap"] for row in found] == [0, 3, 20] * 2


def test_an_empty_gap_is_the_text_without_the_place(rows, trained):
    same = ("--candidates", "cat,dog")
    gap = ("--gaps", "0", "--filler", trained / "text.txt")
    (filled,) = rows(["word"], "--text", "the old ... the ___", *same, *gap)
    (plain,) = rows(["word"], "--text", "the old the ___", *same)
    assert filled["candidates"] == plain["candidates"]


def test_words_too_rare_to_be_learnt_are_named_once(lmcli, trained):
    runs, asked = [trained / "char", trained / "gru"], ("--candidates", "cat,dog", "--quiet")
    rare = lmcli("cloze", *runs, "--text", "France ... the old ___", "--candidates", "cat,dog")
    said = "'France' occurs 0 times in the training text: too few to learn from"
    assert " ".join(rare.err.split()).count(said) == 1
    assert "lmcli demo" not in lmcli("cloze", *runs, "--text", "the old ___", *asked).err


def test_a_filler_shorter_than_the_gap_is_refused(lmcli, trained, my_text):
    gaps = ("--text", "a ... ___", "--gaps", "9999999", "--filler", "my.txt")
    lmcli("cloze", trained / "word", *gaps).failed("9999999", "longer --filler")


def test_the_table_has_a_row_a_run_and_a_column_a_gap(lmcli, trained):
    runs = [trained / name for name in ("char", "word")]
    more = ("--candidates", "cat,dog", "--gaps", "0,3", "--filler", trained / "text.txt")
    done = lmcli("cloze", *runs, "--text", "the ... the ___", *more)
    assert "gap 0" in done.out
    assert "gap 3" in done.out


# ------------------------------------------------------------------ items of a grammar


@pytest.fixture
def france(lmcli, tmp_path, sentences):
    """A run on a made text, with the text and its items beside it."""
    lmcli("make", "france", "-o", "fr.txt", "--size", "small", "--quiet")
    tiny = ("--arch", "ngram", "--tokenizer", "word", "-q", "-o", "run")
    assert lmcli("train", "fr.txt", *tiny).code == 0
    return tmp_path


def test_items_beside_the_text_are_found(lmcli, france):
    rows = lmcli("cloze", "run", "--json").json["rows"]
    assert {row["kind"] for row in rows} == {"country", "control"}
    gaps = [row["gap"] for row in rows if row["kind"] == "country"]
    assert gaps == sorted(gaps)
    for row in rows:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["count"] > 0
        assert 0 < row["chance"] < 1


def test_a_5_gram_knows_what_is_3_words_back_and_nothing_further(lmcli, france):
    rows = lmcli("cloze", "run", "--json").json["rows"]
    share = {(row["kind"], row["gap"]): row["accuracy"] for row in rows}
    near, far = min(share["country", g] for g in (3,)), share["country", 100]
    assert near > 0.5
    assert far < 0.2


def test_gaps_choose_among_the_items(lmcli, france):
    rows = lmcli("cloze", "run", "--gaps", "10,30", "--json").json["rows"]
    assert [row["gap"] for row in rows if row["kind"] == "country"] == [10, 30]
    lmcli("cloze", "run", "--gaps", "11").failed("no items with these gaps")


def test_items_may_be_named(lmcli, france):
    shutil.move(france / "fr.items.jsonl", france / "elsewhere.jsonl")
    lmcli("cloze", "run").failed("no text with a blank", code=2)
    assert lmcli("cloze", "run", "--items", "elsewhere.jsonl").code == 0
    lmcli("cloze", "run", "--items", "no.jsonl").failed("no.jsonl")


def test_a_comparisons_folder_may_be_given_as_a_glob(lmcli, france):
    lmcli("compare", "fr.txt", "--arch", "ngram", "--tokenizer", "word", "-o", "out", "-q")
    inside = sorted((france / "out").iterdir())
    assert {p.name for p in inside} == {"comparison.json", "ngram"}
    assert lmcli("cloze", *inside).code == 0
