"""``lmcli compare``: one protocol, sorted rows, verdicts that the intervals bear out."""

import shutil
import time

import pytest

from lmcli.run import Run
from lmcli.storage import read_json, write_json

TINY = ("--steps", "12", "--set", "validations=1", "--workers", "1")
VERDICTS = {"better", "worse", "no detectable difference"}


@pytest.fixture
def compared(lmcli, my_text):
    """The JSON of a comparison on my.txt."""

    def compare(*arguments):
        done = lmcli("compare", "my.txt", *arguments, "--json")
        assert done.code == 0, done.err
        return done.json

    return compare


def test_rows_are_sorted_best_first(compared):
    rows = compared("--arch", "lstm,ngram,window", *TINY)["rows"]
    bits = [row["test"]["bits_per_char"] for row in rows]
    assert bits == sorted(bits)
    assert rows[0]["name"] == "ngram"
    assert all(0 < row["test"]["standard_error"] < 1 for row in rows)


def test_differences_are_paired_against_the_best(compared):
    values = compared("--arch", "gru,ngram", *TINY)
    (difference,) = values["differences"]
    best, other = values["rows"]
    assert (difference["a"], difference["b"]) == (other["name"], best["name"])
    apart = other["test"]["bits_per_char"] - best["test"]["bits_per_char"]
    assert difference["bits_per_char"] == pytest.approx(apart)
    assert difference["low"] <= apart <= difference["high"]
    assert difference["verdict"] == "worse"


def test_a_verdict_says_what_the_interval_says(compared):
    for d in compared("--arch", "gru,lstm,ngram", *TINY)["differences"]:
        assert d["verdict"] in VERDICTS
        assert (d["verdict"] == "worse") == (d["p_holm"] < 0.05)
        assert (d["p"] < 0.05) == (d["low"] > 0)
        assert d["p"] <= d["p_holm"]
        assert d["scope"] == "run"  # of one seed


def test_a_run_is_not_told_from_itself(compared, copied):
    copied("ngram")
    values = compared("--arch", "ngram", "--run", "ngram")
    assert len(values["rows"]) == 2
    assert values["differences"][0]["verdict"] == "no detectable difference"


def test_all_have_equal_parameters_within_5_percent(compared):
    rows = compared("--arch", "lstm,gru,rnn,window", "--steps", "1", "--workers", "1")["rows"]
    for count in ("parameters", "body_parameters"):
        sizes = [row[count] for row in rows]
        assert max(sizes) / min(sizes) < 1.05, count


def test_match_width_gives_all_the_same_width(compared, tmp_path):
    compared("--arch", "gru,rnn", "--match", "width", "--steps", "1", "--workers", "1", "-o", "out")
    records = [(tmp_path / "out" / arch / "run.json").read_text() for arch in ("gru", "rnn")]
    widths = [line for r in records for line in r.splitlines() if '"hidden"' in line]
    assert len(widths) == 2
    assert widths[0] == widths[1]


def test_seeds_of_an_architecture_are_one_row(compared):
    values = compared("--arch", "rnn,ngram", "--seeds", "2", "--set", "hidden=8", *TINY)
    rows = {row["arch"]: row for row in values["rows"]}
    assert len(values["rows"]) == 2
    assert [seed["seed"] for seed in rows["rnn"]["seeds"]] == [0, 1]
    bits = [seed["bits_per_char"] for seed in rows["rnn"]["seeds"]]
    assert bits[0] != bits[1]
    assert rows["rnn"]["test"]["bits_per_char"] == pytest.approx(sum(bits) / 2)
    counted = [seed["bits_per_char"] for seed in rows["ngram"]["seeds"]]
    assert [seed["rotation"] for seed in rows["ngram"]["seeds"]] == [0, 1]
    assert counted[0] != counted[1]  # other blocks are held out
    (difference,) = values["differences"]
    assert (difference["scope"], difference["paired_splits"]) == ("architecture", 2)
    apart = [a - b for a, b in zip(bits, counted, strict=True)]
    assert abs(difference["bits_per_char"]) == pytest.approx(abs(sum(apart) / 2))
    assert difference["seed_deviation"] == pytest.approx(abs(apart[0] - apart[1]) / 2)


