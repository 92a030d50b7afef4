"""Any one call that changes the disk fails: two lines, what was there is whole, nothing is left
half-written; or the call does not matter, and all is done."""

import errno
import shutil

import pytest

from lmcli.errors import RunError
from lmcli.run import Run

TINY = ("--steps", "8", "--set", "hidden=4", "--set", "embedding=4", "--set", "validations=2")
TINY += ("--set", "patience=0", "--set", "learning_rate=0.01", "--set", "threads=1", "-q")
SAME = ("weights.safetensors", "training.safetensors", "log.jsonl")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "ENAMETOOLONG")
TRAIN, MAKE = ("train", "../my.txt", *TINY), ("make", "addition", "--size", "small", "-q", "-o")
COMPARE = ("compare", "../my.txt", "--arch", "rnn,ngram", "--set", "order=2", *TINY, "--jobs", "1")
COMMANDS = {
    "train": (*TRAIN, "-o", "new"),
    "train --force": (*TRAIN, "-o", "old", "--seed", "1", "--force"),
    "train --resume": ("train", "--resume", "-o", "stopped", "-q"),
    "export": ("export", "old", "--to", "numpy", "-o", "new", "-q"),
    "export --force": ("export", "old", "--to", "numpy", "-o", "out", "-q", "--force"),
    "export --to hf": ("export", "old", "--to", "hf", "-o", "new", "-q"),
    "make": (*MAKE, "new.txt"),
    "make --force": (*MAKE, "made.txt", "--seed", "1", "--force"),
    "compare": (*COMPARE, "-o", "new"),
    "compare --force": (*COMPARE, "-o", "both", "--seed", "1", "--force"),
}


@pytest.fixture(scope="module")
def before(tmp_path_factory, sentences, here):
    """A folder with all that the commands read and replace."""
    base = tmp_path_factory.mktemp("failing")
    (base / "my.txt").write_text(sentences(60), encoding="utf-8")
    (base / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(base / "cache"))

        def run(*words):
            assert here(*words, cwd=base / "work").code == 0

        run(*TRAIN, "-o", "old")
        run(*COMMANDS["export"][:-3], "-o", "out", "-q")
        run(*MAKE, "made.txt")
        run(*COMPARE, "-o", "both")
        shutil.copytree(base / "work" / "old", base / "work" / "stopped")
        (base / "work" / "stopped" / "weights.safetensors").unlink()  # brought back by --resume
        for name in ("old", "out", "both"):
            (base / "work" / name / "notes.md").write_text("mine")
    return base


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        *((name, "some") for name in COMMANDS if name not in ("make", "compare")),
        *(pytest.param(name, "all", marks=pytest.mark.slow) for name in COMMANDS),
    ],
)
def test_a_call_that_fails_loses_nothing(
    before, here, failing_disk, tmp_path, monkeypatch, name, amount
):
    monkeypatch.setenv("LMCLI_CACHE", str(before / "cache"))
    (tmp_path / "my.txt").write_bytes((before / "my.txt").read_bytes())
    work, number, failures = tmp_path / "work", 0, 0
    while True:
        number += 1 if amount == "all" else 2 + number
        for error in ERRORS if amount == "all" else (ERRORS[number % len(ERRORS)],):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(before / "work", work)
            disk = failing_disk(number, error=getattr(errno, error), folders=error == "EIO")
            with disk:
                done = here(*COMMANDS[name], cwd=work)
            left = [p for p in work.rglob(".*") if p.name != ".unfinished.json"]
            assert not left, (number, error)
            assert [p.read_text() for p in sorted(work.rglob("notes.md"))] == ["mine"] * 3
            if done.code:
                done.failed("no space left" if error in ("ENOSPC", "EDQUOT") else "cannot ")
                failures += 1
            is_whole(before / "work", work, here, name, done.code)
        if not disk.failed:
            break
    assert done.code == 0
    assert failures


def is_whole(before, work, here, name, code):
    """What the command does not replace is as it was; what it does, the old or the new."""
    command = name.partition(" ")[0]
    target = {"train": "old", "export": "out", "make": "made.txt", "compare": "both"}[command]
    if "--resume" in name:
        target = "stopped"
        assert opens(work / target, here)
    elif not name.endswith("--force"):
        target = "new"
        if command == "train" and (work / "new").exists():
            again = (*COMMANDS["train"], "--force")  # where it has not come to a checkpoint
            assert opens(work / "new", here) or here(*again, cwd=work).code == 0
        elif command == "export":
            assert code == 0 or not (work / "new").exists()
    elif command in ("train", "export"):
        assert opens(work / target, here)
    for path in before.iterdir():
        if path.name.partition(".")[0] != target.partition(".")[0]:
            assert same(path, work / path.name)


def opens(path, here):
    """Whether a run has a model, or a checkpoint from which it comes to one."""
    try:
        Run.open(path).model()
    except RunError:
        return here("train", "--resume", "-o", path, "-q", cwd=path.parent).code == 0
    return True


def same(one, other):
    def content(path):
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        return [(f.relative_to(path.parent), f.read_bytes()) for f in files]

    return content(one) == content(other)
