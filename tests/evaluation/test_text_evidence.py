"""A text that cannot show memory: which words are too rare, said once, and never without need."""

import json
import random

import pytest

from lmcli import api
from lmcli.evaluation.text_evidence import note_rare_words

WORDS = ["the", "cat", "sees", "a", "dog", "in", "town"]
RARE = "'France' and 'fluent' occur 2 times each in the training text: too few to learn from"


def write(path, sentence="She came from France , a fluent reader .\n"):
    """A text of common words, in which the words of one sentence occur twice."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=7)) + " .\n" for _ in range(200)]
    lines[0] = lines[1] = sentence
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An n-gram on my.txt."""
    monkeypatch.chdir(tmp_path)
    text = write(tmp_path / "my.txt").name
    return api.train(text, arch="ngram", tokenizer="word", split="tail", output="run")


def said(*asked):
    events = []
    note_rare_words(*asked, on_progress=events.append)
    assert all(event.level == "note" for event in events)
    return [event.text for event in events]


def test_rare_words_are_named_with_the_command_that_makes_a_text_with_enough(run):
    text = "the cat in France ... a fluent "
    assert said([run], text) == [f"{RARE}; lmcli demo my.txt makes a text that has enough"]


def test_candidates_are_counted_too(run):
    (line,) = said([run], "the cat sees ", ["dog", "Yeti"])
    assert line.startswith("'Yeti' occurs 0 times in the training text: too few to learn from")


def test_the_same_text_is_counted_once_for_all_runs(run):
    other = api.train("my.txt", arch="ngram", tokenizer="char", split="tail", output="other")
    assert len(said([run, other, run], "France is fluent ")) == 1


def test_common_words_are_no_reason_to_say_anything(run):
    assert said([run], "the dog in town sees a ", ["cat"]) == []


def test_a_text_that_is_gone_or_has_items_is_not_spoken_of(run, tmp_path):
    item = {"text": "in ", "answer": "a", "candidates": ["a", "b"], "gap": 1, "kind": "x"}
    items = tmp_path / "my.items.jsonl"
    items.write_text(json.dumps(item | {"rest": ""}), encoding="utf-8")
    assert said([run], "France ... fluent ") == []
    items.unlink()
    assert said([run], "France ... fluent ")
    (tmp_path / "my.txt").unlink()
    assert said([run], "France ... fluent ") == []


def test_without_blanks_words_are_counted_only_where_they_are_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "我在法国长大。我说流利的法语。\n" * 60
    (tmp_path / "zh.txt").write_text(text, encoding="utf-8")
    run = api.train("zh.txt", arch="ngram", output="run")
    assert said([run], "他在法国长大。他说流利的", ["法语"]) == []
    (line,) = said([run], "他在法国长大。他说流利的", ["法语", "德语"])
    assert line.startswith("'德语' occurs 0 times")
