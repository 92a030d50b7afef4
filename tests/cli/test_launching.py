"""Several workers on one run: what one process would do, stopped, killed and resumed like one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmcli.run import Run
from lmcli.tensor_files import read_tensors

SMALL = ("--set", "hidden=16", "--set", "precision=float32", "--set", "patience=0", "--quiet")
SHORT = (*SMALL, "--steps", "40", "--set", "dropout=0", "--set", "validations=4")
SHORT += ("--set", "weight_drop=0")  # each worker draws its own
LONG = (*SMALL, "--steps", "600", "--set", "dropout=0.2", "--set", "validations=20")
SAME = ("weights.safetensors", "training.safetensors", "log.jsonl")
TWO = ("--workers", "2")
STRICT = {"PYTHONWARNINGS": "error"}


def wait_for(condition, run=None, seconds=90):
    """Until the condition holds; a process that ends before it fails the test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        assert run is None or run.poll() is None, "it ended too early"
        time.sleep(0.01)


def log(run):
    """The lines of a run's log that are whole."""
    file = run / "log.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def children(parent):
    """The processes that a process has started, in the order of their numbers."""
    numbers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(map(int, numbers))


def workers_of(starter):
    """The workers of a training, rank by rank: forks of the process that has loaded torch."""
    return [worker for child in children(starter) for worker in children(child)]


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_same(run, other):
    for name in SAME:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


# ------------------------------------------------------------------ one training by two


