"""What all tests share: one thread, a cache of their own, small texts and small models."""

import errno
import itertools
import os
import runpy
import signal
import stat
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings as hypothesis_settings

from lmcli.data.corpus import CorpusSpec
from lmcli.errors import StorageError
from lmcli.grammars.france.grammar import France
from lmcli.grammars.france.sentences import COUNTRIES
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS
from lmcli.run import Run
from lmcli.run_record import Record
from lmcli.settings import names, split_pairs, update
from lmcli.tokenizers.char import CharTokenizer

collect_ignore = ["fuzz/with_atheris.py"]  # a script, which needs atheris
SHOWS = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "TERMINAL_WIDTH")
"""environment variables that decide how rich and typer show a text"""
SCREENSHOTS = os.environ.get("LMCLI_SCREENSHOTS")
"""a folder for pictures of pages, if they are wanted"""
for _name in [n for n in os.environ if n in SHOWS or n.startswith("LMCLI_")]:
    del os.environ[_name]  # no test depends on the shell that runs it
os.environ["TERM"] = "xterm"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or no test could press Ctrl-C
NO_NETWORK = Path(__file__).parent / "no_network"
runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))  # for this process, and for those it starts:
os.environ["PYTHONPATH"] = f"{NO_NETWORK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
torch.set_num_threads(1)  # several processes on few cores make tiny products 50 times slower
hypothesis_settings.register_profile("lmcli", deadline=None, derandomize=True)
hypothesis_settings.register_profile("nightly", deadline=None, max_examples=10_000, print_blob=True)
hypothesis_settings.load_profile("lmcli")


class Killed(BaseException):
    """What a process that is killed does not get past."""


class FullDisk:
    """Within, the call of this number that changes the disk fails, and it alone.

    By default it finds the disk full. With `killed` the process is killed at it instead: the calls
    that follow do not happen either. With `folders` the flushing of a folder may be the one.
    """

    def __init__(self, number, killed=False, error=errno.ENOSPC, folders=False):
        self.number, self.killed, self.error, self.calls = number, killed, error, 0
        self.folders = folders or killed
        self.patch = pytest.MonkeyPatch()

    @property
    def failed(self):
        """Whether there were that many calls."""
        return self.calls >= self.number

    def __enter__(self):
        names = ["fsync", "replace", "rename", "mkdir"]
        names += ["write"] * self.folders  # of a lock, which locks without it
        for name in (*names, *(("unlink", "rmdir") if self.killed else ())):
            self.patch.setattr(os, name, self._failing(getattr(os, name)))
        read, write = Path.open, self._failing(Path.open)

        def choose(path, mode="r", **options):
            if "r" in mode:
                return read(path, mode, **options)
            return FullFile(write(path, mode, **options), self._failing)

        self.patch.setattr(Path, "open", choose)
        plain, creating, fdopen = os.open, self._failing(os.open), os.fdopen

        def open_or_create(path, flags, *mode, **options):
            return (creating if flags & os.O_CREAT else plain)(path, flags, *mode, **options)

        self.patch.setattr(os, "open", open_or_create)
        self.patch.setattr(os, "fdopen", lambda *all_: FullFile(fdopen(*all_), self._failing))

    def __exit__(self, kind, error, traceback):
        self.patch.undo()
        return isinstance(error, StorageError | Killed)

    def _failing(self, call):
        def fail(*arguments, **options):
            name = call.__name__
            if name == "mkdir" and Path(arguments[0]).is_dir():
                return call(*arguments, **options)  # which needs no space
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            if is_folder and not self.folders:
                return call(*arguments, **options)  # its names have their space already
            if name == "write" and arguments[0] in (1, 2):
                return call(*arguments, **options)  # to the terminal
            self.calls += 1
            if self.killed and self.failed:
                raise Killed
            if self.calls == self.number:
                place = arguments[0] if isinstance(arguments[0], str | Path) else None
                raise OSError(self.error, os.strerror(self.error), place)
            return call(*arguments, **options)

        return fail


class FullFile:
    """A file on such a disk."""

    def __init__(self, file, failing):
        self._file, self.write = file, failing(file.write)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


@pytest.fixture(scope="session")
def full_disks():
    """``for disk in full_disks():`` one that fails at its first call, its second, ... at none."""

    def make(killed=False, **options):
        for number in itertools.count(1):
            disk = FullDisk(number, killed, **options)
            yield disk
            if not disk.failed:
                return

    return make


@pytest.fixture(scope="session")
def failing_disk():
    """The class of a disk on which one call fails."""
    return FullDisk


@pytest.fixture
def snapshot(tmp_path):
    """``snapshot()`` is all that lies in the working folder, with its content."""

    def take():
        found = sorted(tmp_path.rglob("*"))
        return {str(p): p.read_bytes() if p.is_file() else None for p in found}

    return take


