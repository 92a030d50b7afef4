"""The command line itself: help, names, options from three places, wrong usage (exit code 2)."""

import shutil
from pathlib import Path

import pytest
import typer

from lmcli import cli
from lmcli.run import Run

COMMANDS = (
    *("train", "sample", "eval", "demo", "compare", "cloze", "probe", "inspect", "make"),
    *("report", "serve", "export", "list"),
)
TINY = ("--steps", "2", "--set", "hidden=4", "--quiet")


def test_lmcli_alone_prints_help(lmcli):
    done = lmcli()
    assert done.code == 0
    assert all(name in done.out for name in COMMANDS)
    assert done.err == ""


def test_exactly_the_commands_of_this_stage_exist():
    assert {*cli.COMMANDS} == set(COMMANDS)


def test_a_variable_may_name_the_command_and_then_wins(lmcli, my_text):
    words = ("train", my_text, "--arch", "ngram", "--json", "-o")
    both = {"LMCLI_SEED": "3", "LMCLI_TRAIN_SEED": "4", "LMCLI_EVAL_SEED": "5"}
    assert Run.open(_trained(lmcli, words, "a", both)).record.seed == 4
    assert Run.open(_trained(lmcli, words, "b", {"LMCLI_SEED": "3"})).record.seed == 3


def _trained(lmcli, words, name, variables):
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        assert lmcli(*words, name).code == 0
    return Path(name)


def test_the_version_is_the_packages(lmcli):
    from lmcli import __version__

    assert lmcli("--version").out == f"lmcli {__version__}\n"


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_before_options(lmcli, command, flag):
    done = lmcli(command, flag)
    assert done.code == 0
    example = done.out.index(f"lmcli {command} ", done.out.index("Examples"))
    assert example < done.out.index("--json")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns(lmcli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, lmcli(command, "--help").out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("train", "[default: lstm]"),
        ("train", "[default: char]"),
        ("train", "[default: runs/ARCH]"),
        ("train", "[default: file; line for texts of lmcli make]"),
        ("compare", "[default: runs/compare]"),
        ("compare", "[default: one a core]"),
        ("demo", "[default: runs/demo]"),
        ("demo", "[default: auto]"),
        ("demo", "[default: what this machine needs, by its speed]"),
        ("eval", "[default: as in training]"),
        ("make", "[default: GRAMMAR.txt]"),
        ("cloze", "[default: those beside the text]"),
    ],
)
def test_defaults_that_are_found_out_later_are_shown(lmcli, monkeypatch, command, default):
    monkeypatch.setenv("COLUMNS", "200")
    assert default in lmcli(command, "--help").out


