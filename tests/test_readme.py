"""The pages keep their word: their commands run as they stand, and what they name exists."""

import importlib.util
import itertools
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from lmcli.cli import COMMANDS, app
from lmcli.grammars.france.grammar import France
from lmcli.registry import GRAMMARS, MODELS, PROBES, TOKENIZERS

PROJECT = Path(__file__).parent.parent
README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md")), PROJECT / "CONTRIBUTING.md"]
SHORT = "0.01"
"""minutes for each training"""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page, language=None):
    """The code blocks of a page, or those of one language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [code for name, code in found if language is None or name == language]


def commands(page):
    """The lines that readers are told to type and that are run here."""
    lines = "".join(blocks(page, "console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ lmcli")]


def calls(page):
    """Every call of lmcli in a code block, run here or too long for that."""
    lines = "".join(blocks(page)).splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?lmcli ", line)]


def code(page):
    """All that a page shows as code, in blocks and within sentences."""
    text = page.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return "\n".join([*blocks(page), *(" ".join(span.split()) for span in spans)])


def write_lines(path, lines, encoding="utf-8"):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding=encoding)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which a page begins: one small text for each recipe."""
    grammar = France(France.Settings(size="small", level=0, seed=1))
    lines = list(itertools.islice(grammar.documents(), 460))
    write_lines(tmp_path / "my.txt", lines[:400])
    write_lines(tmp_path / "other.txt", lines[400:])
    write_lines(tmp_path / "poems.txt", [line.replace(" . ", " .\n") + "\n" for line in lines[:60]])
    write_lines(
        tmp_path / "names.txt", [a + b + c for a in "BDKLMN" for b in "aeiou" for c in "lmnrs"]
    )
    write_lines(tmp_path / "old.txt", [line.replace("a", "ä") for line in lines[:60]], "latin-1")
    write_lines(tmp_path / "chinese.txt", ["我在法国长大，所以我会说法语。", "他在德国长大。"] * 60)
    for name in ("one.py", "two.py"):
        source = [f"def f{n}(x):\n    return x + {n}\n" for n in range(60)]
        write_lines(tmp_path / "project" / name, source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMCLI_MINUTES", SHORT)
    monkeypatch.setenv("LMCLI_DEMO_SET", "words=20000")
    for name in ("LMCLI_WORKERS", "LMCLI_JOBS"):  # to load torch once, not once a training
        monkeypatch.setenv(name, "1")
    return tmp_path


@every_page
def test_every_command_runs_in_order(page, folder):
    found = commands(page)
    assert len(found) == page.read_text(encoding="utf-8").count("\n$ ")
    for command in found:
        short = re.sub(r"--minutes \S+", f"--minutes {SHORT}", command)
        short = re.sub(r"--seeds \S+", "--seeds 2", short)
        name, *arguments = shlex.split(short)
        assert name == "lmcli"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{command}\n{done.stderr}\n{done.exception}"


def test_every_command_is_in_the_readme():
    known = set(COMMANDS)
    shown = {command.split()[1] for command in commands(README)}
    assert known == shown | {"serve"}  # which runs until it is stopped
    assert "lmcli serve" in code(README)


@every_page
def test_every_command_that_is_named_exists(page):
    named = set(re.findall(r"\blmcli ([a-z]+)\b", code(page)))
    assert named <= set(COMMANDS)


@every_page
def test_every_option_that_is_shown_exists(page):
    group = typer.main.get_command(app)
    for call in calls(page):
        _, name, *words = shlex.split(call, comments=True)
        params = group.commands[name].params
        known = {flag for p in params for flag in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        assert used <= known | {"--help"}, call


@every_page
def test_every_name_given_to_an_option_exists(page):
    text = code(page)
    for option, family in (("--arch", MODELS), ("--tokenizer", TOKENIZERS)):
        for names in re.findall(rf"{option} ([a-z][\w,:=]*)", text):
            for name in names.split(","):
                assert family.check(name.partition(":")[0])
    for name in re.findall(r"lmcli make (\w+)", text):
        assert GRAMMARS.check(name)
    for name in re.findall(r"lmcli list (\w+)", text):
        families = (MODELS, TOKENIZERS, GRAMMARS, PROBES)
        assert any(name in family.names() for family in families)


@every_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.is_file(), target
        titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, target


@every_page
def test_every_file_that_is_pointed_to_exists(page):
    inside = PROJECT / "lmcli" if page.name == "CONTRIBUTING.md" else PROJECT
    for path in re.findall(r"(?<![\w/*.])((?:[a-z_]+/)+[\w.]*|\w+\.py)", code(page)):
        if page.name == "CONTRIBUTING.md" or path.startswith(
            ("lmcli/", "tests/", "data/", "docs/")
        ):
            assert (inside / path).exists() or (PROJECT / path).exists(), path


# ------------------------------------------------------------------ from Python


class Axes(ModuleType):
    """Takes the place of matplotlib.pyplot where it is not installed; notes what is drawn.

    What it lacks cannot be called, so a page that draws in another way fails.
    """

    def bar(self, names, heights):
        self.bars = dict(zip(names, heights, strict=True))
        return self.bars

    def bar_label(self, bars, labels):
        assert len(bars) == len(labels)

    def ylabel(self, text):
        assert text

    def savefig(self, path):
        Path(path).write_text(repr(self.bars), encoding="utf-8")


@pytest.fixture
def drawing(monkeypatch):
    """matplotlib without a screen, or what takes its place."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if importlib.util.find_spec("matplotlib") is None:
        package = ModuleType("matplotlib")
        package.pyplot = Axes("matplotlib.pyplot")
        monkeypatch.setitem(sys.modules, "matplotlib", package)
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", package.pyplot)


PYTHON = blocks(PROJECT / "docs" / "cookbook.md", "python")


def run_block(source):
    """What a block has defined; its trainings take some steps instead of minutes."""
    names = {}
    exec(re.sub(r"minutes=[\d.]+", "steps=20", source), names)
    return names


def test_the_first_python_block_trains_samples_and_scores(folder, capsys):
    found = run_block(PYTHON[0])
    *text, bits = capsys.readouterr().out.splitlines()
    assert "".join(text)
    assert 0 < float(bits) < 20
    assert (folder / "runs" / "from-python" / "run.json").is_file()
    assert found["run"]


def test_the_second_python_block_plots_the_reach_of_each_architecture(folder, drawing):
    made = CliRunner().invoke(app, ["make", "france", "-o", "france.txt", "--size", "small"])
    assert made.exit_code == 0
    found = run_block(PYTHON[1])
    reach = {
        row["name"]: row["reach"] for row in found["result"]["rows"] if row["name"] != "optimum"
    }
    assert set(reach) == {"rnn", "gru", "lstm"}
    assert dict(zip(found["names"], found["tokens"], strict=True)) == {
        name: value["tokens"] for name, value in reach.items()
    }
    assert (folder / "reach.png").stat().st_size > 0


def test_the_python_blocks_are_those_three_and_the_longest_is_a_script_of_15_lines():
    assert len(PYTHON) == 3
    assert "from openai import OpenAI" in PYTHON[2]  # what it does, tests/web tests
    assert sum(bool(line) for line in PYTHON[1].splitlines()) <= 15
