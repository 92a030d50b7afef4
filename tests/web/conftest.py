"""Small runs of a text that is full of markup, served: in this process, or on a port of its own."""

import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi.testclient import TestClient

import lmcli
from lmcli.web.app import create_app
from lmcli.web.models import open_models
from lmcli.web.server import CONFIG, listen

PORT = 8000
SCRIPT = "<script>document.title='run'<"
MARKUP = "<script>document.title='corpus'</script>"
PAIRS = [["France", "French"], ["Spain", "Spanish"], ["Italy", "Italian"]]
TINY = {"hidden": 12, "embedding": 8}


def _write_text(folder, documents):
    """The text, and a question beside it."""
    text = folder / "<b>corpus<b>.txt"
    lines = [f"{line} {MARKUP} ." for line in documents[:300]]
    text.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    item = {
        "text": "Zoe grew up in France . now she speaks fluent ", "answer": "French", "gap": 6,
        "candidates": [answer for _, answer in PAIRS], "kind": "country", "rest": " .",
    }  # fmt: skip
    text.with_suffix(".items.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    recipe = {"grammar": "france", "filler": []}
    about = {"format": 1, "recipe": recipe, "facts": {"pairs": PAIRS}}
    text.with_suffix(".about.json").write_text(json.dumps(about), encoding="utf-8")
    return text


@pytest.fixture(scope="session")
def folder(tmp_path_factory, france_documents):
    """A folder with a text and runs that were trained on it, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    text = _write_text(folder, france_documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        for name, arch in (("lstm", "lstm"), ("ngram", "ngram"), (SCRIPT, "gru")):
            tiny = {} if arch == "ngram" else {"steps": 30, "settings": TINY}
            lmcli.train(text, arch=arch, tokenizer="word", output=folder / name, **tiny)
        small = {"hidden": 8, "layers": 1, "heads": 2, "window": 16}
        lmcli.train(text, arch="attention", steps=3, settings=small, output=folder / "chars")
    return folder


@pytest.fixture(scope="session")
def runs(folder):
    """The folders of the runs: three of words, and one of characters without a NumPy model."""
    return [folder / name for name in ("lstm", "ngram", SCRIPT, "chars")]


@pytest.fixture(scope="session")
def client(runs):
    """Requests to the application in this process."""
    app = create_app(open_models(runs), PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        yield client


@contextmanager
def served(runs):
    """A real server on a free port, in a thread."""
    with listen(0) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(create_app(open_models(runs), port), **CONFIG))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def address(runs):
    """Where a real server answers."""
    with served(runs) as url:
        yield url


@pytest.fixture(scope="session")
def names():
    """What the tests look for."""
    return SimpleNamespace(script=SCRIPT, markup=MARKUP, text="<b>corpus<b>.txt", port=PORT)
