"""Where many tokens are unknown, it is said which figures hold how they are spelt."""

import random
from pathlib import Path

import pytest

from lmcli.run import RECORD, TOKENIZER
from lmcli.storage import read_json, write_json


@pytest.fixture
def strange(tmp_path):
    """A text in which every other word never comes again."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=9)) for _ in range(2000)]
    (tmp_path / "strange.txt").write_text("".join(f"the {word} ,\n" for word in words))


def trained(lmcli, tokenizer, text="strange.txt"):
    done = lmcli("train", text, "--arch", "ngram", "--tokenizer", tokenizer, "-o", tokenizer)
    assert done.code == 0, done.err
    return done


def as_saved_before(name):
    """A run as version 0.1.0 saved it, without the unknown rate."""
    file = Path(name) / TOKENIZER
    saved = {k: v for k, v in read_json(file).items() if k != "unknown_rate"}
    write_json(file, saved)
    record = Path(name) / RECORD
    write_json(record, read_json(record) | {"id": ""})


def warnings(done):
    return [line for line in done.err.splitlines() if line.startswith("warning: ")]


def test_train_says_how_many_tokens_are_unknown(lmcli, strange):
    (line,) = warnings(trained(lmcli, "word"))
    assert "tokens are unknown to 'word'" in line
    assert line.endswith("perplexity leaves out how they are spelt, bits/char holds it")
    assert warnings(trained(lmcli, "char")) == []


def test_eval_says_so_of_its_text(lmcli, strange):
    trained(lmcli, "word")
    done = lmcli("eval", "word", "--split", "test")
    (line,) = warnings(done)
    (count,) = [x.split()[-1] for x in done.out.splitlines() if x.startswith("unknown tokens")]
    assert line.startswith(f"warning: {count} of ")
    assert warnings(lmcli("eval", "word", "--split", "train")) == []


def test_compare_says_so_where_some_are_not_spelt(lmcli, strange):
    trained(lmcli, "word")
    trained(lmcli, "char")
    compare = ["compare", "strange.txt", "--run", "word", "--run", "char", "--quiet", "--json"]
    done = lmcli(*compare)
    assert done.code == 0, done.err
    assert warnings(done) == []
    spelt = {row["name"]: row["test"]["bits_per_char"] for row in done.json["rows"]}
    as_saved_before("word")
    done = lmcli(*compare)
    (line,) = warnings(done)
    assert "unknown to 'word'" in line
    assert "bits/char leaves out how they are spelt" in line
    unspelt = {row["name"]: row["test"]["bits_per_char"] for row in done.json["rows"]}
    assert unspelt["char"] == spelt["char"] == pytest.approx(spelt["word"], rel=0.2)
    assert unspelt["word"] < 0.8 * spelt["word"]
    alone = lmcli("compare", "strange.txt", "--run", "word", "--quiet")
    assert warnings(alone) == []


def test_a_text_whose_words_are_all_known_gets_no_warning(lmcli, my_text):
    assert warnings(trained(lmcli, "word", my_text)) == []
