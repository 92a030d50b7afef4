"""``lmcli cloze``: the blank, by a text of the user's or by the items of a grammar."""

import json
import random
import shutil

import pytest

from lmcli.grammars.base import EXAMPLE_ITEM

WORDS = ["cat", "dog", "bird", "tree"]


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


def test_a_filler_shorter_than_the_gap_is_refused(lmcli, trained, my_text):
    gaps = ("--text", "a ... ___", "--gaps", "9999999", "--filler", "my.txt")
    lmcli("cloze", trained / "word", *gaps).failed("9999999", "longer --filler")


def test_the_table_has_a_row_a_run_and_a_column_a_gap(lmcli, trained):
    runs = [trained / name for name in ("char", "word")]
    more = ("--candidates", "cat,dog", "--gaps", "0,3", "--filler", trained / "text.txt")
    done = lmcli("cloze", *runs, "--text", "the ... the ___", *more)
    assert "gap 0" in done.out
    assert "gap 3" in done.out


# ------------------------------------------------------------------ a cue and another in its place

PLAIN = ["the cat is old .", "a small dog sees the tree .", "it was late , and it rained ."]
FAR = "Anna grew up in France . ... now she speaks fluent ___"
NEAR = "in France ... speak ___"


@pytest.fixture
def speakers(lmcli, tmp_path):
    """A 5-gram of a text in which people near their country speak its language.

    Elsewhere French is what nearly everybody speaks, whatever was said five words before.
    """
    draw = random.Random(0)
    lines = ["in France speak French .", "in Germany speak German ."] * 60
    lines += [f"Anna grew up in {c} . {draw.choice(PLAIN)} now she speaks fluent French ."
              for c in ("France", "Germany") for _ in range(60)]  # fmt: skip
    lines += ["now she speaks fluent German ."]
    draw.shuffle(lines)
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "filler.txt").write_text(" ".join(draw.choices(PLAIN, k=200)))
    lmcli("train", "text.txt", "--arch", "ngram", "--tokenizer", "word", "-q", "-o", "5-gram")
    return tmp_path


def squeezed(page):
    """A page with single blanks, as lines are broken at the width of the terminal."""
    return " ".join(page.split())


GAPS = ("--gaps", "0,10", "--filler", "filler.txt", "--swap", "France=Germany")


def test_a_cue_without_effect_looks_like_none(lmcli, speakers):
    asked = ("5-gram", "--text", FAR, *GAPS, "--candidates", "French,German")
    rows = lmcli("cloze", *asked, "--json").json["rows"]
    for row in rows:
        french, _ = row["candidates"]
        assert french["text"] == "French"
        assert french["probability"] > 0.97
        assert french["probability"] == pytest.approx(french["probability_swapped"])
        assert row["verdict"] == "none"
    page = squeezed(lmcli("cloze", *asked).out)
    shown = f"French {rows[0]['candidates'][0]['probability']:.4f}"
    assert f"{shown} {shown[-6:]} 0.0000" in page
    assert page.endswith(
        "5-gram, gaps 0 and 10: it says French; with Germany instead it says French as well: "
        "the cue makes no difference"
    )


def test_a_swap_without_candidates_finds_the_words_that_it_changes(lmcli, speakers):
    asked = ("5-gram", "--text", NEAR.replace(" ...", ""), "--swap", "France=Germany")
    (row,) = lmcli("cloze", *asked, "--json").json["rows"]
    assert {c["text"] for c in row["candidates"][:2]} == {"French", "German"}
    changes = [abs(c["probability"] - c["probability_swapped"]) for c in row["candidates"]]
    assert changes == sorted(changes, reverse=True)
    assert all(any(x.isalpha() for x in c["text"]) for c in row["candidates"])
    page = squeezed(lmcli("cloze", *asked).out)
    assert "one text: no interval" in page
    assert page.endswith(
        "5-gram: it says French; with Germany instead it says German: the cue decides"
    )


def test_a_cue_out_of_reach_changes_nothing_in_the_words_that_are_found(lmcli, speakers):
    rows = lmcli("cloze", "5-gram", "--text", NEAR, *GAPS, "--json").json["rows"]
    assert [row["verdict"] for row in rows] == ["decides", "none"]
    assert [row["count"] for row in rows] == [1, 20]
    assert all(c["text"].strip() for row in rows for c in row["candidates"])


def test_the_filler_keeps_its_words_when_the_cue_is_swapped(lmcli, speakers):
    (speakers / "germany.txt").write_text("in Germany " * 40)
    more = ("--gaps", "2", "--filler", "germany.txt", "--seed", "0")
    text = ("--text", "Germany . ... speak ___", "--swap", "Germany=France")
    (row,) = lmcli("cloze", "5-gram", *text, *more, "--json").json["rows"]
    assert row["verdict"] == "none"


