"""The README keeps its word: its commands run as they stand, and what it names exists."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcli.cli import app
from lmcli.grammars.france.grammar import France
from lmcli.registry import GRAMMARS, MODELS, TOKENIZERS

README = Path(__file__).parent.parent / "README.md"
SHORT = "0.01"
"""minutes for each training"""


@pytest.fixture(scope="module")
def page():
    """The README's text."""
    return README.read_text(encoding="utf-8")


def commands(page):
    return [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ lmcli")]


def write_text(path, seed, documents):
    made = France(France.Settings(size="small", level=0, seed=seed))
    chosen = itertools.islice(made.documents(), documents)
    path.write_text("".join(document + "\n" for document in chosen), encoding="utf-8")


def test_every_command_of_the_readme_runs_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMCLI_MINUTES", SHORT)
    monkeypatch.setenv("LMCLI_WORKERS", "1")  # to load torch once, not once a training
    write_text(tmp_path / "my.txt", seed=1, documents=400)
    write_text(tmp_path / "other.txt", seed=2, documents=60)
    found = commands(page)
    assert len(found) >= 10
    for command in found:
        short = re.sub(r"--minutes \S+", f"--minutes {SHORT}", command)
        name, *arguments = shlex.split(short)
        assert name == "lmcli"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{command}\n{done.stderr}\n{done.exception}"


def test_every_command_the_readme_names_exists(page):
    named = set(re.findall(r"lmcli ([a-z]+)\b", " ".join(commands(page)) + page))
    mentioned = {word for word in named if f"lmcli {word}" in page}
    known = {command.name for command in app.registered_commands}
    words = {"lets", "into"}  # "lmcli lets you see", "lmcli into an environment"
    assert mentioned - words <= known


def test_every_command_is_in_the_readme(page):
    known = {command.name for command in app.registered_commands}
    shown = {command.split()[1] for command in commands(page)}
    assert known == shown


def test_every_name_given_to_an_option_exists(page):
    for option, family in (("--arch", MODELS), ("--tokenizer", TOKENIZERS)):
        for names in re.findall(rf"{option} ([a-z][a-z0-9,]*)", page):
            for name in names.split(","):
                assert family.check(name)
    for name in re.findall(r"lmcli make (\w+)", page):
        assert GRAMMARS.check(name)
    for name in re.findall(r"lmcli list (\w+)", page):
        assert name in {*MODELS.names(), *TOKENIZERS.names(), *GRAMMARS.names()}


def test_every_option_the_readme_shows_exists(page):
    import typer

    group = typer.main.get_command(app)
    known = {flag for c in group.commands.values() for p in c.params for flag in p.opts}
    used = {word for command in commands(page) for word in shlex.split(command)[2:]}
    assert {word for word in used if re.fullmatch(r"--?[a-z-]+", word)} <= known


def test_every_file_the_readme_points_to_exists(page):
    project = README.parent
    paths = set(re.findall(r"`((?:lmcli|tests|data|models|cli)/[\w/.]+)`", page))
    paths |= set(re.findall(r"`(\w+\.py)`", page))
    assert len(paths) > 5
    for path in paths:
        assert (project / path).exists() or (project / "lmcli" / path).exists(), path
