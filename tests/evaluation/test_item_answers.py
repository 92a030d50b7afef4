"""Items with known answers beside a text: the user's own kind too, and none that is unreported."""

import json
import random

import pytest

from lmcli import api
from lmcli.errors import TextError
from lmcli.evaluation.item_answers import ItemAnswers

PETS = {"Tom": "dog", "Ida": "cat"}


def entry(name, kind="pet", gap=4):
    text = f"{name} has {PETS[name]} food . the pet of {name} is a "
    more = {"answer": PETS[name], "candidates": list(PETS.values()), "rest": " ."}
    return json.dumps({"text": text, "gap": gap, "kind": kind, **more})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """An n-gram on pets.txt, with 40 items of a kind of the user's own."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    lines = (json.loads(entry(draw.choice(list(PETS)))) for _ in range(400))
    text = "".join(f"{line['text']}{line['answer']} .\n" for line in lines)
    (tmp_path / "pets.txt").write_text(text, encoding="utf-8")
    some = [entry(name) for name in PETS] * 20
    (tmp_path / "pets.items.jsonl").write_text("\n".join(some) + "\n", encoding="utf-8")
    return api.train("pets.txt", arch="ngram", tokenizer="word", documents="line", output="run")


def test_a_kind_of_the_users_own_is_answered_and_early_stopping_is_not(run):
    found = api.cloze(run)
    assert isinstance(found, ItemAnswers)
    assert [(row["kind"], row["gap"], row["count"]) for row in found.rows] == [("pet", 4, 40)]
    assert found.rows[0]["accuracy"] == 1
    (table,) = found.result().blocks
    assert table.title == "right answers by gap: pet"
    assert [column.title for column in table.columns] == ["model", "4 words"]


def test_early_stopping_is_in_no_probe_either(run):
    found = api.probe(run, name="recall").to_json()
    assert {row["kind"] for row in found["rows"]} == {"pet"}


def test_what_was_learnt_of_the_task_is_in_the_json(run):
    (learning,) = api.cloze(run).to_json()["learning"]
    assert (learning["run"], learning["arch"], learning["verdict"]) == ("run", "ngram", "remembers")
    assert learning["train_target_nats"] < 0.1
    assert learning["stopped"] is None
    assert not learning["still_falling"]


def test_a_run_that_has_not_learnt_is_told_so_below_its_row(run):
    tiny = {"hidden": 4, "embedding": 4, "learning_rate": 1e-5}
    options = {"tokenizer": "word", "documents": "line", "settings": tiny}
    new = api.train("pets.txt", arch="rnn", steps=3, output="rnn", **options)
    table, passage = api.cloze([run, new]).result().blocks
    assert len(table.rows) == 3
    assert passage.text.startswith("rnn has not learnt the task in 3 steps (right after the cue ")
    assert passage.text.endswith(" of 40): try --steps 12")
    verdict = api.probe([run, new], name="recall").to_json()["verdict"]
    assert passage.text in verdict
    assert "ngram: half-memory at gap 4 or more; above chance up to at least gap 4" in verdict


def test_gaps_that_are_not_there_are_an_error(run):
    with pytest.raises(TextError, match="no items with these gaps"):
        api.cloze(run, gaps=[5])