def test_differences_are_means_over_the_fillers_with_their_interval(lmcli, speakers, trained):
    asked = ("--text", "the old ... the ___", "--swap", "old=small", "--gaps", "3")
    asked += ("--filler", trained / "text.txt")
    (row,) = lmcli("cloze", trained / "word", *asked, "--top", "3", "--json").json["rows"]
    first, *_ = row["candidates"]
    difference = first["probability"] - first["probability_swapped"]
    assert row["count"] == 20
    assert first["low"] < difference < first["high"]
    page = lmcli("cloze", trained / "word", *asked, "--top", "3").out
    half = (first["high"] - first["low"]) / 2
    assert f"{difference:+.4f} ± {half:.4f}" in page


def test_another_cue_that_the_model_does_not_know_is_a_warning(lmcli, speakers):
    done = lmcli("cloze", "5-gram", "--text", NEAR.replace(" ...", ""), "--swap", "France=Mars")
    assert done.code == 0
    assert "never seen 'Mars'" in done.err


def test_an_example_is_shown_as_a_reader_reads_it(lmcli, speakers):
    more = ("--gaps", "0,60", "--filler", "filler.txt")
    values = lmcli("cloze", "5-gram", "--text", FAR, *more, "--json").json
    example = values["example"]
    assert example["gap"] == 60
    assert example["text"].startswith("Anna grew up in France . ")
    assert example["text"].count(" ... ") == 1
    assert example["text"].endswith(" now she speaks fluent ___")
    assert len(example["text"]) < 130
    (answer,) = example["answers"]
    assert answer["words"][0]["text"] == "French"
    assert len(answer["words"]) == 3
    page = squeezed(lmcli("cloze", "5-gram", "--text", FAR, *more).out)
    assert example["text"] in page
    words = ", ".join(f"{w['text']} {w['probability']:.4f}" for w in answer["words"])
    assert f"5-gram {words}" in page


@pytest.mark.parametrize("gaps", ["0,10", "0,5,10,20,30,40"])
@pytest.mark.parametrize("swap", [("--swap", "France=Germany"), ()])
def test_every_word_has_a_row_in_80_columns(lmcli, speakers, monkeypatch, gaps, swap):
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree("5-gram", "another")
    asked = ("5-gram", "another", "--text", FAR, "--gaps", gaps, "--filler", "filler.txt", *swap)
    page = lmcli("cloze", *asked).out
    rows = lmcli("cloze", *asked, "--json").json["rows"]
    lines = page.splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        for c in row["candidates"]:
            shown = [c["text"], f"{c['probability']:.4f}"]
            shown += [f"{c['probability_swapped']:.4f}"] if swap else []
            assert any(" ".join(shown) in squeezed(line) for line in lines), shown
    tables = page.split("gap 10")[1] if not swap else page
    assert sum(line.split()[0] == "another" for line in tables.splitlines() if line.split()) >= 1


def test_one_candidate_alone_is_refused(lmcli, trained):
    asked = ("--text", "the old ___", "--candidates", "cat")
    lmcli("cloze", trained / "word", *asked).failed("--candidates cat", "two or more", code=2)


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


def test_items_of_ones_own_stand_beside_any_text(lmcli, my_text, project):
    page = (project / "docs" / "cookbook.md").read_text(encoding="utf-8")
    assert f"```json\n{EXAMPLE_ITEM}\n```" in page  # as the cookbook shows it
    item = json.loads(EXAMPLE_ITEM) | {"text": "the old cat sees a ", "gap": 3, "rest": " ."}
    more = ({"answer": "cat", "candidates": ["cat", "dog"]}, {"answer": "dog", "candidates": WORDS})
    lines = "\n".join(json.dumps(item | fields) for fields in more)
    my_text.with_suffix(".items.jsonl").write_text(lines)
    lmcli("train", my_text, "--arch", "ngram", "--tokenizer", "word", "-q", "-o", "run")
    (row,) = lmcli("cloze", "run", "--json").json["rows"]
    assert (row["gap"], row["kind"], row["count"]) == (3, "country", 2)
    assert row["chance"] == pytest.approx((1 / 2 + 1 / len(WORDS)) / 2)


def test_a_wrong_item_of_ones_own_names_file_line_and_field(lmcli, france):
    items = france / "fr.items.jsonl"
    lines = items.read_text().splitlines()
    lines[1] = lines[1].replace('"answer"', '"anwser"')
    items.write_text("\n".join(lines))
    said = ("fr.items.jsonl' line 2: the field 'answer' is missing", '"answer": "French"')
    lmcli("cloze", "run").failed(*said)


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