def test_a_row_says_why_it_ended_after_how_many_steps_and_what_was_searched(compared):
    rows = {row["arch"]: row for row in compared("--arch", "rnn,ngram", *TINY)["rows"]}
    orders = [entry["order"] for entry in rows["ngram"]["race"]]
    assert orders == list(range(3, 3 + len(orders)))
    assert len(orders) > 1
    assert rows["ngram"]["stopped"] == "counted"
    assert all({"rate", "loss", "share"} == entry.keys() for entry in rows["rnn"]["race"])
    assert rows["rnn"]["learning_rate"] in [entry["rate"] for entry in rows["rnn"]["race"]]
    assert rows["rnn"]["stopped"] == "budget"
    assert 0 < rows["rnn"]["steps"] <= 12


@pytest.mark.parametrize(("given", "expected"), [((), 0), (("--set", "patience=3"), 3)])
def test_no_training_of_a_comparison_ends_by_patience_unless_it_is_asked_to(
    compared, tmp_path, given, expected
):
    compared("--arch", "rnn", "-o", "out", *given, *TINY)
    assert Run.open(tmp_path / "out" / "rnn").record.training["patience"] == expected


def test_a_run_of_another_split_is_scored_on_what_is_given_for_all(lmcli, compared):
    done = lmcli("train", "my.txt", "--arch", "ngram", "--rotation", "2", "-o", "two", "--quiet")
    assert done.code == 0, done.err
    more = ("--run", "two", "--arch", "rnn", "--split", "tail")
    (difference,) = compared(*more, *TINY)["differences"]
    assert difference["low"] is not None  # both on the same text


def test_where_the_held_out_part_is_given_all_seeds_share_it(compared):
    more = ("--arch", "rnn,ngram", "--seeds", "2", "--split", "tail", "--set", "hidden=8")
    values = compared(*more, *TINY)
    rows = {row["arch"]: row for row in values["rows"]}
    assert [seed["rotation"] for seed in rows["rnn"]["seeds"]] == [0, 0]
    assert len(rows["ngram"]["seeds"]) == 1
    (difference,) = values["differences"]
    bits = [seed["bits_per_char"] for seed in rows["rnn"]["seeds"]]
    assert difference["paired_splits"] == 0
    assert difference["seed_deviation"] == pytest.approx(abs(bits[0] - bits[1]) / 2**0.5)


def test_runs_alone_are_compared_without_training(compared, copied, tmp_path):
    copied("gru")
    copied("word")
    values = compared("--run", "gru", "--run", "word", "-o", "out")
    assert {row["name"] for row in values["rows"]} == {"gru", "word"}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["comparison.json"]


def test_a_text_too_short_to_show_memory_is_told_so_once(lmcli, copied, my_text):
    copied("gru")
    copied("word")
    done = lmcli("compare", "my.txt", "--run", "gru", "--run", "word", "-o", "out")
    shown = " ".join(done.out.split())
    assert shown.count("characters of text are too few for recall") == 1
    assert "lmcli demo my.txt makes a text that shows memory" in shown
    saved = read_json(my_text.parent / "out" / "comparison.json")
    assert saved["too_little"] in shown


def test_a_run_of_another_text_is_warned_of(lmcli, copied, tmp_path, sentences):
    copied("ngram")
    (tmp_path / "other.txt").write_text(sentences(100, seed=9), encoding="utf-8")
    done = lmcli("compare", "other.txt", "--run", "ngram")
    assert done.code == 0
    assert "warning: 'ngram' was trained on another text" in done.err


def test_processes_side_by_side_find_what_one_finds(compared):
    many = ("--arch", "rnn,gru", "--steps", "4", "--set", "hidden=8", "--set", "learning_rate=0.01")
    alone = compared(*many, "--workers", "1", "-o", "one")
    together = compared(*many, "--workers", "2", "-o", "two")
    for a, b in zip(alone["rows"], together["rows"], strict=True):
        assert a["name"] == b["name"]
        assert a["test"]["bits_per_char"] == pytest.approx(b["test"]["bits_per_char"], rel=1e-4)


