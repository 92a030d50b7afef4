"""Who may ask, how long a request may be, what an answer may load."""

import json

import pytest


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1.evil.com:8000"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/v1/models", "/static/app.js", "/nothing"])
def test_a_foreign_host_is_refused(client, host, path):
    answer = client.get(path, headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "this server answers only under its own address"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST:8000"]
)
def test_the_server_answers_under_its_own_names(client, host):
    assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001"]
)
def test_a_foreign_origin_is_refused(client, origin):
    for answer in (
        client.post("/v1/next", json={"prompt": "a"}, headers={"origin": origin}),
        client.get("/v1/models", headers={"origin": origin}),
    ):
        assert answer.status_code == 403


def test_requests_that_a_browser_marks_as_from_elsewhere_are_refused_but_links_are_not(client):
    foreign = {"sec-fetch-site": "cross-site"}
    assert client.get("/static/app.js", headers=foreign).status_code == 403
    assert client.get("/", headers=foreign | {"sec-fetch-mode": "navigate"}).status_code == 200
    own = {"origin": "http://localhost:8000", "host": "localhost:8000"}
    assert client.post("/v1/next", json={"prompt": "a"}, headers=own).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py",
     "/static//etc/passwd", "/static/models.py", "/page.json/../../run.json"],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages_files(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["../lstm", "/etc/passwd", "lstm/../ngram", "", "."])
def test_runs_and_texts_are_known_by_name_only(client, folder, name):
    for path, body in {
        "/v1/next": {"prompt": "a", "models": [name]},
        "/v1/completions": {"prompt": "a", "model": name},
        "/v1/inspect": {"text": "a", "model": name},
        "/v1/cloze": {"text": "a ... ___", "gaps": [0], "filler": name},
        "/v1/sample": {"models": [str(folder / "lstm")]},
    }.items():
        answer = client.post(path, json=body)
        assert answer.status_code == 404
        assert str(folder) not in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/next", {"prompt": "x" * 20_001}),
        ("/v1/score", {"text": ""}),
        ("/v1/next", {"prompt": "a", "top": 101}),
        ("/v1/next", {"prompt": "a", "file": "x"}),
        ("/v1/sample", {"length": 4097}),
        ("/v1/sample", {"temperature": -1}),
        ("/v1/completions", {"model": "lstm", "prompt": "a", "n": 17}),
        ("/v1/completions", {"model": "lstm", "prompt": ["a"] * 17}),
        ("/v1/completions", {"model": "lstm", "best_of": 2}),
        ("/v1/cloze", {"text": "no blank"}),
        ("/v1/cloze", {"text": "a ... ___", "gaps": [2001], "filler": "f"}),
        ("/v1/inspect", {"model": "lstm", "text": "x" * 2001}),
    ],
)
def test_what_is_too_much_is_refused_and_names_the_value(client, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code == (400 if path == "/v1/completions" else 422)  # 400 as OpenAI's
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] in error["message"]


def test_a_body_that_is_too_long_is_413_whether_its_length_is_said_or_not(client):
    long = b'{"prompt": "' + b"x" * 300_000 + b'"}'
    headers = {"content-type": "application/json"}
    assert client.post("/v1/next", content=long, headers=headers).status_code == 413

    def chunks():
        for begin in range(0, len(long), 10_000):
            yield long[begin : begin + 10_000]

    assert client.post("/v1/next", content=chunks(), headers=headers).status_code == 413


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"prompt": NaN}', b'{"prompt": "\\ud800"}']
)
def test_what_is_no_json_is_422(client, content):
    answer = client.post("/v1/next", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_get_changes_nothing_and_what_changes_nothing_is_not_posted(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {path for path, methods in paths.items() if "get" in methods} == {"/v1/models"}
    for path in paths:
        wrong = client.post(path) if path == "/v1/models" else client.get(path)
        assert wrong.status_code == 405
        assert wrong.json()["error"]["message"] == "Method Not Allowed"


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/colors.css", "/v1/models", "/no"])
def test_every_answer_says_that_nothing_from_elsewhere_may_be_loaded(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_an_error_has_neither_paths_nor_a_traceback(client, folder):
    body = {"text": "Zoe ___", "candidates": ["French", "Klingon"], "models": ["lstm"]}
    answer = client.post("/v1/cloze", json=body)
    assert answer.status_code == 409
    said = answer.json()["error"]
    assert said["message"] == "candidate 'Klingon' is not in the vocabulary"
    assert said["hint"]
    unit = client.post("/v1/inspect", json={"model": "lstm", "text": "Zoe", "unit": 99})
    assert unit.status_code == 409
    for text in (answer.text, unit.text):
        assert str(folder) not in text
        assert "Traceback" not in text


def test_the_page_itself_has_no_inline_script_or_style_and_no_address(client):
    page = client.get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert "://" not in page
    assert page.count("<script") == page.count('<script type="module" src="/static/')
    for name in ("app.js", "next.js", "memory.js", "inside.js", "write.js", "chart.js", "dom.js"):
        code = client.get(f"/static/{name}").text
        assert not any(word in code for word in ("innerHTML", "eval(", "insertAdjacentHTML"))


def test_names_of_runs_and_texts_come_as_json_text(client, names):
    cards = client.get("/v1/models")
    assert cards.headers["content-type"] == "application/json"
    ids = [card["id"] for card in json.loads(cards.text)["data"]]
    assert ids == ["lstm", "ngram", names.script, "chars"]
    assert names.text in json.loads(cards.text)["fillers"]
