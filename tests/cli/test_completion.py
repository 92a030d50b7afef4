"""What TAB completes: in the protocol that shells speak, and in the shells that are installed."""

import os
import shutil
import subprocess
import sys
import typing

import pexpect
import pytest
from typer.testing import CliRunner

from lmcli.cli import app
from lmcli.cli.completion import CHOICES, TRAINING
from lmcli.cli.setting_names import setting_names
from lmcli.data.text import TextOptions
from lmcli.evaluation.perplexity import LEVELS, RESETS
from lmcli.generation.export import WRITERS
from lmcli.registry import GRAMMARS, MODELS, PROBES, TOKENIZERS
from lmcli.settings import describe
from lmcli.training.job import CHOICES as OF_TRAINING
from lmcli.training.training_settings import TrainingSettings

FAMILIES = [(f, name) for f in (MODELS, TOKENIZERS, GRAMMARS, PROBES) for name in f.names()]


@pytest.mark.parametrize(("family", "name"), FAMILIES, ids=[name for _, name in FAMILIES])
def test_settings_read_from_the_source_are_those_of_the_class(family, name):
    _same(setting_names(family, name), describe(family.load(name).Settings))


def test_settings_of_the_training_too():
    _same(setting_names(TRAINING), describe(TrainingSettings))


def _same(read, known):
    assert [*read] == [setting.name for setting in known]
    for setting in known:
        found = read[setting.name]
        assert found.about == setting.about
        if "|" in setting.kind:
            assert found.values == tuple(setting.kind.split("|"))
        elif setting.kind == "bool":
            assert found.values == ("true", "false")
        else:
            assert found.values == ()
        if isinstance(setting.default, int | float | str) and not found.values:
            assert found.default == str(setting.default).lower()


def test_the_choices_offered_are_those_that_are_taken():
    for name in ("split", "errors", "newlines", "documents"):
        assert CHOICES[f"--{name}"] == OF_TRAINING[name]
    assert CHOICES["--level"] == LEVELS
    assert CHOICES["--reset"] == RESETS
    assert CHOICES["--to"] == tuple(WRITERS)
    errors = typing.get_type_hints(TextOptions)["errors"]
    assert CHOICES["--errors"] == typing.get_args(errors)


# ------------------------------------------------------------------ the protocol


@pytest.fixture
def folder(tmp_path, make_run):
    """Runs in runs/, a text, and a command lmcli that cannot import torch."""
    for name in ("lstm", "demo/gru"):
        make_run(tmp_path / "runs" / name, "gru")
    (tmp_path / "my.txt").write_text("text")
    command = tmp_path / "bin" / "lmcli"
    command.parent.mkdir()
    code = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; sys.argv[0] = 'lmcli'"
    command.write_text(
        f"#!{sys.executable}\n{code}\nfrom lmcli.__main__ import main\nmain()\n", encoding="utf-8"
    )
    command.chmod(0o755)
    return tmp_path


def environment(folder, project):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(project), "HOME": str(folder), "TERM": "dumb"}


def variables(shell, line, *more):
    """What a shell puts into the environment to ask for words."""
    words = [*line.split(" "), *more]
    if shell == "bash":
        asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    else:
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return asked | {"_LMCLI_COMPLETE": f"complete_{shell}"}


@pytest.fixture
def complete(folder, monkeypatch):
    """``complete("fish", "lmcli sample ru")`` -> the words offered."""
    monkeypatch.chdir(folder)

    def ask(shell, line, *more):
        asked = variables(shell, line, *more)
        done = CliRunner().invoke(app, [], env=asked, prog_name="lmcli")
        assert done.stderr == ""
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_neither_torch_nor_numpy_is_needed(folder, project, shell):
    done = subprocess.run(
        [str(folder / "bin" / "lmcli")],
        env=environment(folder, project) | variables(shell, "lmcli train x --set hid"),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "hidden=auto" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lmcli sam", ["sample"]),
        ("lmcli sample ", ["runs/demo/gru", "runs/lstm"]),
        ("lmcli sample runs/l", ["runs/lstm"]),
        ("lmcli cloze runs/lstm runs/d", ["runs/demo/gru"]),
        ("lmcli train my.txt --arch ls", ["lstm"]),
        ("lmcli compare my.txt --arch lstm,at", ["lstm,attention"]),
        ("lmcli train my.txt --tokenizer b", ["bpe", "byte"]),
        ("lmcli train my.txt --arch window --set win", ["window=", "window=8"]),
        ("lmcli train my.txt --set prec", ["precision=", *(f"precision={v}" for v in
                                           ("auto", "float32", "bfloat16"))]),
        ("lmcli make addition --set ord", ["order=", "order=least", "order=most"]),
        ("lmcli make fr", ["france"]),
        ("lmcli probe cop", ["copies"]),
        ("lmcli probe context runs/l", ["runs/lstm"]),
        ("lmcli probe context runs/lstm --set lon", ["longest=", "longest=1024"]),
        ("lmcli list by", ["byte"]),
        ("lmcli eval runs/lstm --split t", ["train", "test"]),
        ("lmcli train my.txt --split t", ["tail"]),
        ("lmcli export runs/lstm --to o", ["onnx"]),
    ],
)  # fmt: skip
def test_what_is_offered(complete, line, offered):
    assert sorted(complete("fish", line)) == sorted(offered)
    assert sorted(complete("bash", line)) == sorted(offered)


def test_bash_gets_the_value_alone_after_its_word_break(complete):
    line = "lmcli train my.txt --set precision"
    assert complete("bash", line, "=") == ["auto", "float32", "bfloat16"]
    assert complete("bash", line, "=", "b") == ["bfloat16"]
    assert complete("fish", f"{line}=b") == ["precision=bfloat16"]


# ------------------------------------------------------------------ real shells


def test_bash_completes_a_run_and_a_setting(folder, project):
    env = environment(folder, project) | {"PS1": "$ "}
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env=env, cwd=folder, encoding="utf-8", timeout=20
    )
    try:
        shell.sendline('eval "$(lmcli --show-completion bash)"; echo re""ady')
        shell.expect("ready")
        shell.send("lmcli sample runs/l\t")
        shell.expect("sample runs/lstm ")
        shell.send("\x15lmcli train my.txt --set precision=b\t")
        shell.expect("precision=bfloat16")
    finally:
        shell.close(force=True)


@pytest.mark.parametrize(
    ("shell", "arguments", "load"),
    [
        ("zsh", ["-f"], 'autoload -U compinit; compinit -u; eval "$(lmcli --show-completion zsh)"'),
        ("fish", ["--no-config"], "lmcli --show-completion fish | source"),
    ],
)
def test_zsh_and_fish_complete_a_run(folder, project, shell, arguments, load):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    env = environment(folder, project) | {"TERM": "xterm"}
    child = pexpect.spawn(shell, arguments, env=env, cwd=folder, encoding="utf-8", timeout=20)
    try:
        child.sendline(f'{load}; echo re""ady')
        child.expect("ready")
        child.send("lmcli sample runs/l\t")
        child.expect("runs/lstm")
    finally:
        child.close(force=True)
