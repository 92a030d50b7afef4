"""A request becomes a job, and a run finds its way back to the text it was made from."""

from pathlib import Path

import pytest

from lmcli.errors import TextError
from lmcli.preparing import TextChoice, prepare_job, prepare_source, reopen
from lmcli.training import Budget

LINES = [f"line {n} of {n % 7} and {n * n % 11}\n" for n in range(400)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose validation and test text are files of their own."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"my": LINES[:200], "valid": LINES[200:300], "test": LINES[300:]}.items():
        Path(f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    source = prepare_source(
        TextChoice(("my.txt",), valid=("valid.txt",), test=("test.txt",)), "char"
    )
    return prepare_job(source, "ngram", {}, Budget(steps=1), 0, "cpu").create(tmp_path / "run")


def test_a_run_finds_the_parts_it_was_made_from(run):
    corpus = reopen(run).source.corpus
    parts = [corpus.train, corpus.valid, corpus.test]
    assert ["".join(p.pieces) for p in parts] == [
        "".join(LINES[a:b]) for a, b in ((0, 200), (200, 300), (300, 400))
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("my", "the text"), ("valid", "the validation text"), ("test", "the test text")],
)
def test_a_text_that_has_changed_since_is_noticed_in_every_part(run, name, said):
    with Path(f"{name}.txt").open("a", encoding="utf-8") as file:
        file.write("one line more\n")
    with pytest.raises(TextError) as caught:
        reopen(run)
    assert caught.value.problem.startswith(f"{said} has changed since")
