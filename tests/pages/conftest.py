"""A demo and its page, made once."""

import json
from types import SimpleNamespace

import pytest

from lmcli import api
from lmcli.pages.subject import Subject
from lmcli.storage import read_json

NAME = "<img src=x onerror=alert(1)>.txt"
"""what a text may be called"""


def quiet(event):
    """Drops what is said."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A demo of four tiny models on a text with a wicked name: result, folder, page, JSON."""
    folder = tmp_path_factory.mktemp("made")
    lines = (f"The {n % 9} men of it saw {n} ships, and so on.\n" for n in range(200))
    (folder / NAME).write_text("".join(lines))
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        options = {"minutes": 0.01, "settings": {"hidden": 4, "words": 9000, "longest": 50}}
        options |= {"arch": "ngram,rnn,gru,lstm", "output": out}
        found = api.demo(folder / NAME, on_progress=quiet, **options)
    return SimpleNamespace(
        demo=found,
        folder=out,
        page=out / "demo.html",
        values=read_json(out / "comparison.json"),
        text=(out / "demo.html").read_text(encoding="utf-8"),
    )


@pytest.fixture
def subject(made):
    """The same, opened for a page."""
    return Subject.open(made.folder, quiet)


@pytest.fixture(scope="session")
def printed(made):
    """What ``demo --json`` prints."""
    return json.loads(json.dumps(made.demo.to_json()))
