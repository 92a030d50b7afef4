"""Whatever a power cut leaves on the disk opens whole or says what is wrong, and can be gone on
with: the runs, texts and comparisons in each state of `crash_states`."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from crash_states import Recording, build

from lmcli import api
from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.data.text import Limits
from lmcli.data.token_cache import encode_corpus, tokenize_corpus
from lmcli.errors import RunError
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.grammars.base import companions, find_companions
from lmcli.pages.subject import Subject
from lmcli.report.progress import Training
from lmcli.run import Run
from lmcli.storage import read_json
from lmcli.tokenizers.char import CharTokenizer

SOME, REPEATED = 5, 250
"""states of each command that are opened unless all are; those in which it is repeated at most"""
SMALL = {"hidden": 4, "embedding": 4, "batch": 2, "truncation": 8, "threads": 1}
SETTINGS = SMALL | {"validations": 3, "patience": 0, "dropout": 0.2, "learning_rate": 0.01}
TINY = ["--steps", "12", "-q", *(w for n, v in SETTINGS.items() for w in ("--set", f"{n}={v}"))]
SAME = ("weights.safetensors", "training.safetensors", "log.jsonl")
WHOLE = (*SAME, "run.json", "tokenizer.json", "results/train.json")

amount = pytest.mark.parametrize("amount", ["some", pytest.param("all", marks=pytest.mark.slow)])
amounts = pytest.mark.parametrize(
    ("amount", "force"),
    [("some", True), *(pytest.param("all", f, marks=pytest.mark.slow) for f in (False, True))],
)


@pytest.fixture(scope="module")
def base(tmp_path_factory, sentences):
    """A folder with a text and a cache that is warm."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "my.txt").write_text(sentences(60), encoding="utf-8")
    return folder


