"""The row "mix" of a comparison: scored as `eval --mix` does, told beside the ranking."""

import pytest


def test_a_comparison_says_what_its_rows_score_together(lmcli, trained):
    runs = [trained / name for name in ("char", "gru", "ngram")]
    named = [part for run in runs for part in ("--run", run)]
    text = trained / "text.txt"
    done = lmcli("compare", text, *named, "-o", "both", "--json")
    mix = done.json["mix"]
    names = [row["name"] for row in done.json["rows"]]
    assert mix["members"] == names
    assert [member["run"] for member in mix["mix"]] == names
    best, *others = names
    more = [part for other in others for part in ("--mix", other)]
    alone = lmcli("eval", best, *more, "--json").json
    assert mix["test"]["bits_per_char"] == pytest.approx(alone["bits_per_char"], rel=1e-6)
    apart = mix["test"]["bits_per_char"] - done.json["rows"][0]["test"]["bits_per_char"]
    assert mix["difference"]["bits_per_char"] == pytest.approx(apart)
    assert (mix["difference"]["a"], mix["difference"]["b"]) == ("mix", best)
    shown = lmcli("compare", text, *named, "-o", "again", "--quiet").out
    assert "mix of these" in shown


def test_runs_of_other_tokenizers_are_left_out(lmcli, trained):
    named = ("--run", trained / "char", "--run", trained / "word")
    done = lmcli("compare", trained / "text.txt", *named, "-o", "both", "--json")
    assert done.json["mix"] is None
