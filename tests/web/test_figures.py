"""The figures of a comparison beside its runs."""

import pytest
from fastapi.testclient import TestClient

import lmcli
from lmcli.web.app import create_app
from lmcli.web.models import open_models


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory):
    """A client of a comparison of two runs."""
    output = tmp_path_factory.mktemp("compared") / "both"
    text = next(folder.glob("*corpus*.txt"))
    runs = [folder / "ngram", folder / "lstm"]
    lmcli.compare(text, run=runs, tokenizer="word", output=output)
    models = open_models([output])
    with TestClient(create_app(models, 8000), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_a_comparison_is_shown_as_lmcli_report_shows_it(compared):
    page = compared.get("/page.json").json()
    assert page["has_comparison"]
    assert {card["id"] for card in page["data"]} == {"ngram", "lstm"}  # they lie elsewhere
    answer = compared.get("/comparison")
    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")
    assert "Which one predicts the text best" in answer.text
    assert "<svg" in answer.text
    assert "<script" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script" not in policy
    assert compared.get("/comparison").content == answer.content


def test_without_a_comparison_there_are_no_figures(client):
    assert not client.get("/page.json").json()["has_comparison"]
    assert client.get("/comparison").status_code == 404
