"""What the tests of evaluation share."""

import pytest

from lmcli.evaluation.statistics import wilson
from lmcli.registry import TOKENIZERS


@pytest.fixture(scope="session")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it."""

    def make(tokenizer_name, arch="gru"):
        cls = TOKENIZERS.load(tokenizer_name)
        tokenizer = cls.train(iter(france_documents), cls.Settings())
        return build(arch, tokenizer.size), tokenizer

    return make


@pytest.fixture
def memory_row():
    """A row of a comparison by its right answers at some gaps, of 100 texts and 16 answers."""

    def answers(kind, gap, value, seeds):
        low, high = wilson(round(100 * value), 100)
        shares = {"value": value, "low": low, "high": high, "least": value - 0.1 * (seeds > 1)}
        return {"kind": kind, "gap": gap, **shares, "count": 100, "chance": 1 / 16, "seeds": seeds}

    def row(name, gaps, control=None, seeds=1):
        known = next(iter(gaps.values())) if control is None else control
        recall = [answers("control", 9, known, seeds)]
        recall += [answers("country", gap, value, seeds) for gap, value in gaps.items()]
        recall.append(answers("shuffled", 10, 0.06, seeds))
        return {"name": name, "arch": name, "parameters": 400_000, "seconds": 80, "recall": recall}

    return row