def test_the_optimum_of_a_made_text_is_a_row_that_nobody_beats(lmcli, tmp_path):
    lmcli("make", "france", "-o", "fr.txt", "--size", "small", "--quiet")
    done = lmcli("compare", "fr.txt", "--arch", "ngram", "--tokenizer", "word", "--json")
    first, second = done.json["rows"]
    assert (first["name"], second["name"]) == ("optimum", "ngram")
    assert first["parameters"] is None
    assert first["test"]["bits_per_char"] < second["test"]["bits_per_char"]


def test_the_comparison_is_kept_beside_its_runs(lmcli, my_text, tmp_path):
    done = lmcli("compare", "my.txt", "--arch", "ngram")
    assert (tmp_path / "runs" / "compare" / "comparison.json").is_file()
    assert (tmp_path / "runs" / "compare" / "ngram" / "run.json").is_file()
    assert "ngram: nothing to choose" in done.err
    assert "next: lmcli sample runs/compare/ngram" in done.err
    lmcli("compare", "my.txt", "--arch", "ngram")
    assert (tmp_path / "runs" / "compare-2" / "comparison.json").is_file()


def test_a_comparison_that_is_replaced_leaves_no_run_behind(compared, tmp_path):
    compared("--arch", "ngram,lstm", *TINY, "-o", "both")
    compared("--arch", "ngram", "--run", "both/lstm", "-o", "both", "--force")
    assert {p.name for p in (tmp_path / "both").iterdir()} == {"comparison.json", "ngram", "lstm"}
    compared("--arch", "ngram", "-o", "both", "--force")
    assert {p.name for p in (tmp_path / "both").iterdir()} == {"comparison.json", "ngram"}


# ------------------------------------------------------------------ what --force replaces


@pytest.fixture
def both(compared, tmp_path):
    """The folder of a comparison of two models."""
    compared("--arch", "ngram,rnn", *TINY, "--set", "hidden=4", "-o", "both")
    return tmp_path / "both"


def inside(folder):
    """The names in a folder, and that there is nothing half-written in it."""
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.startswith(".")]
    return names


def test_other_runs_and_files_in_the_folder_of_a_comparison_stay(both, compared, copied, tmp_path):
    copied("gru").rename(both / "thesis")
    (both / "notes.md").write_text("mine")
    (both / "rnn" / "plots").mkdir()
    (both / "ngram" / "notes.md").write_text("mine")
    thesis = {p: p.read_bytes() for p in (both / "thesis").rglob("*") if p.is_file()}
    compared("--arch", "ngram", "-o", "both", "--force")
    assert inside(both) == {"comparison.json", "ngram", "rnn", "thesis", "notes.md"}
    assert inside(both / "rnn") == {"plots"}
    assert {"notes.md", "run.json"} < inside(both / "ngram")
    assert thesis == {p: p.read_bytes() for p in (both / "thesis").rglob("*") if p.is_file()}


def test_a_run_that_has_the_name_of_a_member_and_is_none_stays(both, lmcli, copied, snapshot):
    copied("gru").rename(both / "gru")
    before = snapshot()
    done = lmcli("compare", "my.txt", "--arch", "gru", *TINY, "-o", "both", "--force")
    done.failed("'both/gru' is not a run of the comparison in 'both'", "-o")
    assert snapshot() == before


def test_a_run_that_is_taken_is_not_trained_anew(both, lmcli, snapshot):
    before = snapshot()
    words = ("--arch", "ngram", "--run", "both/ngram", "-o", "both", "--force")
    lmcli("compare", "my.txt", *words).failed("'both/ngram' is taken by --run")
    assert snapshot() == before


@pytest.mark.parametrize("name", ["../thesis", "link", "deep/thesis", ".", "", "..", 7])
def test_names_that_lead_out_of_the_folder_are_no_members(both, compared, copied, tmp_path, name):
    run = copied("gru").rename(tmp_path / "thesis")
    (both / "link").symlink_to(run)
    shutil.copytree(run, both / "deep" / "thesis")
    before = {p: p.read_bytes() for p in tmp_path.rglob("thesis/*") if p.is_file()}
    values = read_json(both / "comparison.json")
    absolute = str(run) if name == "" else name
    write_json(both / "comparison.json", values | {"members": ["ngram", "rnn", name, absolute]})
    compared("--arch", "ngram", "-o", "both", "--force")
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("thesis/*") if p.is_file()}
    assert inside(both) == {"comparison.json", "ngram", "link", "deep"}


