"""Where many tokens are unknown, bits per character leaves out what they are spelt with."""

import random

import pytest


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


def warnings(done):
    return [line for line in done.err.splitlines() if line.startswith("warning: ")]


def test_train_says_how_many_tokens_are_unknown(lmcli, strange):
    (line,) = warnings(trained(lmcli, "word"))
    assert "tokens are unknown to 'word'" in line
    assert "bits/char" in line
    assert warnings(trained(lmcli, "char")) == []


def test_eval_says_so_of_its_text(lmcli, strange):
    trained(lmcli, "word")
    done = lmcli("eval", "word", "--split", "test")
    (line,) = warnings(done)
    (count,) = [x.split()[-1] for x in done.out.splitlines() if x.startswith("unknown tokens")]
    assert line.startswith(f"warning: {count} of ")
    assert warnings(lmcli("eval", "word", "--split", "train")) == []


def test_compare_says_so_where_not_all_lack_the_same(lmcli, strange):
    trained(lmcli, "word")
    trained(lmcli, "char")
    done = lmcli("compare", "strange.txt", "--run", "word", "--run", "char", "--quiet")
    assert done.code == 0, done.err
    (line,) = warnings(done)
    assert "unknown to 'word'" in line
    alone = lmcli("compare", "strange.txt", "--run", "word", "--quiet")
    assert warnings(alone) == []


def test_a_text_whose_words_are_all_known_gets_no_warning(lmcli, my_text):
    assert warnings(trained(lmcli, "word", my_text)) == []
