"""Two processes on one run, text, export, comparison or cache: one wins, the other is told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmcli.pages.subject import Subject
from lmcli.run import Run
from lmcli.storage import read_json

SCRIPT = Path(__file__).parent.parent / "two_processes.py"
TINY = ("--steps", "8", "--set", "hidden=4", "--set", "embedding=4", "--set", "validations=2")
TINY += ("--set", "patience=0", "--set", "learning_rate=0.01", "--set", "threads=1", "-q")
TRAIN = ("train", "../my.txt", *TINY, "-o", "run", "--seed")
RESUME = ("train", "--resume", "-o", "stopped", "-q")
COMPARE = ("compare", "../my.txt", "--arch", "rnn,ngram", "--set", "order=2", *TINY, "--jobs", "1")
COMPARE += ("-o", "both", "--seed")
MEMBER = ("train", "../my.txt", *TINY, "-o", "both/rnn", "--force", "--seed")
MAKE = ("make", "addition", "--size", "small", "-q", "-o", "made.txt", "--seed")
EXPORT = ("export", "-o", "out", "--to", "numpy", "-q")
FORCE = "--force"
PAIRS = {
    "train new": ((*TRAIN, "1"), (*TRAIN, "2")),
    "train --force": ((*TRAIN, "1", FORCE), (*TRAIN, "2", FORCE)),
    "train --resume": (RESUME, RESUME),
    "export": ((*EXPORT, "one"), (*EXPORT, "two")),
    "export --force": ((*EXPORT, "one", FORCE), (*EXPORT, "two", FORCE)),
    "make": ((*MAKE, "1"), (*MAKE, "2")),
    "make --force": ((*MAKE, "1", FORCE), (*MAKE, "2", FORCE)),
    "compare": ((*COMPARE, "1"), (*COMPARE, "2")),
    "compare --force": ((*COMPARE, "1", FORCE), (*COMPARE, "2", FORCE)),
    "compare, train": ((*COMPARE, "1", FORCE), (*MEMBER, "2")),
    "train, compare": ((*MEMBER, "2"), (*COMPARE, "1", FORCE)),
    "compare, cold cache": ((*COMPARE, "1"), (*COMPARE, "2")),
    "cache": ((*TRAIN, "1"), (*TRAIN[:-2], "other", "--seed", "2")),
}
SOME = {"train --force": [3], "compare, train": [16], "compare, cold cache": [1], "cache": [1]}
"""renames at which `make test` holds the first"""
TARGET = {"train": "run", "export": "out", "make": "made.txt", "compare": "both"}
COMPARED = ("weights.safetensors", "training.safetensors", "log.jsonl", "README.txt")


@pytest.fixture(scope="module")
def bench(tmp_path_factory, sentences, here):
    """A folder with what the commands work on, and the cache."""
    base = tmp_path_factory.mktemp("two")
    (base / "my.txt").write_text(sentences(60), encoding="utf-8")
    (base / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(base / "cache"))

        def run(*words):
            done = here(*words, cwd=base / "work")
            assert done.code == 0, done.err

        for seed, name in ((1, "one"), (2, "two"), (0, "stopped")):
            run(*TRAIN[:-2], name, "--seed", seed)
        (base / "work" / "stopped" / "weights.safetensors").unlink()
        yield base, run


def prepare(bench, name):
    """The folder that both begin with, and what each command makes alone."""
    base, run = bench
    work, alone = base / "work", []
    for target in (*TARGET.values(), "other"):
        for path in work.glob(f"{target.partition('.')[0]}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for place, words in enumerate(PAIRS[name]):
        copy = base / f"alone-{place}"
        shutil.rmtree(copy, ignore_errors=True)
        if "train" in name and "compare" in name:
            run(*COMPARE, "0", FORCE)
        run(*words) if "--resume" not in words else None
        shutil.copytree(work, copy)
        alone.append(copy)
        for target in (*TARGET.values(), "other"):
            for path in work.glob(f"{target.partition('.')[0]}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if FORCE in PAIRS[name][0]:
        command = PAIRS[name][0][0] if "compare" not in name else "compare"
        run(
            *{"train": (*TRAIN, "0"), "export": (*EXPORT, "two"), "make": (*MAKE, "0")}.get(
                command, (*COMPARE, "0")
            )
        )
    return alone


@pytest.fixture(scope="module")
def script():
    """The process that both are forks of."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent.parent)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, SCRIPT], env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        *(pytest.param(*some, id=f"{some[0]}, some") for some in SOME.items()),
        *(pytest.param(name, None, id=name, marks=pytest.mark.slow) for name in PAIRS),
    ],
)
def test_one_wins_and_the_other_is_told(bench, script, tmp_path, name, holds):
    base, _ = bench
    alone = prepare(bench, name)
    (tmp_path / "my.txt").write_bytes((base / "my.txt").read_bytes())
    cache = tmp_path / "cache" if "cache" in name else base / "cache"
    plan = {"before": str(base / "work"), "work": str(tmp_path / "work"), "cache": str(cache)}
    plan |= {"first": PAIRS[name][0], "second": PAIRS[name][1], "holds": holds}

    def tell(line):
        script.stdin.write(line + "\n")
        script.stdin.flush()

    tell(json.dumps(plan))
    problems, count = [], 0
    while found := json.loads(script.stdout.readline()):
        try:
            check(found, name, tmp_path / "work", alone)
        except AssertionError as error:
            problems.append(error)
        count += 1
        if "cache" in name:
            shutil.rmtree(cache)
        tell("")
    print(f"{name}: {count} interleavings")  # noqa: T201
    assert not problems, problems[0]
    assert count >= 1


def check(found, name, work, alone):
    """What is there is the work of one process, and the other has said that it has not done it."""
    codes, said = found["codes"], found["said"]
    assert set(codes) <= {0, 1}, found
    for code, words in zip(codes, said, strict=True):
        assert (words == "") is (code == 0), found
        if code:
            assert [one.partition(":")[0] for one in words.splitlines()] == ["error", "hint"], found
            assert "is being written by process" in words or "exists" in words, found
    assert not [p for p in work.rglob(".*") if p.name != ".unfinished.json"], found
    if name == "cache":
        assert codes == [0, 0]
        for target, one in zip(("run", "other"), alone, strict=True):
            assert content(work / target) == content(one / target)
        return
    assert 0 in codes, found
    if "compare" in name:
        is_consistent(work / "both", found)
    if "train" not in name or "compare" not in name:
        target = "stopped" if "--resume" in name else TARGET[name.split()[0].strip(",")]
        winners = [content(one / target) for one, c in zip(alone, codes, strict=True) if c == 0]
        if "--resume" in name:
            assert (work / target / "weights.safetensors").exists()
        else:
            assert content(work / target) in winners, found


def is_consistent(both, found):
    """The numbers of a comparison are those of the runs in it, or the page leaves the runs out."""
    subject = Subject.open(both, lambda event: None)
    rows = {row["name"]: row["seeds"] for row in read_json(both / "comparison.json")["rows"]}
    for name, runs in subject.runs.items():
        for run, seed in zip(runs, rows[name], strict=True):
            assert run.weights_checksum() == seed["weights"], found
    Run.open(both / "rnn").model()


def content(path):
    """What must be the same in equal results."""
    if path.suffix:
        return [path.with_suffix(s).read_bytes() for s in (".txt", ".items.jsonl", ".about.json")]
    files = [f for f in sorted(path.rglob("*")) if f.name in COMPARED]
    return [(str(f.relative_to(path)), f.read_bytes()) for f in files]
