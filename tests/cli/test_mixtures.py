"""``--mix``, ``--cache``, ``--adapt``: what they say, what they refuse, what they do not change."""

import math
import shutil

import pytest

from lmcli import api
from lmcli.errors import TextError
from lmcli.evaluation import ensemble


def test_without_them_the_numbers_are_as_before(lmcli, trained):
    plain = lmcli("eval", trained / "char", "--json").json
    assert plain["adaptive"] == []
    assert "mix" not in plain
    again = lmcli("eval", trained / "char", "--json").json
    assert again["nats"] == plain["nats"]
    assert "scored" not in lmcli("eval", trained / "char").out


def test_a_cache_remembers_how_unknown_characters_are_spelt(lmcli, trained):
    text = "the old dog \N{SNOWMAN} the old dog \N{SNOWMAN}\n"
    alone, cached = (
        lmcli("eval", trained / "ngram", "-", *more, "--json", stdin=text).json
        for more in ([], ["--cache"])
    )
    assert alone["unknown_tokens"] == cached["unknown_tokens"] == 2
    once = alone["spelling_nats"] / 2
    d, theta = cached["cache"]["discount"], cached["cache"]["strength"]
    again = -math.log((1 - d + (theta + d) * math.exp(-once)) / (1 + theta))
    # the first is spelt in full, the second is foretold by the characters before it as well
    assert cached["spelling_nats"] > once - 1e-4
    assert cached["spelling_nats"] < once + again
    assert cached["nats"] - alone["nats"] < 1


def test_what_was_read_before_need_not_be_spelt_again(lmcli, sentences, tmp_path):
    """Words that were left out of the vocabulary, of which the training part has many."""
    lines = sentences(400).splitlines()
    lines[::5] = [f"the rare{n % 40} sees the rare{n % 40} ." for n in range(len(lines[::5]))]
    text = "\n".join(lines)
    (tmp_path / "text.txt").write_text(text)
    how = ("--arch", "ngram", "--tokenizer", "word", "--set", "min_count=6", "-o", "run", "-q")
    assert lmcli("train", "text.txt", *how).code == 0
    (tmp_path / "same.txt").write_text(text)
    plain, after, alone = (
        lmcli("eval", "run", *words, "--json").json
        for words in (["--split", "test"], ["--split", "test", "--cache"], ["same.txt", "--cache"])
    )
    assert plain["unknown_tokens"] == after["unknown_tokens"] > 5
    assert after["cache"]["begun_on"] == ["train", "valid"]
    assert after["spelling_nats"] < 0.7 * plain["spelling_nats"]
    assert after["perplexity_without_unknown"] > 1
    assert alone["cache"]["begun_on"] == []


MIXED = ("--mix", "ngram")


@pytest.mark.parametrize("level", ["token", "line"])
@pytest.mark.parametrize("more", [(), MIXED, ("--adapt",), (*MIXED, "--adapt")])
def test_items_of_a_cached_text_with_unknown_signs_add_up(lmcli, trained, level, more):
    text = "the old \N{SNOWMAN}\N{SNOWMAN}\n\n\N{COMET} dog \N{SNOWMAN}\n" * 3
    usual = [str(trained / word) if word == "ngram" else word for word in more]
    how = ("--cache", *usual, "--level", level, "--json")
    found = lmcli("eval", trained / "char", "-", *how, stdin=text).json
    assert sum(i["nats"] for i in found["items"]) == pytest.approx(found["nats"], rel=1e-6)
    assert found["unknown_tokens"] == 12
    assert 1 < found["perplexity_without_unknown"] < 1e6


def test_a_text_of_unknown_signs_alone_has_finite_figures(lmcli, trained):
    text = "the dog " + "☃" * 3000
    found = lmcli("eval", trained / "ngram", "-", "--cache", "--json", stdin=text).json
    assert found["unknown_tokens"] == 3000
    assert found["perplexity_without_unknown"] > 1
    assert found["nats"] / found["tokens"] < 0.1


@pytest.mark.parametrize("run", ["char", "word", "ngram"])
def test_a_cache_is_named_and_scores_every_token_once(lmcli, trained, run):
    plain = lmcli("eval", trained / run, "--json").json
    cached = lmcli("eval", trained / run, "--cache", "--json").json
    assert cached["adaptive"] == ["cache"]
    assert cached["cache"]["orders"][0] == 1
    assert cached["tokens"] == plain["tokens"]
    assert cached["nats"] != plain["nats"]
    shown = lmcli("eval", trained / run, "--cache").out
    assert "with a cache of the held-out text read so far" in " ".join(shown.split())
    items = lmcli("eval", trained / run, "--cache", "--level", "line", "--json").json["items"]
    assert sum(i["nats"] for i in items) == pytest.approx(cached["nats"], rel=1e-6)