def test_shell_completion_can_be_installed(lmcli):
    assert "--install-completion" in lmcli("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_the_same_help_in_all_commands(command):
    from lmcli.cli import options

    assert options.Json.__metadata__[0].help == "Print one JSON object with raw numbers."


@pytest.mark.parametrize("command", COMMANDS)
def test_a_long_help_has_its_options_in_groups_of_twelve_at_most(lmcli, command):
    panels, inside = dict[str, int](), ""
    for line in lmcli(command, "--help").out.splitlines():
        if line.startswith("╭─"):
            inside = line.strip("╭─╮ ")
        if line.startswith("│ -"):
            panels[inside] = panels.get(inside, 0) + 1
    params = typer.main.get_command(cli.app).commands[command].params
    assert sum(panels.values()) == sum(p.param_type_name == "option" for p in params) + 1
    assert max(panels.values()) <= 12


# ------------------------------------------------------------------ wrong usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trian",), ["no such command 'trian'", "did you mean 'train'?"]),
        (("fly",), ["no such command 'fly'", "lmcli --help"]),
        (("train", "--minuts", "3"), ["no such option: --minuts", "did you mean '--minutes'?"]),
        (("probe", "recall", "RUN", "--cache"), ["no such option: --cache"]),
        (("sample",), ["missing argument 'RUN'", "lmcli sample --help"]),
        (("train",), ["no text to train on", "lmcli train my.txt"]),
        (("compare",), ["no text to compare on"]),
        (("cloze", "RUN"), ["no text with a blank"]),
        (("cloze", "RUN", "--text", "no blank"), ["0 blanks", "___"]),
        (("cloze", "RUN", "--text", "the ___ and ___"), ["2 blanks"]),
        (("cloze", "RUN", "--text", "a ___", "--swap", "cat"), ["--swap cat", "OLD=NEW"]),
        (("cloze", "RUN", "--text", "a ___", "--swap", "x=y"), ["no 'x' before the blank"]),
        (("cloze", "RUN", "--text", "a ... ___", "--gaps", "3"), ["--filler"]),
        (("cloze", "RUN", "--text", "a ... ___", "--gaps", "3,-1"), ["--gaps 3,-1"]),
        (("cloze", "RUN", "--gaps", "x", "--text", "a ___"), ["--gaps x"]),
        (("cloze", "RUN", "--candidates", "a,b"), ["--candidates", "--text"]),
        (("train", "my.txt", "--set", "hiden=4"), ["'hiden'", "did you mean 'hidden'?"]),
        (("compare", "my.txt", "--set", "hiden=4"), ["'hiden'", "did you mean 'hidden'?"]),
        (("train", "my.txt", "--set", "hidden"), ["no '='"]),
        (("train", "my.txt", "--set", "hidden=many"), ["hidden=many", "whole number"]),
        (("train", "my.txt", "--set", "hidden=0"), ["hidden=0", "from 1 to"]),
        (("train", "my.txt", "--set", "clip=nan"), ["clip=nan"]),
        (("train", "my.txt", "--minutes", "soon"), ["--minutes"]),
        (("train", "my.txt", "--minutes", "0"), ["--minutes"]),
        (("train", "my.txt", "--minutes", "nan"), ["--minutes"]),
        (("train", "my.txt", "--epochs", "inf"), ["--epochs inf"]),
        (("train", "my.txt", "--steps", "-3"), ["--steps"]),
        (("train", "my.txt", "--seed", "-1"), ["--seed -1"]),
        (("train", "my.txt", "--split", "random"), ["--split random", "interleaved"]),
        (("train", "my.txt", "--documents", "lines"), ["did you mean 'line'?"]),
        (("train", "my.txt", "--newlines", "crlf"), ["--newlines crlf", "lf"]),
        (("train", "my.txt", "--errors", "ignored"), ["did you mean 'ignore'?"]),
        (("train", "my.txt", "--steps", "3", "--minutes", "1"), ["--minutes and --steps"]),
        (("compare", "my.txt", "--epochs", "3", "--steps", "1"), ["--steps and --epochs"]),
        (("compare", "my.txt", "--arch", ","), ["--arch names nothing"]),
        (("compare", "my.txt", "--match", "widths"), ["did you mean 'width'?"]),
        (("train", "--resume"), ["--resume needs the run"]),
        (("train", "--resume", "-o", "RUN", "--set", "hiden=3"), ["'hiden'"]),
        (("sample", "RUN", "--temperature", "nan"), ["--temperature"]),
        (("sample", "RUN", "--temperature", "-1"), ["--temperature"]),
        (("sample", "RUN", "--top-p", "1.5"), ["--top-p"]),
        (("sample", "RUN", "--count", "0"), ["--count"]),
        (("sample", "RUN", "--seed", "-1"), ["--seed -1"]),
        (("eval", "RUN", "my.txt", "--level", "lines"), ["did you mean 'line'?"]),
        (("eval", "RUN", "my.txt", "--reset", "no"), ["--reset no"]),
        (("eval", "RUN", "--split", "tst"), ["did you mean 'test'?"]),
        (("make", "france", "--size", "huge"), ["size=huge"]),
        (("make", "france", "--set", "levle=1"), ["did you mean 'level'?"]),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(
    lmcli, my_text, trained, snapshot, arguments, says
):
    before = snapshot()
    filled = [trained / "char" if a == "RUN" else a for a in arguments]
    lmcli(*filled).failed(*says, code=2)
    assert snapshot() == before


# ------------------------------------------------------------------ flag > environment > config


@pytest.fixture
def steps(lmcli, my_text, tmp_path):
    """How many steps a training takes under these conditions."""

    def count(*arguments, config=None):
        if config is not None:
            (tmp_path / "lmcli.toml").write_text(config)
            arguments = (*arguments, "--config", "lmcli.toml")
        hidden = ("--set", "hidden=4", "--force", "-o", "run", "--json")
        done = lmcli("train", "my.txt", *hidden, *arguments)
        assert done.code == 0, done.err
        return done.json["steps"]

    return count


def test_a_flag_beats_the_environment(steps, monkeypatch):
    monkeypatch.setenv("LMCLI_STEPS", "3")
    assert steps("--steps", "2") == 2


def test_the_environment_beats_the_config(steps, monkeypatch):
    monkeypatch.setenv("LMCLI_STEPS", "3")
    assert steps(config="steps = 4") == 3


def test_the_config_beats_the_default(steps):
    assert steps(config="steps = 4") == 4


def test_a_commands_own_table_beats_the_rest_of_the_config(steps):
    assert steps(config="steps = 4\n[train]\nsteps = 5\n[sample]\ntop-k = 3") == 5


def test_the_config_may_come_from_the_environment(steps, monkeypatch, tmp_path):
    (tmp_path / "own.toml").write_text("steps = 6")
    monkeypatch.setenv("LMCLI_CONFIG", str(tmp_path / "own.toml"))
    assert steps() == 6


def test_the_config_may_hold_settings_as_a_table(lmcli, my_text, tmp_path):
    (tmp_path / "lmcli.toml").write_text("steps = 2\n[set]\nhidden = 5\nbatch = 3")
    lmcli("train", "my.txt", "--config", "lmcli.toml", "-o", "run", "--quiet")
    record = (tmp_path / "run" / "run.json").read_text()
    assert '"hidden": 5' in record
    assert '"batch": 3' in record


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("LMCLI_JSON", "1", ("list",)),
        ("LMCLI_LENGTH", "3", ("sample", "RUN", "--json")),
        ("LMCLI_TOP_K", "1", ("sample", "RUN", "--json")),
        ("LMCLI_SPLIT", "valid", ("eval", "RUN", "--json")),
    ],
)
def test_options_read_the_environment(lmcli, trained, monkeypatch, name, value, arguments):
    monkeypatch.setenv(name, value)
    done = lmcli(*[trained / "char" if a == "RUN" else a for a in arguments])
    assert done.code == 0, done.err
    assert done.json["schema"] == 1


