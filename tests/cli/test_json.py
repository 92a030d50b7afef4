"""``--json``: one object, schema 1, the promised keys, raw numbers, no NaN."""

import json
import math

import pytest

TRAIN = {
    *("run", "arch", "tokenizer", "parameters", "vocabulary", "train_tokens", "tokens_seen"),
    *("epochs", "steps", "seconds", "tokens_per_second", "valid", "best_step", "device"),
    "precision",
}
EVAL = {
    *("run", "texts", "tokens", "chars", "bytes", "words", "nats", "perplexity"),
    *("perplexity_without_unknown", "unknown_tokens", "bits_per_char", "bits_per_byte"),
    *("word_perplexity", "standard_error", "tokenizer", "arch", "reset", "seconds"),
}
COMPARE_ROW = {
    *("name", "arch", "parameters", "tokens_seen", "seconds", "tokens_per_second"),
    *("flops_per_token", "valid", "test", "seeds", "reach", "run"),
}
SAMPLE = {"run", "prompt", "text", "tokens", "nats", "seconds", "seed"}


def heads(values, command):
    return values["schema"] == 1 and values["command"] == command


@pytest.mark.parametrize("run", ["char", "gru", "ngram", "word"])
def test_train_has_the_promised_keys(trained, run):
    values = json.loads((trained / f"{run}.json").read_text())
    assert heads(values, "train")
    assert values.keys() >= TRAIN
    assert values["valid"].keys() >= {"nats_per_token", "bits_per_char", "perplexity"}
    assert values["valid"]["perplexity"] == pytest.approx(
        math.exp(values["valid"]["nats_per_token"])
    )


@pytest.mark.parametrize("run", ["char", "gru", "ngram", "word"])
def test_eval_has_the_promised_keys(lmcli, trained, run):
    done = lmcli("eval", trained / run, trained / "text.txt", "--json")
    assert done.out.count("\n") == 1
    values = done.json
    assert heads(values, "eval")
    assert values.keys() >= EVAL
    text = (trained / "text.txt").read_text()
    assert values["chars"] == len(text)
    assert values["words"] == len(text.split())
    assert values["bits_per_char"] == pytest.approx(values["nats"] / math.log(2) / len(text))


@pytest.mark.parametrize("run", ["char", "word"])
@pytest.mark.parametrize("level", ["line", "token"])
def test_the_sum_over_items_is_the_total(lmcli, trained, run, level):
    values = lmcli("eval", trained / run, trained / "text.txt", "--level", level, "--json").json
    items = values["items"]
    assert all(item.keys() >= {"text", "nats", "unknown"} for item in items)
    assert math.fsum(item["nats"] for item in items) == pytest.approx(values["nats"], rel=1e-9)
    text = (trained / "text.txt").read_text()
    if level == "line":
        assert [item["text"] for item in items] == text.splitlines()
    else:
        assert len(items) == values["tokens"]
        assert "".join(item["text"] for item in items) == text


def test_eval_of_the_recorded_split_is_the_training_results_number(lmcli, trained):
    values = lmcli("eval", trained / "char", "--split", "valid", "--json").json
    before = json.loads((trained / "char.json").read_text())["valid"]["bits_per_char"]
    assert values["bits_per_char"] == pytest.approx(before, rel=1e-6)


def test_what_is_not_finite_is_null(lmcli, trained):
    values = lmcli("eval", trained / "char", "-", "--json", stdin=b"a").json
    assert values["tokens"] == 1
    assert values["standard_error"] is None


def test_no_number_of_eval_depends_on_the_batch(lmcli, trained):
    nats = [
        lmcli("eval", trained / "char", trained / "text.txt", "--batch", b, "--json").json["nats"]
        for b in (1, 7, 64)
    ]
    assert nats == pytest.approx([nats[0]] * 3, rel=1e-6)


def test_sample_prints_an_object_a_line(lmcli, trained):
    arguments = ("--count", "3", "--seed", "5", "--length", "7", "--json")
    lines = lmcli("sample", trained / "char", *arguments).out.splitlines()
    values = [json.loads(line) for line in lines]
    assert [v["seed"] for v in values] == [5, 6, 7]
    assert all(heads(v, "sample") and v.keys() >= SAMPLE for v in values)
    assert all(v["tokens"] == len(v["text"]) == 7 for v in values)


def test_the_same_seed_samples_the_same_text(lmcli, trained):
    draw = ("sample", trained / "char", "--length", "40", "--seed")
    assert lmcli(*draw, "1").out == lmcli(*draw, "1").out
    assert lmcli(*draw, "1").out != lmcli(*draw, "2").out


def test_compare_has_the_promised_keys(lmcli, my_text):
    values = lmcli("compare", "my.txt", "--arch", "ngram", "--json").json
    assert heads(values, "compare")
    assert values.keys() >= {"corpus", "protocol", "rows", "differences"}
    assert values["corpus"].keys() >= {"sha256", "chars", "tokens", "tokenizer"}
    (row,) = values["rows"]
    assert row.keys() >= COMPARE_ROW
    assert row["test"].keys() >= {"perplexity", "bits_per_char", "standard_error"}


def test_cloze_has_the_promised_keys(lmcli, trained):
    arguments = ("--text", "the old ___", "--candidates", "cat,dog", "--swap", "old=small")
    values = lmcli("cloze", trained / "word", *arguments, "--json").json
    assert heads(values, "cloze")
    (row,) = values["rows"]
    assert row.keys() >= {"run", "arch", "gap", "candidates"}
    assert all(c.keys() >= {"text", "probability", "log_odds_swap"} for c in row["candidates"])
    assert sum(c["probability"] for c in row["candidates"]) == pytest.approx(1)


@pytest.mark.parametrize("arguments", [("list",), ("list", "gru"), ("list", "france")])
def test_list_is_one_object(lmcli, arguments):
    assert heads(lmcli(*arguments, "--json").json, "list")


def test_make_is_one_object(lmcli):
    assert heads(lmcli("make", "france", "--size", "small", "--json").json, "make")