def test_a_cache_is_begun_on_the_parts_before_and_never_on_what_is_scored(lmcli, trained, tmp_path):
    def begun(*args):
        return lmcli("eval", *args, "--cache", "--json").json["cache"]["begun_on"]

    assert begun(trained / "char") == ["train", "valid"]
    assert begun(trained / "char", "--split", "test") == ["train", "valid"]
    assert begun(trained / "char", "--split", "valid") == ["train"]
    assert begun(trained / "char", "--split", "train") == []
    (tmp_path / "other.txt").write_text("the cat sees a dog .\n")
    assert begun(trained / "char", "other.txt") == []


def test_it_is_said_how_much_of_a_long_part_a_cache_has_read(lmcli, trained, monkeypatch):
    whole = lmcli("eval", trained / "char", "--cache", "--json").json
    assert whole["cache"]["begun_share"] == [1.0, 1.0]
    assert "begun on train and valid" in whole["method"]
    monkeypatch.setattr(ensemble, "MOST_BEFORE", {"train": 500, "valid": 1 << 18})
    sample = lmcli("eval", trained / "char", "--cache", "--json").json
    share, all_of_it = sample["cache"]["begun_share"]
    assert 0 < share < 0.2
    assert all_of_it == 1
    assert f"begun on {share:.2g} of train and valid" in sample["method"]


def test_a_cache_has_not_read_a_validation_text_that_is_named_again(lmcli, sentences, tmp_path):
    for name, part in (("train.txt", slice(400)), ("valid.txt", slice(400, None))):
        (tmp_path / name).write_text("".join(sentences(500).splitlines(keepends=True)[part]))
    words = ("train", "train.txt", "--valid", "valid.txt", "--arch", "ngram", "-o", "run", "-q")
    assert lmcli(*words).code == 0
    shutil.copy("valid.txt", "copy.txt")
    costs = [
        lmcli("eval", "run", *text, "--cache", "--json").json["nats"]
        for text in (["valid.txt"], ["copy.txt"], ["--split", "valid"], [])
    ]
    assert costs == pytest.approx([costs[0]] * 2 + [costs[2]] * 2, rel=1e-6)
    plain = lmcli("eval", "run", "valid.txt", "--json").json["nats"]
    assert min(costs) > 0.8 * plain  # 0.1 of it where the cache has read the same text before


def test_weights_that_were_fitted_on_what_is_scored_are_warned_of(lmcli, trained):
    mix = ("eval", trained / "char", "--mix", trained / "ngram")
    assert "fitted on this part" in lmcli(*mix, "--split", "valid").err
    assert "fitted on this part" not in lmcli(*mix).err


def test_a_mixture_costs_no_more_than_its_better_member(lmcli, trained):
    runs = [trained / name for name in ("char", "gru", "ngram")]
    valid = ("--split", "valid", "--json")  # what its weights are fitted on
    alone = [lmcli("eval", run, *valid).json["nats"] for run in runs]
    mixed = lmcli("eval", runs[0], "--mix", runs[1], "--mix", runs[2], *valid).json
    assert mixed["nats"] < min(alone) * (1 + 1e-6)
    assert [member["arch"] for member in mixed["mix"]] == ["lstm", "gru", "ngram"]
    for weights in zip(*(member["weights"] for member in mixed["mix"]), strict=True):
        assert sum(weights) == pytest.approx(1)
    assert mixed["mix_weights_by"] == "found context length"
    networks = lmcli("eval", runs[0], "--mix", runs[1], *valid).json
    assert networks["mix_weights_by"] is None
    assert len(networks["mix"][0]["weights"]) == 1


def test_all_together_are_named(lmcli, trained):
    every = ("--mix", trained / "ngram", "--cache", "--adapt")
    found = lmcli("eval", trained / "char", *every, "--json").json
    assert found["adaptive"] == ["cache", "adapt"]
    assert len(found["mix"]) == 2
    assert found["adapt"]["chunk"] == 20


def test_of_many_words_it_learns_more_slowly(trained, monkeypatch):
    rates = []
    for many in (2_000, 2):
        monkeypatch.setattr("lmcli.evaluation.dynamic.SEVERAL_WORDS", many)
        found = api.evaluate(trained / "char", adapt=True, on_progress=lambda event: None)
        rates.append(found.to_json()["adapt"]["rate"])
    assert rates == [1e-3, 1e-4]


def test_another_vocabulary_is_refused(lmcli, trained):
    lmcli("eval", trained / "char", "--mix", trained / "word").failed("vocabular", "--tokenizer")
    lmcli("sample", trained / "char", "--mix", trained / "word").failed("vocabular")


def test_runs_that_hold_out_different_parts_of_one_text_are_not_mixed(lmcli, trained, tmp_path):
    text, other = trained / "text.txt", tmp_path / "other"
    how = ("--arch", "ngram", "--tokenizer", "byte", "--quiet")
    assert lmcli("train", text, *how, "-o", tmp_path / "one").code == 0
    assert lmcli("train", text, *how, "--rotation", "1", "-o", other).code == 0
    refused = lmcli("eval", tmp_path / "one", "--mix", other)
    refused.failed("was trained on the validation part", "--rotation")
    lmcli("sample", tmp_path / "one", "--mix", other).failed("would seem better")
    lmcli("eval", tmp_path / "one", text, "--mix", other).failed("would seem better")