class Bench:
    """Commands in a folder of their own, `work`, beside the text."""

    def __init__(self, base, here, patch):
        self.base, self.here, self.work = base, here, base / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        patch.setenv("LMCLI_CACHE", str(base / "cache"))

    def run(self, *words, cwd=None):
        """A command that must succeed."""
        done = self.here(*words, cwd=cwd or self.work)
        assert done.code == 0, done.err
        return done

    def train(self, *words, cwd=None):
        return self.run("train", "../my.txt", *TINY, "-o", "run", *words, cwd=cwd)

    def states(self, amount, *words):
        """The folders that a crash of a command may leave, each when it is its turn.

        With each: whether the command is to be repeated in it, which takes most of the time.
        """
        with Recording(self.work) as recording:
            self.run(*words)
        states = list(recording.states())
        if amount == "some":
            states = random.Random(0).sample(states, min(SOME, len(states)))
        print(f"{words[0]}: {len(states)} states")  # noqa: T201
        assert len(states) >= SOME
        every = -(-len(states) // REPEATED)
        for number, state in enumerate(states):
            folder = self.base / "state"
            shutil.rmtree(folder, ignore_errors=True)
            build(state, folder)
            patch = pytest.MonkeyPatch()
            patch.chdir(folder)
            try:
                yield folder, number % every == 0
            except AssertionError as error:
                error.add_note(f"state {number}: {sorted(state)}")
                raise
            finally:
                patch.undo()

    def is_new(self, path):
        """Whether a folder has not held this before."""
        files = sorted((str(p), p.is_file() and p.read_bytes()) for p in path.rglob("*"))
        found = hash(tuple(files))
        self._seen, before = self._seen | {found}, self._seen
        return found not in before

    _seen: frozenset[int] = frozenset()


@pytest.fixture
def bench(base, here, monkeypatch):
    return Bench(base, here, monkeypatch)


def content(path, names=WHOLE):
    """The bytes of a run's files."""
    return {name: (path / name).read_bytes() for name in names}


def opens(path):
    """Whether a run opens whole; if not, the error says what is wrong and what to do."""
    try:
        run = Run.open(path)
        model, light = run.model(), open_numpy_model(run)
    except RunError:  # which cannot be without a problem and a hint
        return False
    light.reset(1)
    light.read_all([run.tokenizer.start, 1])
    assert np.isfinite(light.logits()).all()
    assert model.parameter_count() > 0
    assert [entry["step"] for entry in run.log()] == sorted({e["step"] for e in run.log()})
    return True


def has_checkpoint(path):
    try:
        Run.open(path).load_training()
    except RunError:
        return False
    return True


def hidden(folder):
    """Names of what a command leaves only if it is cut off."""
    return [p.name for p in folder.rglob(".*")]


# ------------------------------------------------------------------ train


@amount
def test_a_training_that_is_cut_off_goes_on_to_the_same_end(bench, amount):
    bench.train()
    unbroken, resumed = content(bench.work / "run", SAME), 0
    shutil.rmtree(bench.work / "run")
    for folder, _ in bench.states(amount, "train", "../my.txt", *TINY, "-o", "run"):
        opens(Path("run"))
        if has_checkpoint(Path("run")):
            bench.run("train", "--resume", "-o", "run", "-q", cwd=folder)
            resumed += 1
        else:
            bench.here("train", "--resume", "-o", "run", "-q", cwd=folder).failed()
            bench.train("--force", cwd=folder)
        assert content(Path("run"), SAME) == unbroken
        assert not hidden(folder)
    assert resumed


@amount
def test_a_resumed_training_that_is_cut_off_can_be_resumed_again(bench, amount, monkeypatch):
    bench.train()
    unbroken = content(bench.work / "run", SAME)
    monkeypatch.chdir(bench.work)

    def stop(event):
        return isinstance(event, Training) and event.fraction > 0.5

    given = {"steps": 12, "settings": SETTINGS, "force": True, "on_progress": stop}
    api.train("../my.txt", output="run", **given)
    assert Run.open(Path("run")).result("train") is None
    for folder, _ in bench.states(amount, "train", "--resume", "-o", "run", "-q"):
        assert opens(Path("run"))
        bench.run("train", "--resume", "-o", "run", "-q", cwd=folder)
        assert content(Path("run"), SAME) == unbroken
        assert not hidden(folder)


@amount
def test_a_run_whose_replacing_is_cut_off_is_the_old_one_or_the_new_one(bench, amount):
    bench.train("--seed", "1")
    new = content(bench.work / "run", SAME)
    bench.train("--force")
    (bench.work / "run" / "notes.md").write_text("mine")
    old, found = content(bench.work / "run"), set()
    words = ("train", "../my.txt", *TINY, "-o", "run", "--seed", "1", "--force")
    for folder, repeat in bench.states(amount, *words):
        seed = Run.open(Path("run")).record.seed
        found.add(seed)
        if seed == 0:
            assert content(Path("run")) == old
        elif bench.is_new(Path("run")):
            bench.run("train", "--resume", "-o", "run", "-q", cwd=folder)
            assert content(Path("run"), SAME) == new
        assert [p.read_text() for p in folder.rglob("notes.md")] == ["mine"]
        if not repeat:
            continue
        bench.train("--force", "--seed", "1", cwd=folder)
        assert content(Path("run"), SAME) == new
        assert Path("run/notes.md").read_text() == "mine"
        assert os.listdir(folder) == ["run"]  # noqa: PTH208
    assert found == {0, 1} or amount == "some"


# ------------------------------------------------------------------ export, make


@amount
@pytest.mark.parametrize("force", [False, True])
def test_an_export_that_is_cut_off_is_whole_or_says_so_and_can_be_made_again(bench, amount, force):
    bench.train("--seed", "1")
    export = ("export", "run", "--to", "numpy", "-q", "-o", "out")
    bench.run(*export)
    names = ("run.json", "tokenizer.json", "weights.safetensors", "README.txt")
    new = content(bench.work / "out", names)
    shutil.rmtree(bench.work / "out")
    if force:
        bench.run("train", "../my.txt", *TINY, "-o", "other")
        bench.run(*export[:1], "other", *export[2:])
        shutil.rmtree(bench.work / "other")
    old = content(bench.work / "out", names) if force else None
    for folder, _ in bench.states(amount, *export, *["--force"] * force):
        if opens(Path("out")) or force:
            of_new = Run.open(Path("out")).record.seed == 1
            readable = content(Path("out"), [n for n in names if (Path("out") / n).exists()])
            assert readable.items() <= (new if of_new else old).items()
            assert len(readable) == 4 or not force
        bench.run(*export, "--force", cwd=folder)
        assert content(Path("out"), names) == new
        assert sorted(os.listdir(folder)) == ["out", "run"]  # noqa: PTH208


@amounts
def test_a_made_text_is_never_read_with_the_companions_of_another(bench, amount, force):
    make = ("make", "addition", "--size", "small", "-q", "-o", "a.txt")
    text = Path("a.txt")
    names = (text, *companions(text))

    def read(folder):
        return [(folder / n).read_bytes() if (folder / n).exists() else None for n in names]

    bench.run(*make, "--seed", "1")
    new = read(bench.work)
    for name in names:
        (bench.work / name).unlink()
    if force:
        bench.run(*make)
    old = read(bench.work)
    for folder, repeat in bench.states(amount, *make, "--seed", "1", *["--force"] * force):
        there = read(folder)
        for one, before, after in zip(there, old, new, strict=True):
            assert one in (before, after)
        beside = find_companions(["a.txt"], lambda event: None)
        version = old if there[0] == old[0] else new
        assert beside.items is None or there[1] == version[1]
        assert beside.about is None or there[2] == version[2]
        if repeat:
            bench.run(*make, "--seed", "1", "--force", cwd=folder)
            assert read(folder) == new
            assert len(os.listdir(folder)) == 3  # noqa: PTH208


# ------------------------------------------------------------------ compare


def compare(seed):
    words = ("compare", "../my.txt", "--arch", "rnn,ngram", *TINY, "--jobs", "1", "-o", "both")
    return (*words, "--seed", str(seed), "--set", "order=2")


@amounts
def test_a_comparison_that_is_cut_off_names_no_run_that_is_not_its_own(bench, amount, force):
    bench.run(*compare(1))
    both = Path("both")
    new = content(bench.work / "both" / "rnn", ["weights.safetensors", "log.jsonl"])
    shutil.rmtree(bench.work / "both")
    if force:
        bench.run(*compare(0))
    for folder, repeat in bench.states(amount, *compare(1), *["--force"] * force):
        for name in ("rnn", "ngram"):
            if bench.is_new(both / name):
                assert opens(both / name) or not force or has_checkpoint(both / name)
        assert not force or (both / "comparison.json").exists()
        unfinished = (both / ".unfinished.json").exists()
        try:
            subject = Subject.open(both, lambda event: None)
        except RunError:  # the runs of the old comparison are gone, or there was none
            assert unfinished or set(both.glob("*")) <= set(both.glob(".*"))
        else:
            assert unfinished or "rnn" in subject.runs
            rows = {r["name"]: r["seeds"] for r in read_json(both / "comparison.json")["rows"]}
            for name, runs in subject.runs.items():
                assert [r.record.seed for r in runs] == [s["seed"] for s in rows[name]]
        if not repeat:
            continue
        bench.run(*compare(1), "--force", cwd=folder)
        assert content(both / "rnn", ["weights.safetensors", "log.jsonl"]) == new
        assert sorted(os.listdir(both)) == ["comparison.json", "ngram", "rnn"]  # noqa: PTH208
        assert os.listdir(folder) == ["both"]  # noqa: PTH208


def test_a_run_trained_anew_is_not_taken_for_the_one_that_was_compared(bench):
    bench.run(*compare(1))
    both, said = bench.work / "both", []
    bench.run("train", "../my.txt", *TINY, "-o", "both/rnn", "--force", "--seed", "7")
    subject = Subject.open(both, said.append)
    assert list(subject.runs) == ["ngram"]
    assert "both/rnn' has changed since it was compared" in said[0].text


def test_half_a_result_of_a_training_that_was_killed_goes_when_it_is_resumed(bench):
    bench.train()
    left = bench.work / "run" / "results" / ".train.json.0123abcd.tmp"
    others = left.with_name(".eval.json.0123abcd.tmp")  # which may be being written
    for file in (left, others):
        file.write_text("{")
    bench.run("train", "--resume", "-o", "run", "-q")
    assert not left.exists()
    assert others.exists()


# ------------------------------------------------------------------ the cache


@amount
def test_a_cache_gives_the_right_ids_whatever_was_cut_off(base, tmp_path, amount):
    corpus = load_corpus(CorpusSpec((str(base / "my.txt"),)))
    settings = CharTokenizer.Settings()
    right = encode_corpus(corpus, CharTokenizer.train(corpus.train.documents, settings))
    (tmp_path / "cache").mkdir()
    with Recording(tmp_path / "cache") as recording:
        tokenize_corpus(corpus, "char", settings, tmp_path / "cache")
    states = list(recording.states())
    if amount == "some":
        states = random.Random(0).sample(states, 40)
    for number, state in enumerate(states):
        build(state, tmp_path / str(number))
        for _ in range(2):
            place, mapped = tmp_path / str(number), Limits(memory=0)
            found = tokenize_corpus(corpus, "char", settings, place, limits=mapped)
            assert isinstance(found.train, np.memmap)
            assert found.train.filename is not None  # of the cache
            for name in ("train", "valid", "test"):
                assert np.array_equal(getattr(found, name), getattr(right, name))
    assert len(states) >= 40