@pytest.fixture(scope="module")
def place(tmp_path_factory, sentences):
    """A folder with a text."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "my.txt").write_text(sentences(150), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def command(place, start):
    """``command("train", ...)`` in that folder, to its end: exit code, stdout, stderr."""

    def run(*args, **env):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = start(*args, cwd=place, env=STRICT | env, **pipes)
        out, err = process.communicate(timeout=300)
        return process.returncode, out.decode(), err.decode()

    return run


@pytest.fixture(scope="module")
def together(place, command):
    """The result of a short training by two workers."""
    code, out, err = command("train", "my.txt", *SHORT, *TWO, "-o", "together", "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_two_workers_take_the_steps_that_one_takes_with_the_same_batch(
    place, together, lmcli, monkeypatch
):
    monkeypatch.chdir(place)
    alone = lmcli("train", "my.txt", *SHORT, "-o", "alone", "--json").json
    assert together["tokens_seen"] == alone["tokens_seen"]
    assert together["valid"]["nats_per_token"] == pytest.approx(
        alone["valid"]["nats_per_token"], abs=1e-4
    )
    for mine, theirs in zip(log(place / "together"), log(place / "alone"), strict=True):
        assert mine["step"] == theirs["step"]
        assert mine["tokens"] == theirs["tokens"]
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert mine["valid"] == pytest.approx(theirs["valid"], abs=1e-4)
    assert set(together) == set(alone)
    assert (together["workers"], alone["workers"]) == (2, 1)


def test_one_worker_writes_and_the_checkpoint_holds_the_state_of_all(place, together):
    run = place / "together"
    kinds = {".json", ".safetensors", ".jsonl"}
    assert {file.suffix for file in run.iterdir() if file.is_file()} == kinds
    record = Run.open(run).record
    assert record.workers == 2
    tensors, _ = read_tensors(run / "training.safetensors")
    assert len(tensors["state.0"]) == record.training["batch"]
    one, other = tensors["random.torch"].chunk(2)
    assert not one.equal(other)  # dropout masks of their own


@pytest.mark.parametrize("wanted", ["1", "3"])
def test_a_run_goes_on_with_as_many_workers_as_it_had(place, together, lmcli, wanted):
    done = lmcli("train", "--resume", "-o", place / "together", "--workers", wanted)
    done.failed("trained by 2", f"{wanted} worker", "--workers 2")


def test_a_run_of_one_process_does_not_go_on_with_two(trained, lmcli):
    lmcli("train", "--resume", "-o", trained / "gru", *TWO).failed("trained by 1", "2 workers")


def test_two_workers_cannot_share_standard_input(lmcli):
    lmcli("train", "-", *TWO).failed("standard input", "file", code=2)


def test_a_worker_of_torchrun_takes_no_other_number(lmcli, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    lmcli("train", "my.txt", *TWO).failed("--workers 2", "4 workers", code=2)


def test_variables_of_a_launcher_that_are_left_over_say_who_is_waited_for(place, start):
    left = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    left["MASTER_PORT"] = str(free_port())
    words = ("train", "my.txt", "--steps", "2", "-o", place / "never")
    process = start(*words, cwd=place, env=left, stderr=subprocess.PIPE)
    try:
        said = process.stderr.readline().decode()
    finally:
        process.kill()
        process.communicate()
    for part in ("worker 1 of 2", f"127.0.0.1:{left['MASTER_PORT']}", "unset RANK WORLD_SIZE"):
        assert part in said


def test_a_launcher_with_one_worker_is_a_training_alone(lmcli, my_text, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = lmcli("train", "my.txt", "--steps", "2", "--set", "hidden=4", "--json")
    assert done.json["workers"] == 1


# ------------------------------------------------------------------ stopped, killed, resumed


@pytest.fixture(scope="module")
def unbroken(place, command):
    """A run by two workers that was never stopped."""
    assert command("train", "my.txt", *LONG, *TWO, "-o", "unbroken")[0] == 0
    return place / "unbroken"


@pytest.fixture
def begun(place, start, tmp_path):
    """The same training at its fourth line in the log, in a process group of its own."""
    run = start(
        *("train", "my.txt", *LONG, *TWO, "-o", tmp_path / "run"),
        cwd=place,
        env=STRICT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: len(log(tmp_path / "run")) >= 4, run)
    yield run
    run.kill()
    run.communicate()


@pytest.fixture
def go_on(command):
    """``go_on(run)`` resumes a run to its end."""

    def resume(run, *more):
        code, _, err = command("train", "--resume", "-o", run, "--quiet", *more)
        assert (code, err) == (0, "")

    return resume


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("everyone", [True, False], ids=["the group", "the parent"])
def test_workers_that_are_stopped_save_and_go_on_exactly(
    begun, unbroken, go_on, tmp_path, number, code, everyone
):
    (os.killpg if everyone else os.kill)(begun.pid, number)
    out, err = begun.communicate(timeout=60)
    assert (begun.returncode, out) == (code, b"")
    assert err.decode().count("lmcli train --resume -o") == 1
    assert b"Traceback" not in err
    assert len(log(tmp_path / "run")) < len(log(unbroken))
    go_on(tmp_path / "run")
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_of_a_worker_ends_all_in_two_lines_and_loses_no_checkpoint(
    begun, unbroken, go_on, tmp_path, victim
):
    workers = workers_of(begun.pid)
    os.kill(workers[victim], signal.SIGKILL)
    began = time.monotonic()
    _, err = begun.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert begun.returncode == 1
    problem, hint = err.decode().splitlines()
    assert problem == f"error: worker {victim + 1} of 2 was ended by SIGKILL"
    assert hint.startswith(f"hint: lmcli train --resume -o {tmp_path / 'run'} ")
    assert not any(map(alive, workers))
    go_on(tmp_path / "run", *TWO)
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_workers_do_not_outlive_the_process_that_started_them(begun, unbroken, go_on, tmp_path):
    workers = workers_of(begun.pid)
    begun.kill()
    begun.wait()
    wait_for(lambda: not any(map(alive, workers)), seconds=30)
    go_on(tmp_path / "run")
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_result_that_cannot_be_written_is_an_error_and_the_run_is_there(place, start):
    with Path("/dev/full").open("wb") as full:
        process = start(
            *("train", "my.txt", *SHORT, *TWO, "-o", "full", "--json"),
            cwd=place,
            stdout=full,
            stderr=subprocess.PIPE,
        )
        err = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert err.decode().startswith("error: no space left for 'the output'\nhint: ")
    assert err.count(b"\n") == 2
    assert Run.open(place / "full").result("train")["steps"] == 40


@pytest.mark.slow
def test_a_budget_in_minutes_ends_for_all_workers_at_the_same_step(command, place):
    more = ("--minutes", "0.05", "--set", "most_epochs=0", *TWO, "-o", "minutes", "--json")
    code, out, err = command("train", "my.txt", *SMALL, *more)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["stopped"] == "budget"
    assert found["seconds"] >= 3
    assert log(place / "minutes")[-1]["learning_rate"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        (("--set", "learning_rate=1e5", "--set", "clip=0"), 1, "the loss "),
        (("--set", "batch=5"), 2, "a batch of 5 cannot be shared evenly by 2 workers"),
        (("--arch", "ngram"), 2, "ngram learns by counting"),
    ],
)
def test_what_goes_wrong_in_all_workers_is_said_once(command, wrong, code, says):
    tiny = ("--steps", "200", "--quiet") if "ngram" in wrong else (*SMALL, "--steps", "200")
    found, out, err = command("train", "my.txt", *tiny, *TWO, *wrong, "-o", "wrong", "--force")
    assert (found, out) == (code, "")
    problem, hint = err.splitlines()
    assert problem.startswith(f"error: {says}")
    assert hint.startswith("hint: ")


# ------------------------------------------------------------------ torchrun


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def torchrun(place, start):
    """Begin torchrun with options of its own and a command of lmcli."""
    begun = []

    def begin(options, *args, **more):
        words = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "lmcli"]
        env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen([*words, *map(str, args)], cwd=place, env=env, **more)
        begun.append(process)
        return process

    yield begin
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_on_one_or_two_nodes_is_the_same_training(
    torchrun, place, unbroken, tmp_path, nodes
):
    options = ["--nproc-per-node=2", "--standalone"]
    if nodes == 2:
        options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=1"]
        options.append(f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    words = ("train", "my.txt", *LONG, "-o", tmp_path / "run", "--json")
    agents = [torchrun(options, *words, stdout=subprocess.PIPE) for _ in range(nodes)]
    said = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * nodes
    (line,) = [line for out in said for line in out.splitlines()]
    assert json.loads(line)["workers"] == 2
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_ctrl_c_in_torchrun_saves_and_the_run_goes_on_exactly(torchrun, unbroken, go_on, tmp_path):
    run = tmp_path / "run"
    agent = torchrun(
        ["--nproc-per-node=2", "--standalone"],
        *("train", "my.txt", *LONG, "-o", run),
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(log(run)) >= 4, agent)
    agent.send_signal(signal.SIGINT)
    err = agent.communicate(timeout=90)[1]
    assert f"lmcli train --resume -o {run}".encode() in err
    go_on(run)
    assert_same(run, unbroken)


ALONE = """
import sys, time

from lmcli.system import ChildProcesses
from lmcli.training.launch import _work

if __name__ == "__main__":
    folder = sys.argv[1]
    with ChildProcesses("lmcli.training.job") as workers:
        options = {"output": f"{folder}/run", "resume": False}
        workers.start(0, _work, 0, 2, f"{folder}/rendezvous", options)
        ((_, process),) = workers.running.values()
        print(process.pid, flush=True)
        time.sleep(100)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_a_worker_whose_starter_is_killed_does_not_wait_for_the_others(tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, script, tmp_path]
    starter = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    worker = int(starter.stdout.readline())
    meeting = tmp_path / "rendezvous"
    wait_for(lambda: meeting.exists() and meeting.stat().st_size > 0)
    assert alive(worker)
    starter.kill()
    starter.communicate()
    wait_for(lambda: not alive(worker), seconds=10)
