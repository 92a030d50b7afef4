"""The numbers of the interface are those of the commands."""

import json
import math

import pytest

import lmcli

TEXT = "Zoe grew up in France . now she speaks fluent French ."
LINE = TEXT + "\n"
QUESTION = "Zoe grew up in France . ... now she speaks fluent ___"
WORDS = ["French", "Spanish", "Italian"]


def post(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(answer):
    lines = answer.text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("name", ["lstm", "ngram", "chars"])
def test_a_score_is_that_of_eval_and_inspect(client, folder, tmp_path, name):
    (found,) = post(client, "/v1/score", text=LINE, models=[name])["models"]
    path = tmp_path / "text.txt"
    path.write_text(LINE, encoding="utf-8")
    whole = lmcli.evaluate(folder / name, path, level="token").to_json()
    assert [t["text"] for t in found["tokens"]] == [i["text"] for i in whole["items"]]
    assert [t["nats"] for t in found["tokens"]] == pytest.approx(
        [i["nats"] for i in whole["items"]], abs=1e-4
    )
    for key in ("nats", "perplexity", "bits_per_char"):
        assert found[key] == pytest.approx(whole[key], rel=1e-4)


@pytest.mark.parametrize("name", ["lstm", "ngram", "chars"])
def test_the_next_tokens_have_the_probability_that_the_score_of_the_text_shows(client, name):
    (found,) = post(client, "/v1/next", prompt=TEXT[:-2], models=[name], top=100)["models"]
    (scored,) = post(client, "/v1/score", text=TEXT, models=[name])["models"]
    last = scored["tokens"][-1 if name != "chars" else -2]
    (token,) = [t for t in found["next"] if t["text"] == last["text"]]
    assert -math.log(token["probability"]) == pytest.approx(last["nats"], abs=1e-4)
    assert [t["probability"] for t in found["next"]] == sorted(
        (t["probability"] for t in found["next"]), reverse=True
    )
    assert sum(t["probability"] for t in found["next"]) < 1 + 1e-9


def test_all_runs_that_are_shown_answer_where_none_is_named(client, names):
    found = post(client, "/v1/next", prompt="Zoe", score=True)["models"]
    assert [one["model"] for one in found] == ["lstm", "ngram", names.script, "chars"]
    assert ["".join(t["text"] for t in one["tokens"]) for one in found] == ["Zoe"] * 4


def test_a_text_that_is_being_typed_is_read_as_far_as_its_words_are_whole(client):
    def read(prompt):
        body = {"models": ["ngram"], "prompt": prompt, "score": True, "typing": True, "top": 100}
        (found,) = post(client, "/v1/next", **body)["models"]
        return "".join(t["text"] for t in found["tokens"]), {t["text"] for t in found["next"]}

    whole, after = read("Zoe grew up in")
    assert whole == "Zoe grew up in"
    assert " France" in after
    blank, after = read("Zoe grew up in ")
    assert blank == whole
    assert "France" in after
    begun, after = read("Zoe grew up in Fra")
    assert begun == whole
    assert "nce" in after
    exact = post(client, "/v1/next", models=["ngram"], prompt="Zoe grew up in Fra")["models"]
    assert exact[0]["unknown"] == ["Fra"]


def test_a_sample_is_that_of_the_command_with_the_same_seed(client, folder, names):
    body = {"prompt": "Zoe grew up", "length": 30, "seed": 5, "models": ["lstm", names.script]}
    with client.stream("POST", "/v1/sample", json=body) as answer:
        answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    for name in body["models"]:
        mine = [event for event in events(answer) if event["model"] == name]
        text = "".join(event["text"] for event in mine)
        assert text == "".join(lmcli.sample(folder / name, "Zoe grew up", length=30, seed=5))
        assert mine[-1]["done"]
        assert mine[-1]["tokens"] == 30


def test_without_a_seed_each_sample_is_another(client):
    texts = set()
    for _ in range(3):
        answer = client.post("/v1/sample", json={"models": ["ngram"], "length": 30})
        texts.add("".join(event["text"] for event in events(answer)))
    assert len(texts) == 3


@pytest.mark.parametrize("swap", [None, "France=Spain"])
def test_a_blank_is_filled_as_by_cloze(client, folder, names, swap):
    asked = {"text": QUESTION, "candidates": WORDS, "swap": swap, "gaps": [0, 5, 20]}
    found = post(client, "/v1/cloze", models=["lstm", "ngram"], filler=names.text, **asked)
    runs = [folder / "lstm", folder / "ngram"]
    wanted = lmcli.cloze(runs, filler=folder / names.text, **asked).to_json()
    assert len(found["rows"]) == 6
    for mine, row in zip(found["rows"], wanted["rows"], strict=True):
        assert {**mine, "run": row["run"]} == {**row, "model": mine["model"]}
    assert found["example"]["text"] == wanted["example"]["text"]
    assert found["command"].startswith(f"lmcli cloze {folder / 'lstm'} ")
    assert "--gaps 0,5,20 --filler" in found["command"]


def test_a_unit_of_a_gate_is_that_of_inspect(client, folder):
    found = post(client, "/v1/inspect", model="lstm", text=TEXT, gate="forget", unit=3)
    wanted = lmcli.inspect(folder / "lstm", TEXT, gate="forget", unit=3).to_json()
    assert [t["value"] for t in found["tokens"]] == [i["forget"]["3"] for i in wanted["items"]]
    means = lmcli.inspect(folder / "lstm", TEXT, gate="forget").to_json()["items"]
    assert [t["mean"] for t in found["tokens"]] == [i["forget"] for i in means]
    assert {"name": "forget", "units": 12} in found["gates"]
    free = post(client, "/v1/inspect", model="lstm", text=TEXT)
    assert free["gate"] == "cell"
    assert free["unit"] == free["most_varying"][0]
    assert post(client, "/v1/inspect", model="ngram", text=TEXT)["gates"] == []


def test_the_page_begins_with_a_question_of_the_runs_own_text(client, names):
    page = client.get("/page.json").json()
    assert page["question"]["text"] == QUESTION
    assert page["question"]["answer"] == "French"
    assert page["question"]["pairs"][1] == {"cue": "Spain", "answer": "Spanish"}
    assert page["prompt"] == "Zoe grew up in France . now she speaks fluent "
    assert page["fillers"] == [names.text]
