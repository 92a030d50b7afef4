"""The slider's beginning: which texts filler comes from, which question is asked."""

import json

import pytest

import lmcli
from lmcli.evaluation.cloze import FILLERS, random_fillers
from lmcli.web.models import open_models
from lmcli.web.questions import OwnText, first_prompt, known_question, own_texts


@pytest.fixture
def run(tmp_path):
    """``run(items, about)``: the models of one run, with these beside its text."""
    text = tmp_path / "my.txt"
    text.write_text("Anna grew up in Rome . now she speaks Latin .\n" * 300, encoding="utf-8")

    def make(items=(), about=None):
        lines = [json.dumps({"gap": 3, "kind": "country", "rest": ".", **item}) for item in items]
        if items:
            text.with_suffix(".items.jsonl").write_text("\n".join(lines), encoding="utf-8")
        if about:
            said = json.dumps({"format": 1, "recipe": {"grammar": "france"}, **about})
            text.with_suffix(".about.json").write_text(said, encoding="utf-8")
        lmcli.train(text, arch="ngram", tokenizer="word", output=tmp_path / "ngram")
        return open_models([tmp_path / "ngram"])

    return make


PAIRS = [["Rome", "Latin"], ["Athens", "Greek"]]
WORDS = ["Latin", "Greek"]


def item(text, answer):
    return {"text": text, "answer": answer, "candidates": WORDS}


def test_the_question_is_the_textbooks_and_names_one_cue(run):
    models = run(
        [
            item("Rome was her home . now she speaks ", "Latin"),
            item("Anna grew up in Rome . a bus came . now she speaks ", "Latin"),  # has filler
            item("Anna grew up in Rome . she met a man from Athens who speaks ", "Latin"),
            item("Anna grew up in Athens . now she speaks ", "Greek"),  # not the first pair
            item("Anna grew up in Rome . now she speaks ", "Latin"),
        ],
        {"facts": {"pairs": PAIRS}},
    )
    question = known_question(models)
    assert question.text == "Anna grew up in Rome . ... now she speaks ___"
    assert (question.cue, question.answer) == ("Rome", "Latin")
    assert first_prompt(models, question) == "Anna grew up in Rome . now she speaks "


@pytest.mark.parametrize("about", [None, {"facts": {"pairs": PAIRS}}])
def test_without_items_or_facts_the_user_asks(run, about):
    models = run((), about)
    assert known_question(models) is None
    assert first_prompt(models, None) == "Anna grew up in Rome . now she"


def test_filler_comes_first_from_the_text_that_facts_were_put_into(run, tmp_path):
    (tmp_path / "novel.txt").write_text("call me Ishmael", encoding="utf-8")
    texts = [str(tmp_path / "novel.txt"), str(tmp_path / "gone.txt")]
    found = own_texts(run((), {"filler": {"texts": texts}}))
    assert list(found) == ["novel.txt", "my.txt"]
    assert found["novel.txt"].text == "call me Ishmael"


def test_fillers_are_those_of_cloze(tmp_path):
    text = " ".join(map(str, range(500)))
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    own = OwnText(str(tmp_path / "my.txt"))
    assert own.fillers(7) == random_fillers(text, 7, FILLERS, seed=0)
    assert own.fillers(7) is own.fillers(7)
    assert own.fillers(0) == [""]