PROJECT = Path(__file__).parent.parent
SMALL = {"hidden": 12, "embedding": 8}
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory):
    """Every test has an empty cache of token ids."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_numbers))
        patch.setenv("LMCLI_CACHE", str(folder))
        yield


@pytest.fixture(scope="session")
def project():
    """The folder with pyproject.toml."""
    return PROJECT


@pytest.fixture(scope="session")
def small_settings():
    """Settings of an architecture with small sizes: ``small_settings("lstm", layers=2)``.

    A variant is named with its settings: ``small_settings("lstm layers=2")``.
    """

    def make(name, **changes):
        name, *pairs = name.split()
        base = MODELS.load(name).Settings()
        known = names(type(base))
        base = replace(base, **{k: v for k, v in SMALL.items() if k in known} | changes)
        return update(base, split_pairs(pairs))

    return make


@pytest.fixture(scope="session")
def build(small_settings):
    """A small model that says something: random weights, or counts of a random stream."""

    def make(name, vocabulary=7, seed=0, **changes):
        torch.manual_seed(seed)
        model = MODELS.load(name.split()[0])(vocabulary, small_settings(name, **changes)).eval()
        if model.is_count_based or model.counts_first:
            model.fit_counts(random_stream(400, vocabulary, seed))
        return model

    return make


def random_stream(length, vocabulary, seed=0, start_every=0):
    """Ids in which a token leans on the two before it, after a start id, with more in between."""
    rng, ids = np.random.default_rng(seed), [vocabulary, int(seed) % vocabulary]
    while len(ids) < length:
        lean = (ids[-1] + ids[-2] + 1) % vocabulary
        ids.append(lean if rng.random() < 0.6 else int(rng.integers(vocabulary)))
        if start_every and len(ids) % start_every == 0:
            ids.append(vocabulary)
    return np.array(ids[:length], dtype=np.uint16)


@pytest.fixture(scope="session")
def stream():
    """``stream(length, vocabulary, seed, start_every)`` -> ids of a text with some rule in it."""
    return random_stream


@pytest.fixture(scope="session")
def keep_picture():
    """``keep_picture(view, "phone")`` saves what a browser shows in LMCLI_SCREENSHOTS."""

    def keep(view, name):
        if SCREENSHOTS:
            view.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)

    return keep


@pytest.fixture(scope="session")
def france_documents():
    """Documents of the France grammar without distractors."""
    grammar = France(France.Settings(size="small", level=0))
    return list(itertools.islice(grammar.documents(), 400))


@pytest.fixture
def france_file(tmp_path, france_documents):
    """The same as a file, one document a line."""
    path = tmp_path / "france.txt"
    path.write_text("".join(d + "\n" for d in france_documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_run(small_settings):
    """``make_run(path, "gru")`` -> a run without weights; vocabulary: unknown, a to f."""

    def make(path, name="gru", force=False, **changes):
        tokenizer = CharTokenizer.train(["abcdef"], CharTokenizer.Settings())
        record = Record(
            arch=name.split()[0],
            settings=asdict(small_settings(name, **changes)),
            tokenizer="char",
            tokenizer_settings={"min_count": 1},
            vocabulary=tokenizer.size,
            corpus=CorpusSpec(("a.txt",), sha256="0" * 64).to_json(),
            training={"learning_rate": 0.002},
            budget={"minutes": None, "steps": 24, "epochs": None},
            seed=0,
            device="cpu",
            versions={"lmcli": "0.1.0"},
            command="lmcli train 'é.txt'",
        )
        return Run.create(path, record, tokenizer, force)

    return make


class CountryReader(LanguageModel):
    """Remembers the last country for ever, or holds one language to be likeliest whatever it reads.

    Its state is the language that the last country speaks.
    """

    name = "reader"

    def __init__(self, tokenizer, favourite=None):
        super().__init__(tokenizer.size, None)
        self.language = {
            int(tokenizer.encode(country)[0]): int(tokenizer.encode(language)[0])
            for country, language in COUNTRIES.items()
        }
        self.favourite = favourite

    def initial_state(self, batch):
        return (torch.zeros(batch, 1, dtype=torch.long),)

    def forward(self, tokens, state, tap=None):
        held, logits = state[0].clone(), torch.zeros(*tokens.shape, self.vocabulary)
        for row, ids in enumerate(tokens.tolist()):
            for t, token in enumerate(ids):
                held[row, 0] = self.language.get(token, 0 if token == self.start_id else held[row])
                said = held[row, 0] if self.favourite is None else self.favourite
                logits[row, t, said] = 10
        return logits, (held,)

    def flops_per_token(self):
        return 1


@pytest.fixture(scope="session")
def country_reader():
    """The class of a toy model with perfect memory."""
    return CountryReader
