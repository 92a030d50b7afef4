"""The command as a user runs it: in this process where that is enough, else in one of its own."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcli.cli import app

TINY = ("--steps", "30", "--set", "hidden=16", "--quiet")
WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "chases", "old", "small", "tree"]


@dataclass(frozen=True)
class Finished:
    """What came of a command."""

    code: int
    out: str
    err: str
    raw: bytes = b""

    @property
    def json(self):
        """The one object on stdout; anything beside it fails."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))

    def failed(self, *words, code=1):
        """Two lines on stderr that hold these words, in the house's form."""
        assert self.code == code, self.out + self.err
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 2, self.err
        for line, label in zip(lines, ("error: ", "hint: "), strict=True):
            assert line.startswith(label)
            said = line.removeprefix(label)
            assert said
            assert not said[0].isupper(), said
            assert not said.endswith("."), said
        for word in words:
            assert str(word) in self.err, f"{word!r} is not in {self.err!r}"
        return self


def rule_made(sentences, seed=0):
    """A text with some rule in it, a sentence a line."""
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS, k=6)) + " .\n" for _ in range(sentences))


def run_here(*args, stdin=None):
    """The command in this process: no torch to import."""
    done = CliRunner().invoke(app, [str(a) for a in args], input=stdin, prog_name="lmcli")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Finished(done.exit_code, done.stdout, done.stderr, done.stdout_bytes)


def environment(**extra):
    """What a process of the command gets: one thread, no colours but those asked for."""
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    modules = f"{PROJECT}{os.pathsep}{PROJECT / 'tests' / 'no_network'}"
    return plain | {"OMP_NUM_THREADS": "1", "PYTHONPATH": modules} | extra


PROJECT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-W", "error", "-m", "lmcli")


def run_there(*args, stdin=b"", cwd=None, wrap=(), **env):
    """The command in a process of its own."""
    done = subprocess.run(
        [*wrap, *COMMAND, *map(str, args)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(**env),
        timeout=100,
        check=False,
    )
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return Finished(done.returncode, out, err, done.stdout)


@pytest.fixture
def lmcli(tmp_path, monkeypatch):
    """``lmcli("train", "my.txt")``, in an empty folder, without a process of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return run_here


@pytest.fixture(scope="session")
def here():
    """``here("train", "my.txt", cwd=folder)`` at 80 columns, without a process of its own."""

    def run(*args, cwd):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setenv("COLUMNS", "80")
            return run_here(*args)

    return run


@pytest.fixture
def process(tmp_path):
    """``process("train", "my.txt")``, in an empty folder, as a process of its own."""

    def run(*args, **more):
        return run_there(*args, **{"cwd": tmp_path} | more)

    return run


@pytest.fixture(scope="session")
def start():
    """Begin a command without waiting for it."""

    def begin(*args, **more):
        env = environment(**more.pop("env", {}))
        return subprocess.Popen([*COMMAND, *map(str, args)], env=env, **more)

    return begin


@pytest.fixture
def my_text(tmp_path):
    """my.txt: 12,000 characters in the working folder."""
    path = tmp_path / "my.txt"
    path.write_text(rule_made(400), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a text and runs that were trained on it, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text(rule_made(400), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        for name, more in {
            "char": (),
            "gru": ("--arch", "gru"),
            "ngram": ("--arch", "ngram"),
            "word": ("--tokenizer", "word"),
        }.items():
            tiny = TINY if name != "ngram" else TINY[-1:]
            done = run_here("train", text, *tiny, *more, "-o", folder / name, "--json")
            assert done.code == 0, done.err
            (folder / f"{name}.json").write_text(done.out, encoding="utf-8")
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    """``copied("char")``: the path of a run's copy that may be harmed."""

    def copy(name):
        return Path(shutil.copytree(trained / name, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def sentences():
    """``sentences(400, seed=1)``: a text of so many lines."""
    return rule_made