@pytest.mark.parametrize("members", [None, 3, {"ngram": 1}])
def test_a_comparison_that_names_no_members_replaces_none(both, lmcli, snapshot, members):
    values = read_json(both / "comparison.json")
    del values["members"]
    more = {} if members is None else {"members": members}
    write_json(both / "comparison.json", values | more)
    before = snapshot()
    words = ("compare", "my.txt", "--arch", "ngram", "-o", "both", "--force")
    lmcli(*words).failed("'both/ngram' is not a run of the comparison")
    assert snapshot() == before


def test_a_comparison_that_was_killed_can_be_replaced_and_nothing_else_is(
    lmcli, start, my_text, copied, tmp_path
):
    words = ("compare", "my.txt", "--arch", "ngram,lstm", "--workers", "1", "-o", "old", "-q")
    killed = start(*words, "--minutes", "5", "--set", "learning_rate=0.01", cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "old" / "lstm" / "run.json").is_file():
            assert time.monotonic() < deadline
            assert killed.poll() is None
            time.sleep(0.05)
    finally:
        killed.kill()
        killed.wait()
    copied("gru").rename(tmp_path / "old" / "thesis")
    again = ("compare", "my.txt", "--arch", "ngram", "-o", "old", "-q")
    lmcli(*again).failed("'old' exists", "--force")
    assert lmcli(*again, "--force").code == 0
    assert inside(tmp_path / "old") == {"comparison.json", "ngram", "thesis"}


def test_a_comparison_is_kept_whichever_call_finds_the_disk_full(
    both, lmcli, snapshot, full_disks, tmp_path
):
    (both / "rnn" / "notes.md").write_text("mine")
    (both / "ngram" / "notes.md").write_text("mine")
    before, kept = snapshot(), 0
    words = ("compare", "my.txt", "--arch", "ngram", "--workers", "1", "-o", "both", "-q")
    for disk in full_disks():
        with disk:
            done = lmcli(*words, "--force")
        assert not [p for p in tmp_path.rglob(".*") if p.name != ".unfinished.json"], disk.number
        assert (both / "ngram" / "notes.md").read_text() == "mine"
        assert (both / "rnn" / "notes.md").read_text() == "mine"
        Run.open(both / "ngram").model()
        if disk.failed:
            done.failed("no space left")
            Run.open(both / "rnn").model()
            unfinished = (both / ".unfinished.json").is_file()
            assert unfinished or snapshot() == before, disk.number
            kept += not unfinished
    assert kept > 12
    assert done.code == 0
    assert inside(both) == {"comparison.json", "ngram", "rnn"}
    assert inside(both / "rnn") == {"notes.md"}


def test_the_members_of_an_unfinished_comparison_can_be_taken(both, compared):
    (both / "comparison.json").rename(both / ".unfinished.json")
    values = compared("--run", "both", "-o", "both", "--force")
    assert {row["arch"] for row in values["rows"]} == {"ngram", "rnn"}
    assert inside(both) == {"comparison.json", "ngram", "rnn"}
    compared("--arch", "window", *TINY, "-o", "both", "--force")
    assert inside(both) == {"comparison.json", "window"}


def test_a_half_written_folder_is_not_taken_for_a_run(both, compared):
    shutil.copytree(both / "rnn", both / ".rnn.new")
    assert len(compared("--run", "both")["rows"]) == 2


@pytest.mark.parametrize("how", ["--jobs", "--workers", "LMCLI_JOBS", "LMCLI_WORKERS"])
def test_trainings_side_by_side_have_two_names(lmcli, my_text, monkeypatch, how):
    words = [
        "compare",
        "my.txt",
        "--arch",
        "rnn,gru",
        "--steps",
        "1",
        "--set",
        "hidden=4",
        "--json",
    ]
    if how.startswith("--"):
        words += [how, "1"]
    else:
        monkeypatch.setenv(how, "1")
    assert lmcli(*words).json["protocol"]["side_by_side"] == 1
