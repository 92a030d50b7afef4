"""Every option of every command with any value, as a flag, a variable or a line of TOML.

A command ends with 0 and a clean stdout, or with 1 or 2 and two lines; never with a traceback.
"""

import contextlib
import json
import os
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lmcli.cli import app

SCALE = settings().max_examples // 100
SAFE = [
    *("", " ", "-1", "0", "1", "2", "nan", "inf", "1e-320", "1e400", "0.5", "\u0663", "0,1"),
    *("x", "-", "--", "é", "\x1b[2J", "=", "a=b", "a,b", ",", "'", "[", "%s", "{}", "[red]"),
    *("hidden=8", "hidden=1e9", "hidden=\ud800", "none", "auto", "France=Germany", "line", "true"),
    *("lstm", "rnn,rnn", "gru layers=0", "word", "utf-16", "base64", "y" * 300),
    *("t.txt", "nothing.txt"),
]
LARGE = [str(2**31), str(2**63), "9" * 400, "1e18"]
MANY = {"workers", "jobs", "count", "length", "seeds", "steps", "minutes", "epochs", "gaps", "top"}
"""options of which a large number is work, not a mistake"""
BASES = {
    "train": ["t.txt", "--steps", "1", "--set", "hidden=4", "--arch", "rnn", "-q", "-o", "new"],
    "sample": ["run", "--length", "3"],
    "eval": ["run", "t.txt"],
    "compare": ["t.txt", "--run", "run", "-q", "-o", "compared"],
    "cloze": ["run", "--text", "to be or ___", "--candidates", "not,be"],
    "probe": ["halflife", "run", "t.txt"],
    "inspect": ["run", "t.txt"],
    "make": ["addition", "--size", "small", "-o", "made.txt"],
    "report": ["run", "-o", "page.html"],
    "export": ["run", "--to", "numpy", "-o", "exported"],
    "list": ["lstm"],
}
OPTIONS = {
    name: [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    for name, command in ((n, __import__("typer").main.get_command(app).commands[n]) for n in BASES)
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and a small run, as it was before each command."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "t.txt").write_text("to be or not to be, that is it .\n" * 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LMCLI_CACHE", str(folder.parent / "cache"))
        done = CliRunner().invoke(app, ["train", *BASES["train"][:-1], "run"], prog_name="lmcli")
        assert done.exit_code == 0, done.stderr
        yield folder


def call(place, arguments, variables):
    """Exit code and the two streams; the folder is then as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, value in {"COLUMNS": "80", **variables}.items():
            with contextlib.suppress(ValueError):  # a zero byte, which no variable can hold
                patch.setenv(name, value)
        done = CliRunner().invoke(app, arguments, prog_name="lmcli", input="a b\n")
    for path in place.iterdir():
        if path.name not in ("t.txt", "run"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return done


def check(done, arguments):
    """What every command promises."""
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2), arguments
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    if done.exit_code:
        errors = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert lines[errors[0] + 1].startswith("hint: "), done.stderr
        assert len(lines) == errors[0] + 2, done.stderr
    assert not any(ord(c) < 32 and c not in "\n\t\r" for c in done.stderr), repr(done.stderr)
    if "--json" in arguments:
        for line in done.stdout.splitlines():
            json.loads(line, parse_constant=pytest.fail)


@st.composite
def commands(draw):
    """Arguments, environment and the TOML file of a command."""
    name = draw(st.sampled_from(sorted(BASES)))
    arguments, variables, lines = [name, *BASES[name]], {}, []
    for option in draw(st.lists(st.sampled_from(OPTIONS[name]), min_size=1, max_size=3)):
        long = next(flag for flag in option.opts if flag.startswith("--"))
        values = SAFE if long[2:] in MANY else SAFE + LARGE
        value = draw(
            st.sampled_from(values) | st.text(st.characters(exclude_characters="/\0"), max_size=6)
        )
        if value in (".", "..", "-"):
            value = "x"
        way = draw(st.sampled_from(["flag", "flag", "variable", "toml"]))
        if long == "--config" or (long == "--device" and value == "cuda"):
            continue
        if way == "variable" and option.envvar:
            with_surrogates = value.encode("utf-8", "surrogatepass")
            own = option.envvar if isinstance(option.envvar, str) else option.envvar[-1]
            variables[own] = os.fsdecode(with_surrogates)
        elif way == "toml":
            quoted = json.dumps(value)
            written = (quoted, value, f"[{quoted}, 1]", f"{{x = {quoted}}}")
            lines.append(f"{long[2:]} = {draw(st.sampled_from(written))}")
        else:
            arguments += [long] if option.is_flag else [f"{long}={value}"]
    if draw(st.booleans()):
        arguments.append("--json")
    return arguments, variables, "\n".join(lines)


@given(commands())
@settings(max_examples=90 * SCALE, deadline=None)
@example((["train", *BASES["train"], "--config=c.toml"], {}, 'output = "a\\u0000b"'))
@example((["sample", "run", "--temperature", "1e-320"], {}, ""))
@example((["sample", "run", "--prompt=\ud800"], {}, ""))
def test_any_option(place, command):
    arguments, variables, toml = command
    if toml:
        (place / "c.toml").write_bytes(toml.encode("utf-8", "surrogatepass"))
        if "--json" in arguments and arguments[0] == "list":
            arguments.remove("--json")
        arguments = [*arguments, "--config=c.toml"]
    check(call(place, arguments, variables), arguments)


@given(st.binary(max_size=60) | st.text("[]{}=\"'.,#\n a1tso-_", max_size=40).map(str.encode))
@settings(max_examples=60 * SCALE, deadline=None)
@example(b"a = " + b"[" * 5000)
@example(b"a = " + b"1" * 5000)
@example(b"steps = 1e999")
@example(b"[train]\nsteps = 1979-05-27")
@example(b"[sample.length]\nx = 1")
def test_any_toml(place, toml):
    (place / "c.toml").write_bytes(toml)
    arguments = ["sample", "run", "--length", "2", "--config", "c.toml"]
    check(call(place, arguments, {}), arguments)
