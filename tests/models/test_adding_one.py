"""A new architecture is one new file: nothing else needs to know of it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

TOY = '''"""Toy bigram: a table of the next token by the last one.

**In:** tokens (B, T).
**Out:** logits (B, T, V), a state that holds nothing.
"""

from dataclasses import dataclass

from torch import nn

from lmcli.models.base import LanguageModel
from lmcli.settings import setting


@dataclass(frozen=True)
class ToySettings:
    scale: float = setting(1.0, "factor on the logits", least=0)


class Toy(LanguageModel):
    name = "toy"
    Settings = ToySettings

    def __init__(self, vocabulary, settings):
        super().__init__(vocabulary, settings)
        self.table = nn.Embedding(vocabulary + 1, vocabulary)
        nn.init.normal_(self.table.weight, std=0.1)

    def initial_state(self, batch):
        return (self.table.weight.new_zeros(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        return self.table(tokens).float() * self.settings.scale, state

    def flops_per_token(self):
        return self.vocabulary


Member = Toy
'''


@pytest.fixture(scope="module")
def copy(project, tmp_path_factory):
    """A copy of the package with one more file in models/."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project / "lmcli", folder / "lmcli", ignore=ignored)
    (folder / "lmcli" / "models" / "toy.py").write_text(TOY, encoding="utf-8")
    files = ["pyproject.toml", "tests/conftest.py", "tests/models/test_laws.py"]
    for file in (*files, "tests/no_network/sitecustomize.py"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / file, folder / file)
    return folder


def python(folder, *arguments):
    """Run python on the copy; its stdout."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "LMCLI_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_is_in_the_list_and_its_settings_are_shown(copy):
    found = json.loads(python(copy, "-m", "lmcli", "list", "--json"))
    assert "toy" in [row["name"] for row in found["architectures"]]
    assert "factor on the logits" in python(copy, "-m", "lmcli", "list", "toy")


def test_it_is_compared_like_any_other(copy, france_documents):
    text = copy / "text.txt"
    text.write_text("".join(d + "\n" for d in france_documents[:100]), encoding="utf-8")
    arguments = ["compare", text, "--arch", "toy,ngram", "--steps", 20, "--json", "-o", copy / "c"]
    found = json.loads(python(copy, "-m", "lmcli", *arguments))
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == {"toy", "ngram"}
    assert rows["toy"]["test"]["bits_per_char"] > rows["ngram"]["test"]["bits_per_char"] > 0


def test_the_laws_hold_for_it(copy):
    laws = copy / "tests" / "models" / "test_laws.py"
    shown = python(copy, "-m", "pytest", laws, "-k", "toy", "-q", "-p", "no:cacheprovider")
    assert " passed" in shown
    assert "failed" not in shown
