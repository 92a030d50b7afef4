"""Ctrl-C, SIGTERM and kill -9: nothing is lost, and a resumed run is an unbroken one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kills import alive

LONG = ("--steps", "1000", "--set", "hidden=16", "--set", "dropout=0.2", "--set", "validations=20")
LONG += ("--set", "patience=0")
SAME = ("weights.safetensors", "training.safetensors", "log.jsonl")


def wait_for(condition, run=None, seconds=60):
    """Until the condition holds; a process that ends before it fails the test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        assert run is None or run.poll() is None, "it ended too early"
        time.sleep(0.005)


def lines(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, sentences, start):
    """A folder with a text and a run that was never stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "my.txt").write_text(sentences(150), encoding="utf-8")
    run = start("train", "my.txt", *LONG, "-q", "-o", "run", cwd=folder, stdout=subprocess.DEVNULL)
    assert run.wait(100) == 0
    return folder


@pytest.fixture
def begun(unbroken, start, tmp_path):
    """A training of the same text that has logged something, in a process group of its own."""
    text = str(unbroken / "my.txt")
    run = start(
        *("train", text, *LONG, "-o", tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # these tests under nohup
    )
    yield run
    run.kill()
    run.communicate()


def assert_same(run, unbroken):
    for name in SAME:
        assert (run / name).read_bytes() == (unbroken / "run" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stopped_training_is_saved_and_goes_on_exactly(
    begun, unbroken, process, tmp_path, number, code
):
    run = tmp_path / "run"
    wait_for(lambda: lines(run / "log.jsonl") >= 4, begun)
    begun.send_signal(number)
    out, err = begun.communicate(timeout=60)
    assert begun.returncode == code
    assert out == b""
    assert b"Traceback" not in err
    assert f"lmcli train --resume -o {run}".encode() in err
    assert lines(run / "log.jsonl") < lines(unbroken / "run" / "log.jsonl")
    assert process("sample", run, "--length", "5").code == 0
    done = process("train", "--resume", "-o", run, "--quiet")
    assert done.code == 0, done.err
    assert_same(run, unbroken)


def test_kill_9_loses_nothing_before_the_last_checkpoint(begun, unbroken, process, tmp_path):
    run = tmp_path / "run"
    wait_for(lambda: lines(run / "log.jsonl") >= 5, begun)
    time.sleep(int.from_bytes(os.urandom(1), "big") / 2560)
    begun.kill()
    begun.wait()
    assert process("train", "--resume", "-o", run, "--quiet").code == 0
    assert_same(run, unbroken)


@pytest.mark.parametrize("ended", ["budget", "patience"])
def test_resuming_a_finished_run_changes_no_file(lmcli, my_text, tmp_path, ended):
    more = ["--steps", "40", "--set", "hidden=4", "-q", "-o", "run"]
    if ended == "patience":
        more += ["--set", "patience=1", "--set", "learning_rate=0"]
    assert lmcli("train", "my.txt", *more, "--json").json["stopped"] == ended
    before = [(tmp_path / "run" / name).read_bytes() for name in SAME]
    assert lmcli("train", "--resume", "-o", "run", "-q").code == 0
    assert [(tmp_path / "run" / name).read_bytes() for name in SAME] == before


def test_ctrl_c_before_the_first_validation_leaves_a_run_that_speaks(
    lmcli, my_text, start, tmp_path
):
    more = ("--steps", "100000", "--set", "hidden=8", "-o", "run")
    run = start("train", "my.txt", *more, cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for(lambda: lines(tmp_path / "run" / "log.jsonl") >= 1, run)
    run.send_signal(signal.SIGINT)
    assert b"Traceback" not in run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert lmcli("sample", "run", "--length", "5").code == 0


@pytest.mark.parametrize("seconds", [0.4, 0.8])
def test_ctrl_c_while_loading_is_silent(start, my_text, tmp_path, seconds):
    run = start(
        *("train", "my.txt", "--steps", "100000", "-q", "-o", "run"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    err = run.communicate(timeout=60)[1]
    assert b"lmcli/cli" not in err  # no traceback through our own code
    # on a busy machine Python itself may not be up by then, and speaks or dies of it
    assert run.returncode == 130 or b"<frozen" in err or run.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("torch", "try:\n    INTERRUPT\nexcept BaseException:\n    os.abort()\n"),
        ("numpy", "exec('INTERRUPT')\n"),
    ],
    ids=["C++ that aborts", "code made by exec"],
)
def test_ctrl_c_in_the_midst_of_an_import_ends_with_130(start, my_text, tmp_path, module, code):
    """torch's C++ calls Python while it loads, and aborts where that raises."""
    code = code.replace("INTERRUPT", "signal.raise_signal(signal.SIGINT)")
    (tmp_path / f"{module}.py").write_text(f"import os, signal\n{code}")
    run = start(
        *("train", "my.txt", "--steps", "1", "-q", "-o", "run"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.communicate(timeout=60) == (b"", b"")
    assert run.returncode == 130


def test_ctrl_c_in_code_that_ignores_exceptions_is_not_lost(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "from lmcli.__main__ import handle_interrupts\n"
        "handle_interrupts()\n"
        "class Finalised:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(100): pass\n"
        "        print('never')\n"
        "Finalised()\n"
        "try:\n"
        "    time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "slow.py"], capture_output=True, text=True, timeout=15
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_ctrl_c_ends_sampling_quietly(trained, start):
    run = start(
        *("sample", trained / "char", "--length", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout.read(20)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert out.endswith(b"\n")
    assert err == b""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("moment", ["loading", "training"])
def test_ctrl_c_in_compare_leaves_no_process_behind(start, my_text, tmp_path, moment):
    more = ("--steps", "1000000", "--set", "hidden=8", "--set", "learning_rate=0.001")
    run = start(
        *("compare", "my.txt", "--arch", "rnn,gru", *more, "--workers", "2", "-o", "out"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if moment == "loading":
        wait_for(lambda: len(alive(run.pid)) >= 3, run)
    else:
        wait_for(lambda: lines(tmp_path / "out" / "gru" / "log.jsonl") > 0, run)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: everyone in the group hears it
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert out == b""
    assert b"Traceback" not in err
    wait_for(lambda: not alive(run.pid), seconds=10)


def test_sigterm_ends_compare_with_143(start, my_text, tmp_path):
    more = ("--steps", "1000000", "--set", "hidden=8", "--set", "learning_rate=0.001", "-o", "out")
    run = start(
        *("compare", "my.txt", "--arch", "rnn", *more), cwd=tmp_path, stderr=subprocess.PIPE
    )
    wait_for(lambda: lines(tmp_path / "out" / "rnn" / "log.jsonl") > 0, run)
    run.terminate()
    assert b"Traceback" not in run.communicate(timeout=60)[1]
    assert run.returncode == 143


def test_ctrl_c_while_a_text_is_read_leaves_nothing(start, my_text, tmp_path):
    text, cache = tmp_path / "slow.txt", tmp_path / "cache"
    os.mkfifo(text)
    run = start(
        *("train", "slow.txt", "-o", "run"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LMCLI_CACHE": str(cache)},
    )
    with text.open("wb", buffering=0) as pipe:  # opens when the other side does
        pipe.write(my_text.read_bytes()[:1000])
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert not cache.exists()


def test_a_second_training_of_a_run_is_told_who_trains_it(start, process, tmp_path, unbroken):
    run, text = tmp_path / "run", str(unbroken / "my.txt")
    more = ("--steps", "1000000", "--set", "hidden=8", "--set", "patience=0", "-o", run)
    begun = start("train", text, *more, stderr=subprocess.DEVNULL)
    wait_for(lambda: lines(run / "log.jsonl") >= 1, begun)
    for more in (("--resume",), ("--force", *LONG)):
        done = process("train", text, "-o", run, "-q", *more)
        done.failed(f"'{run}' is being written by process {begun.pid} on ")
    assert begun.poll() is None
    begun.terminate()
    assert begun.wait(60) == 143
    assert process("sample", run, "--length", "5").code == 0


def test_nohup_is_obeyed(unbroken, start, tmp_path):
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    more = ("--steps", "100000", "--set", "hidden=8", "-o", tmp_path / "run")
    run = start(
        *("train", str(unbroken / "my.txt"), *more), stderr=subprocess.PIPE, preexec_fn=ignoring
    )
    wait_for(lambda: lines(tmp_path / "run" / "log.jsonl") >= 1, run)
    run.send_signal(signal.SIGHUP)
    before = lines(tmp_path / "run" / "log.jsonl")
    wait_for(lambda: lines(tmp_path / "run" / "log.jsonl") > before + 1, run)
    run.kill()
    run.communicate()