def test_a_part_that_is_missing_is_told_before_weights_are_fitted(lmcli, trained, tmp_path):
    valid = tmp_path / "valid.txt"
    valid.write_text("the dog sat by the old tree.\n" * 30, encoding="utf-8")
    run, how = tmp_path / "one", ("--arch", "ngram", "--valid", valid, "--quiet")
    assert lmcli("train", trained / "text.txt", *how, "-o", run).code == 0
    events = []
    with pytest.raises(TextError, match="without a test part"):
        api.evaluate(run, split="test", mix=run, on_progress=events.append)
    assert not any("fitting" in str(event) for event in events)
    api.evaluate(run, split="valid", mix=run, on_progress=events.append)
    assert any("fitting" in str(event) for event in events)


def test_a_run_that_held_out_less_is_mixed_unless_it_has_learnt_what_is_scored(
    lmcli, trained, tmp_path
):
    text, more = trained / "text.txt", tmp_path / "more.txt"
    more.write_text("the dog sat by the old tree.\n" * 30, encoding="utf-8")
    how = ("--arch", "ngram", "--tokenizer", "byte", "--quiet")
    assert lmcli("train", text, *how, "-o", tmp_path / "cut").code == 0
    assert lmcli("train", text, *how, "--test", more, "-o", tmp_path / "own").code == 0
    mix = ("eval", tmp_path / "cut", "--mix", tmp_path / "own")
    lmcli(*mix).failed("was trained on the test part")
    assert lmcli(*mix, more).code == 0
    assert lmcli(*mix, "--split", "valid").code == 0
    assert lmcli("eval", tmp_path / "own", "--mix", tmp_path / "cut").code == 0


@pytest.mark.parametrize("how", [("--mix", "ngram"), ("--cache",)])
def test_standard_input_is_read_once(lmcli, trained, how):
    usual = [str(trained / word) if word == "ngram" else word for word in how]
    given = ("--split", "test", *usual, "--json")
    text = (trained / "text.txt").read_text(encoding="utf-8")
    piped = lmcli("eval", trained / "char", "-", *given, stdin=text)
    assert piped.code == 0, piped.err
    assert piped.json["nats"] == lmcli("eval", trained / "char", *given).json["nats"]


@pytest.mark.parametrize("how", [("--mix", "other"), ("--cache",)])
def test_a_text_that_was_moved_is_named(lmcli, trained, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    text, moved = tmp_path / "text.txt", tmp_path / "moved.txt"
    shutil.copy(trained / "text.txt", text)
    for name, order in (("run", "order=4"), ("other", "order=2")):
        done = lmcli("train", text, "--arch", "ngram", "--set", order, "-o", name, "--quiet")
        assert done.code == 0, done.err
    before = lmcli("eval", "run", "--split", "test", *how, "--json").json
    text.rename(moved)
    found = lmcli("eval", "run", moved, "--split", "test", *how, "--json")
    assert found.code == 0, found.err
    assert "begins empty" not in found.err
    assert found.json["nats"] == before["nats"]


def test_counts_cannot_adapt(lmcli, trained):
    lmcli("eval", trained / "ngram", "--adapt").failed("counting", "--cache", code=2)


def test_the_folder_of_the_token_cache_is_no_switch(lmcli, trained, monkeypatch):
    monkeypatch.setenv("LMCLI_CACHE", str(trained / "cache"))
    assert lmcli("eval", trained / "char", "--json").json["adaptive"] == []


def test_a_mixture_is_sampled(lmcli, trained):
    draw = ("sample", trained / "char", "--mix", trained / "ngram", "--length", "60", "--seed", "1")
    found = lmcli(*draw, "--json").json
    assert found["tokens"] == 60
    assert found["mix"] == [str(trained / "ngram")]
    alone = lmcli("sample", trained / "char", "--length", "60", "--seed", "1", "--json").json
    assert "mix" not in alone
    assert found["nats"] < alone["nats"]


def test_novelty_is_told_of_each_text(lmcli, trained):
    draw = ("sample", trained / "ngram", "--length", "80", "--seed", "3", "--novelty")
    found = lmcli(*draw, "--json").json["novelty"]
    assert found["least"] == 8
    assert 0 < found["share"] <= 1
    shown = " ".join(lmcli(*draw).out.split())
    assert f"{100 * found['share']:.0f} % of the characters (marked) are in spans of 8" in shown


def test_novelty_needs_the_text(lmcli, my_text):
    assert lmcli("train", my_text, "--arch", "ngram", "-o", "counted", "--quiet").code == 0
    my_text.unlink()
    lmcli("sample", "counted", "--novelty").failed("my.txt")


def test_novelty_needs_an_end(lmcli, trained):
    lmcli("sample", trained / "char", "--novelty", "--length", "0").failed("--length", code=2)
