"""``lmcli serve`` as a user starts and ends it."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest


@pytest.fixture
def serving(start, trained):
    """``serving("--json")``: the command on a free port, and the first line that it says."""
    started = []

    def begin(*args, stream="stderr"):
        words = ("serve", trained / "gru", trained / "ngram", "--port", "0", *args)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = start(*words, cwd=trained, **pipes)
        started.append(process)
        return process, getattr(process, stream).readline().decode()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_the_address_is_said_and_answers_until_ctrl_c(serving):
    process, line = serving()
    address, _, rest = line.partition(" ")
    assert address.startswith("http://127.0.0.1:")
    assert rest.strip() == "(2 runs; Ctrl-C ends it)"
    with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as answer:
        assert [card["id"] for card in json.load(answer)["data"]] == ["gru", "ngram"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == err == b""


def test_json_names_address_and_runs(serving):
    process, line = serving("--json", stream="stdout")
    said = json.loads(line)
    assert said["command"] == "serve"
    assert said["runs"] == ["gru", "ngram"]
    assert said["address"] == f"http://127.0.0.1:{said['port']}"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_a_port_that_is_taken_is_an_error(lmcli, trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lmcli("serve", trained / "gru", "--port", port).failed(f"port {port}", "--port 0")


def test_without_runs_the_hint_is_to_train(lmcli):
    lmcli("serve").failed("no trained runs in 'runs'", "lmcli train my.txt")


def test_what_is_no_run_is_an_error(lmcli, my_text):
    lmcli("serve", my_text).failed("is not a run")
    lmcli("serve", "nothing").failed("no run at 'nothing'")


def test_a_missing_extra_is_named(trained):
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from lmcli.__main__ import main\n"
        f"sys.argv = ['lmcli', 'serve', {str(trained / 'gru')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: this needs fastapi, which is not installed",
        "hint: pip install 'lmcli[web]'",
    ]


def test_the_module_of_the_command_loads_nothing_of_the_web():
    code = "import sys, lmcli.cli.serve; print({'fastapi', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
