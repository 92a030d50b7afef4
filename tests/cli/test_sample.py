"""``lmcli sample``: without torch where there is a NumPy model, several texts in order."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

MODULES = """
import sys
from lmcli.__main__ import main
sys.argv = ["lmcli", "sample", sys.argv[1], "--length", "20", "--prompt", "the "]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
found = {"torch", "tokenizers", "fsspec", "rich.console"} & set(sys.modules)
assert not found, found
"""


@pytest.mark.parametrize("run", ["char", "gru", "ngram", "word"])
def test_sampling_imports_neither_torch_nor_what_it_does_not_need(trained, run):
    command = [sys.executable, "-W", "error", "-c", MODULES, str(trained / run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the ")


def texts(lmcli, run, *more):
    """What ``--json`` says, an object a text."""
    lines = lmcli("sample", run, "--json", *more).out.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("run", ["char", "ngram", "word"])
@pytest.mark.parametrize("stop", [(), ("--stop", "the"), ("--stop", "og", "--stop", "cat")])
def test_each_text_is_that_of_its_seed_and_they_keep_their_order(lmcli, trained, run, stop):
    draw = ("--length", "30", "--prompt", "a dog", *stop)
    many = texts(lmcli, trained / run, *draw, "--count", "5", "--seed", "3")
    alone = [texts(lmcli, trained / run, *draw, "--seed", seed)[0] for seed in range(3, 8)]
    for key in ("seed", "text", "tokens", "prompt"):
        assert [values[key] for values in many] == [values[key] for values in alone]
    assert [v["nats"] for v in many] == pytest.approx([v["nats"] for v in alone], rel=1e-4)
    shown = lmcli("sample", trained / run, *draw, "--count", "5", "--seed", "3").out
    parts = ["a dog" + values["text"] for values in many]
    parts = [part if part.endswith("\n") else part + "\n" for part in parts]
    assert shown == "---\n".join(parts)


def test_more_texts_than_are_made_at_once(lmcli, trained):
    draw = ("sample", trained / "char", "--length", "3", "--seed", "0")
    many = lmcli(*draw, "--count", "70").out.split("---\n")
    assert len(many) == 70
    for seed in (0, 63, 64, 69):
        assert lmcli("sample", *draw[1:4], "--seed", seed).out == many[seed]


def test_many_long_texts_come_from_several_processes_in_their_order(process, lmcli, trained):
    draw = ("sample", trained / "char", "--length", "1300", "--json")
    lines = process(*draw, "--count", "16", "--seed", "3").out.splitlines()
    many = [json.loads(line) for line in lines]
    assert [values["seed"] for values in many] == list(range(3, 19))
    for number in (0, 7, 8, 15):
        alone = json.loads(lmcli(*draw, "--seed", 3 + number).out)
        for key in ("text", "tokens", "prompt"):
            assert many[number][key] == alone[key]
        assert many[number]["nats"] == pytest.approx(alone["nats"], rel=1e-4)


def test_ctrl_c_ends_all_processes(start, trained):
    job = ("sample", trained / "char", "--length", "1000000", "--count", "16")
    with start(*job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as sampling:
        assert sampling.stdout.read(100)
        os.killpg(sampling.pid, signal.SIGINT)
        _, errors = sampling.communicate(timeout=30)
    assert sampling.returncode == 130
    assert b"Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(sampling.pid, 0)


def test_texts_without_end_come_one_after_another(lmcli, trained):
    draw = ("--length", "0", "--stop", "e", "--count", "3", "--seed", "1")
    many = texts(lmcli, trained / "char", *draw)
    assert [values["seed"] for values in many] == [1, 2, 3]
    assert all("e" not in values["text"] for values in many)


def test_empty_texts_are_lines_of_their_own(lmcli, trained):
    draw = ("sample", trained / "char", "--temperature", "0", "--length", "5")
    first = lmcli(*draw).out[0]
    assert lmcli(*draw, "--count", "2", "--stop", first).out == "\n---\n\n"


def test_an_architecture_without_a_numpy_model_samples_with_torch(lmcli, my_text):
    made = ("train", "my.txt", "--steps", "2", "--quiet", "--set", "hidden=8", "-o", "run")
    assert lmcli(*made, "--arch", "attention").code == 0
    done = lmcli("sample", "run", "--prompt", "the", "--length", "9", "--count", "2", "--seed", "1")
    assert re.fullmatch(r"the.{9}\n?---\nthe.{9}\n?", done.out, re.DOTALL)
