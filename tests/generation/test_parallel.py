"""Texts made in several processes: who makes what, what comes of it, and what if one dies."""

import subprocess
import sys
from unittest.mock import Mock

import pytest

from lmcli.generation import parallel
from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.generation.parallel import processes_for

SCRIPT = """
import os, signal, sys
import numpy as np
from lmcli.generation import parallel
from lmcli.errors import LmcliError
from lmcli.generation.sampling import GenerationStats, SamplingSettings, sample_batch
from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.tokenizers.char import CharTokenizer

parent = os.getpid()

class Counting(NumpyModel):
    '''Likes the token after the one that was read; may die in a process that is not the first.'''
    def reset(self, streams): self.last = np.zeros(streams, int)
    def select(self, streams): self.last = self.last[list(streams)]
    def snapshot(self): return [self.last.copy()]
    def restore(self, snapshot): self.last = snapshot[0].copy()
    def read(self, tokens):
        self.last = np.array(tokens) % 4
        if {deadly} and os.getpid() != parent: os.kill(os.getpid(), signal.SIGKILL)
    def logits(self):
        found = np.zeros((len(self.last), 5))
        found[range(len(self.last)), (self.last + 1) % 4 + 1] = 2.0
        return found

parallel.available_cores = lambda: [0, 1, 2]
tokenizer = CharTokenizer("abcd")
settings = SamplingSettings(temperature=1.0)
def make(seeds, counted):
    return sample_batch(Counting(), tokenizer, "", 2000, settings, seeds, sampled=counted)
assert parallel.processes_for(Counting(), 30, 2000) == 3
def made(maker):
    counted = [GenerationStats() for _ in range(30)]
    texts = [""] * 30
    for number, text, last in maker(counted):
        assert not texts[number].endswith("#"), number
        texts[number] += text + "#" * last
    return texts, counted
try:
    apart = made(lambda counted: parallel.spread(make, range(30), 3, counted))
    assert apart == made(lambda counted: make(range(30), counted))
    assert not parallel.sys.modules.get("torch")
    pieces = parallel.spread(make, range(30), 3)
    next(pieces)
    pieces.close()
    from multiprocessing import active_children
    assert not active_children()
    print("same")
except LmcliError as error:
    print(error)
"""


def said(deadly):
    """What the script prints, in a process without torch."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(deadly=deadly)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
def test_texts_of_several_processes_are_those_of_one_and_leave_nobody_behind():
    assert said(deadly=False) == "same\n"


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
def test_a_process_that_is_killed_is_an_error():
    assert said(deadly=True) == "a process that made texts ended with code -9\n"


@pytest.mark.parametrize(
    ("texts", "length", "cores", "wanted"),
    [(1, 10**6, 8, 1), (64, 500, 8, 3), (64, 5000, 8, 8), (16, 5000, 8, 2), (64, 0, 8, 1)],
)
def test_processes_are_begun_where_they_pay(monkeypatch, texts, length, cores, wanted):
    monkeypatch.setattr(parallel, "available_cores", lambda: list(range(cores)))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(parallel.threading, "active_count", lambda: 1)
    assert processes_for(Mock(spec=NumpyModel), texts, length) == wanted


def test_nothing_is_forked_beside_torch():
    __import__("torch")
    assert processes_for(Mock(spec=NumpyModel), 100, 10_000) == 1
