"""stdout carries the result and nothing else; terminals, pipes, colours and encodings."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress

import pytest

TINY = ("--steps", "2", "--set", "hidden=4")
NO_UTF8 = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def on_a_terminal(start, *arguments, cwd, columns=80, stdout=None, env=None, keys=()):
    """Run on a terminal; what appeared there, and the exit code.

    `keys` are pairs: when the first has appeared on the screen, the second is typed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_terminal():
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    run = start(
        *arguments,
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
        cwd=cwd,
        env={"TERM": "xterm-256color"} | (env or {}),
    )
    os.close(theirs)
    screen, keys = b"", list(keys)
    while select.select([ours], [], [], 60)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        screen += piece
        if keys and keys[0][0] in screen:
            os.write(ours, keys.pop(0)[1])
    os.close(ours)
    return screen.decode("utf-8", "replace"), run.wait(60)


def visible(screen):
    """The lines of a screen without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "").splitlines()


# ------------------------------------------------------------------ what goes where


def test_train_keeps_progress_and_hints_off_stdout(lmcli, my_text):
    done = lmcli("train", "my.txt", *TINY, "-o", "run")
    assert done.out.startswith("run ")
    assert "text: " in done.err
    assert "next: " in done.err
    assert "next: " not in done.out


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_quiet_and_json_leave_stderr_empty(lmcli, my_text, flag):
    assert lmcli("train", "my.txt", *TINY, "-o", "run", flag).err == ""


def test_no_bar_reaches_a_pipe_even_where_colours_are_forced(process, my_text):
    done = process("train", "my.txt", *TINY, "-o", "run", FORCE_COLOR="1")
    assert done.code == 0
    assert "tok/s" not in done.err
    assert "\r" not in done.err
    assert "\x1b[?25l" not in done.err


def test_a_bar_with_speed_and_time_left_appears_on_a_terminal(start, my_text, tmp_path):
    more = ("--steps", "60", "--set", "hidden=8", "-o", "run")
    screen, code = on_a_terminal(start, "train", "my.txt", *more, cwd=tmp_path)
    assert code == 0
    assert re.search(r"loss \d\.\d+.*tok/s.*left", screen)
    assert max(map(len, visible(screen)[-12:])) <= 80


def test_samples_and_a_learning_curve_appear_on_a_terminal_alone(start, process, my_text, tmp_path):
    sizes = ("--set", "hidden=8", "--set", "validations=2")
    more = ("--steps", "60", *sizes, "--samples", "-o", "run")
    env = {"LINES": "30"}
    screen, code = on_a_terminal(start, "train", "my.txt", *more, cwd=tmp_path, env=env)
    assert code == 0
    shown = visible(screen.replace("\r", "\n"))
    assert any(re.match(r"step 60: \S", line) for line in shown)
    assert any("nats/token: · training, ● validation" in line for line in shown)
    assert max(map(len, shown)) <= 80
    done = process("train", "my.txt", *more[:-1], "again")
    assert done.code == 0
    assert "step 60" not in done.err + done.out
    assert "nats/token: " not in done.err


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_quiet_and_json_draw_no_bar_on_a_terminal(start, my_text, tmp_path, flag):
    screen, code = on_a_terminal(start, "train", "my.txt", *TINY, "-o", "run", flag, cwd=tmp_path)
    assert code == 0
    assert "tok/s " not in screen
    assert "left" not in screen


def slowly(path, text, seconds=2.0):
    """A named pipe through which a text comes, the second half of it later."""
    os.mkfifo(path)

    def write():
        with path.open("w", encoding="utf-8") as pipe:
            pipe.write(text[: len(text) // 2])
            pipe.flush()
            time.sleep(seconds)
            with suppress(BrokenPipeError):
                pipe.write(text[len(text) // 2 :])

    threading.Thread(target=write, daemon=True).start()


@pytest.mark.parametrize("flag", ["--verbose", "--quiet"])
def test_a_text_that_takes_long_to_read_shows_that_it_is_read(start, my_text, tmp_path, flag):
    slowly(tmp_path / "slow.txt", my_text.read_text(encoding="utf-8"), 4.0)
    more = ("--steps", "2", "--set", "hidden=4", "-o", "run", flag)
    screen, code = on_a_terminal(start, "train", "slow.txt", *more, cwd=tmp_path)
    assert code == 0
    assert ("fetching" in screen) == (flag == "--verbose")


def test_control_characters_of_a_text_are_shown_on_a_terminal(start, trained, tmp_path):
    words = ("sample", trained / "char", "--prompt", "a\x1b[2Jb", "--length", "3")
    screen, code = on_a_terminal(start, *words, cwd=tmp_path)
    assert code == 0
    assert "a\N{SYMBOL FOR ESCAPE}[2Jb" in screen
    assert "\x1b[2J" not in screen


# ------------------------------------------------------------------ colours and width


def test_a_pipe_gets_no_colours(lmcli, trained):
    for arguments in (("list",), ("eval", trained / "char", "--split", "test")):
        assert "\x1b" not in lmcli(*arguments).out


def test_force_color_colours_a_pipe(process):
    assert "\x1b[1m" in process("list", FORCE_COLOR="1").out
    assert "\x1b[" in process("list", "lstn", FORCE_COLOR="1").err


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_may_ask_for_no_colours(start, tmp_path, plain):
    screen, code = on_a_terminal(start, "list", "lstn", cwd=tmp_path, env=plain)
    assert code == 1
    assert "\x1b[3" not in screen
    screen, code = on_a_terminal(start, "list", cwd=tmp_path, env=plain)
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", screen)


@pytest.mark.parametrize("arguments", [("list",), ("list", "lstm"), ("list", "word"), ("--help",)])
def test_nothing_is_wider_than_the_terminal(start, tmp_path, arguments):
    screen, code = on_a_terminal(start, *arguments, cwd=tmp_path, columns=80)
    assert code == 0
    assert max(map(len, visible(screen))) <= 80


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_columns_is_obeyed_by_tables(lmcli, trained, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    arguments = ("--level", "line", "--split", "valid")
    for shown in (lmcli("list", "gru"), lmcli("eval", trained / "char", *arguments)):
        assert max(map(len, shown.out.splitlines())) <= columns


# ------------------------------------------------------------------ encodings


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("train", "--help"),
        ("list",),
        ("list", "nothing-like-it"),
        ("eval", "RUN", "other.txt", "--level", "line"),
        ("eval", "RUN", "other.txt", "--level", "token"),
        ("sample", "RUN", "--prompt", "the 犬", "--length", "9"),
        ("cloze", "RUN", "--text", "犬 ___"),
        ("compare", "my.txt", "--arch", "ngram", "-o", "out"),
    ],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_a_stream_without_unicode_gets_ascii(
    process, my_text, tmp_path, trained, arguments, ascii_only
):
    (tmp_path / "other.txt").write_text("the 犬 – sees\na ± cat\n", encoding="utf-8")
    filled = [trained / "char" if a == "RUN" else a for a in arguments]
    ascii_only(process(*filled, **NO_UTF8))


@pytest.mark.parametrize("arguments", [("train", "--help"), ("list",), ("list", "犬")])
def test_a_locale_without_unicode_gets_ascii(process, arguments, ascii_only):
    ascii_only(process(*arguments, **C_LOCALE))


@pytest.fixture
def ascii_only():
    """No crash, and no byte that the stream cannot show."""

    def check(done):
        assert done.code in (0, 1), done.err
        assert "Traceback" not in done.err
        assert "codec" not in done.err
        assert done.raw.isascii()
        assert done.err.isascii()

    return check


def test_json_is_utf8_whatever_the_stream_says(process, trained):
    prompt = ("--prompt", "犬", "--length", "3")
    done = process("sample", trained / "char", *prompt, "--json", **NO_UTF8)
    assert json.loads(done.raw.decode("utf-8"))["prompt"] == "犬"


# ------------------------------------------------------------------ pipes


def test_a_closed_pipe_is_silent(trained, tmp_path):
    command = [sys.executable, "-m", "lmcli", "sample", str(trained / "char"), "--length", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert len(run.stdout.read(100)) == 100
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(30) == 0


@pytest.mark.parametrize("how", [("--level", "line"), ("--level", "token"), ("--json",)])
def test_a_closed_pipe_is_silent_for_tables_and_json(trained, tmp_path, start, how):
    arguments = ("eval", trained / "char", trained / "text.txt", "--level", "token", *how)
    with start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(60) == 0


def test_train_reads_standard_input(lmcli, my_text, tmp_path):
    for name, text in (("file", "my.txt"), ("pipe", "-")):
        stdin = my_text.read_bytes() if text == "-" else None
        assert lmcli("train", text, *TINY, "-q", "-o", name, stdin=stdin).code == 0
    weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in ("file", "pipe")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("run", ["char", "word"])
def test_eval_of_standard_input_equals_eval_of_the_file(lmcli, trained, run):
    text = trained / "text.txt"
    whole = lmcli("eval", trained / run, text, "--json").json
    piped = lmcli("eval", trained / run, "-", "--json", stdin=text.read_bytes()).json
    assert piped["nats"] == pytest.approx(whole["nats"], rel=1e-6)
    assert piped["tokens"] == whole["tokens"]


def test_the_prompt_may_come_from_standard_input(lmcli, trained):
    done = lmcli("sample", trained / "char", "--prompt", "-", "--length", "9", stdin=b"the old")
    assert done.out.startswith("the old")


def test_sampled_text_streams_before_it_is_finished(trained, start):
    with start("sample", trained / "char", "--length", "0", stdout=subprocess.PIPE) as run:
        assert run.stdout.read(10)
        assert run.poll() is None
        run.kill()


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_was_closed_leads_nowhere(my_text, tmp_path, trained, closed, process):
    text, run = my_text.read_bytes(), tmp_path / "run"
    shell = ("sh", "-c", f'exec "$@" {closed}>&-', "sh")
    for command in (
        ("train", "my.txt", *TINY, "-o", run),
        ("sample", trained / "char", "--prompt", "-", "--length", "5"),
        ("sample", trained / "char", "--length", "5", "--json"),
    ):
        done = process(*command, wrap=shell, stdin=b"a")
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        assert (done.raw == b"") == (closed == 1)
    assert my_text.read_bytes() == text
    assert process("eval", run, "my.txt").code == 0
