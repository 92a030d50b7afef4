"""Another distribution adds one member of each family by entry points; lmcli needs no change."""

import json
import os
import subprocess
import sys

import pytest

from lmcli.models.lstm import LSTM

MODEL = '''"""Unigram: one learned distribution, whatever the context."""
from dataclasses import dataclass

import torch
from torch import nn

from lmcli.models.base import LanguageModel
from lmcli.settings import setting


@dataclass(frozen=True)
class UnigramSettings:
    scale: float = setting(1.0, "factor on the logits", least=0)


class Unigram(LanguageModel):
    name = "mine"
    Settings = UnigramSettings
    learning_rate = 2e-2

    def __init__(self, vocabulary, settings):
        super().__init__(vocabulary, settings)
        self.logits = nn.Parameter(torch.zeros(vocabulary))

    def initial_state(self, batch):
        return (self.logits.new_zeros(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        return self.settings.scale * self.logits.expand(*tokens.shape, -1), state

    def flops_per_token(self):
        return self.vocabulary
'''
TOKENIZER = '''"""Case-folded characters, by the tokenizer of characters."""
from lmcli.tokenizers.char import CharTokenizer


class Folded(CharTokenizer):
    name = "mine"

    @classmethod
    def train(cls, pieces, settings):
        return super().train((piece.lower() for piece in pieces), settings)

    def encode_with_ends(self, text):
        return super().encode_with_ends(text.lower())

    def encode(self, text):
        return super().encode(text.lower())
'''
GRAMMAR = '''"""Coin tosses: each document is one word, heads or tails."""
import math
from dataclasses import dataclass

from lmcli.grammars.base import Draws, Grammar, Item, Optimum
from lmcli.settings import setting


@dataclass(frozen=True)
class CoinSettings:
    tosses: int = setting(20, "documents in the text", least=1)


class Coin(Grammar):
    name = "mine"
    Settings = CoinSettings

    def __init__(self, settings=None):
        self.settings = settings or CoinSettings()

    def documents(self):
        draws = Draws("coin")
        for _ in range(self.settings.tosses):
            yield draws.choose(("heads", "tails"))

    def items(self):
        yield Item("", "heads", ("heads", "tails"), 0, "toss")

    def optimum(self):
        return Optimum(math.log(2), 2, 6)

    def about(self):
        return {"recipe": {"grammar": "mine", "tosses": self.settings.tosses}, "seed": 0}
'''
PROBE = '''"""Size: the parameters of each model."""
from dataclasses import dataclass

from lmcli.evaluation.probes.base import Probe, ProbeResult
from lmcli.report.result import COUNT, Column, text


@dataclass(frozen=True)
class SizeSettings:
    pass


class Size(Probe):
    name = "mine"
    Settings = SizeSettings

    def run(self, subjects, material, settings, seed=0):
        rows = [s.row(value=s.model.parameter_count()) for s in subjects]
        summary = [row | {"figure": str(row["value"])} for row in rows]
        columns = [Column("arch", text("model")), Column("value", COUNT, "parameters")]
        return ProbeResult("mine", rows, "each has its size", summary, columns, rows)
'''
ENTRY_POINTS = "".join(
    f"[lmcli.{family}]\nmine = lmcli_mine.{module}:{name}\n"
    for family, module, name in (
        ("models", "model", "Unigram"),
        ("tokenizers", "tokenizer", "Folded"),
        ("grammars", "grammar", "Coin"),
        ("probes", "probe", "Size"),
    )
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with an installed distribution, as pip would write it."""
    folder = tmp_path_factory.mktemp("site")
    package, about = folder / "lmcli_mine", folder / "lmcli_mine-1.0.dist-info"
    files = {"model": MODEL, "tokenizer": TOKENIZER, "grammar": GRAMMAR, "probe": PROBE}
    package.mkdir()
    for name, source in ({"__init__": ""} | files).items():
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lmcli-mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder


@pytest.fixture
def lmcli(site, project, tmp_path):
    """``lmcli(...)``: stdout of a process that sees the distribution."""

    def run(*arguments):
        environment = os.environ | {
            "PYTHONPATH": f"{project}{os.pathsep}{site}",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-W", "error", "-m", "lmcli", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_each_is_listed_with_its_first_line(lmcli):
    listed = json.loads(lmcli("list", "--json"))
    for family, about in (
        ("architectures", "Unigram: one learned distribution, whatever the context."),
        ("tokenizers", "Case-folded characters, by the tokenizer of characters."),
        ("grammars", "Coin tosses: each document is one word, heads or tails."),
        ("probes", "Size: the parameters of each model."),
    ):
        assert {"name": "mine", "about": about} in listed[family]


def test_a_name_in_several_families_shows_the_settings_of_each(lmcli):
    shown = lmcli("list", "mine")
    assert "factor on the logits" in shown
    assert "documents in the text" in shown
    values = json.loads(lmcli("list", "mine", "--json"))
    assert (values["name"], values["family"]) == ("mine", "architecture")
    families = [other["family"] for other in values["others"]]
    assert families == ["tokenizer", "grammar", "probe"]


def test_the_model_and_the_tokenizer_are_trained_compared_and_sampled(lmcli, france_file, tmp_path):
    budget = ("--steps", 5, "--tokenizer", "mine", "--quiet")
    compared = lmcli(
        "compare", france_file, "--arch", "mine,ngram", *budget, "-o", "both", "--json"
    )
    rows = {row["name"]: row for row in json.loads(compared)["rows"]}
    assert set(rows) == {"mine", "ngram"}
    assert rows["mine"]["test"]["bits_per_char"] > rows["ngram"]["test"]["bits_per_char"] > 0
    text = lmcli("sample", rows["mine"]["run"], "--length", 50, "--seed", 1)
    assert len(text) >= 50
    assert text == text.lower()


def test_its_class_gives_the_default_learning_rate(lmcli, france_file, tmp_path):
    rates = []
    for name in ("mine", "lstm"):
        lmcli("train", france_file, "--arch", name, "--steps", 1, "--quiet", "-o", name)
        record = json.loads((tmp_path / name / "run.json").read_text())
        rates.append(record["training"]["learning_rate"])
    assert rates[0] / rates[1] == pytest.approx(2e-2 / LSTM.learning_rate)


def test_the_grammar_makes_a_text_with_its_own_settings(lmcli, tmp_path):
    made = json.loads(lmcli("make", "mine", "--set", "tosses=7", "-o", "coin.txt", "--json"))
    assert made["documents"] == 7
    assert made["optimum"]["perplexity"] == pytest.approx(2**0.5)
    assert set((tmp_path / "coin.txt").read_text().split()) == {"heads", "tails"}


def test_the_probe_is_run_by_its_name_and_among_all(lmcli, france_file):
    lmcli("train", france_file, "--arch", "mine", "--steps", 2, "--quiet", "-o", "run")
    own = json.loads(lmcli("probe", "mine", "run", "--json"))
    assert [row["arch"] for row in own["rows"]] == ["mine"]
    assert own["rows"][0]["value"] > 10
    assert "each has its size" in lmcli("probe", "run", "--quiet")