def test_a_variable_holds_a_value_a_line_for_what_may_be_repeated(lmcli, my_text, monkeypatch):
    my_text.rename("my text.txt")
    monkeypatch.setenv("LMCLI_VALID", "my text.txt")
    shutil.copy("my text.txt", "b.txt")
    with Path("b.txt").open("a") as file:
        file.write("and more")
    monkeypatch.setenv("LMCLI_SET", "hidden=5 layers=2\nbatch=3")
    done = lmcli("train", "b.txt", "--steps", "2", "-o", "run", "--quiet")
    assert done.code == 0, done.err
    record = Run.open(Path("run")).record
    assert record.corpus["valid"] == ["my text.txt"]
    assert (record.settings["hidden"], record.settings["layers"]) == (5, 2)
    assert record.training["batch"] == 3


def test_no_variable_arms_every_command_with_force(lmcli, trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "char", tmp_path / "run")
    monkeypatch.setenv("LMCLI_FORCE", "1")
    monkeypatch.setenv("LMCLI_EXPORT_FORCE", "1")
    lmcli("export", trained / "gru", "--to", "numpy", "-o", "run").failed("exists")


def test_a_bad_value_in_the_environment_is_wrong_usage(lmcli, my_text, monkeypatch):
    monkeypatch.setenv("LMCLI_STEPS", "many")
    lmcli("train", "my.txt").failed("--steps", code=2)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("minuts = 3", ["'minuts'", "did you mean 'minutes'?"]),
        ("[train]\nminuts = 3", ["'minuts'", "did you mean 'minutes'?"]),
        ("[trian]\nminutes = 3", ["'trian'"]),
        ("steps = 'many'", ["steps"]),
        ("steps = ", ["lmcli.toml", "minutes = 3"]),
    ],
)
def test_a_config_that_does_not_fit_is_wrong_usage(lmcli, my_text, tmp_path, config, says):
    (tmp_path / "lmcli.toml").write_text(config)
    lmcli("train", "my.txt", "--config", "lmcli.toml").failed(*says, code=2)


def test_a_config_that_is_not_there_is_an_error(lmcli, my_text):
    lmcli("train", "my.txt", "--config", "no.toml").failed("no.toml", "no such file")
