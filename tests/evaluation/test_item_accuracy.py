"""Items with known answers: known memories, ties, one answer for every command that asks."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from lmcli import api
from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import load_dataset
from lmcli.data.text import TextOptions
from lmcli.errors import TextError
from lmcli.evaluation.cloze import Cloze, candidate_scores
from lmcli.evaluation.item_accuracy import ITEMS_PER_GAP, group_items, item_accuracy, item_scores
from lmcli.grammars.base import Item, write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.grammars.france.sentences import COUNTRIES, LANGUAGES
from lmcli.models.base import LanguageModel
from lmcli.tokenizers.word.tokenizer import WordTokenizer
from lmcli.training.job import prepare_job
from lmcli.training.trainer import Budget


class Reader(LanguageModel):
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


@pytest.fixture(scope="module")
def tokenizer(france_documents):
    text = ["\n".join(france_documents) + "\n"]
    return WordTokenizer.train(text, WordTokenizer.Settings())


@pytest.fixture(scope="module")
def items():
    """Country items by gap; no other country stands between cue and answer."""
    made = France(France.Settings(size="small", level=0)).items()
    found = {}
    for item in made:
        if item.kind == "country":
            found.setdefault(item.gap, []).append(item)
    return found


@pytest.mark.parametrize("gap", [3, 30])
def test_a_perfect_memory_is_right_every_time(tokenizer, items, gap):
    found = item_accuracy(Reader(tokenizer), tokenizer, items[gap])
    assert (found.gap, found.right, found.count) == (gap, 300, 300)
    assert found.accuracy == 1
    assert found.interval[0] > 0.98
    assert found.target_nats == pytest.approx(math.log(1 + 15 * math.exp(-10)), rel=1e-3)


def test_a_model_that_always_says_the_same_is_right_as_often_as_chance(tokenizer, items):
    french = int(tokenizer.encode("French")[0])
    found = item_accuracy(Reader(tokenizer, favourite=french), tokenizer, items[3])
    assert found.right == sum(i.answer == "French" for i in items[3])
    assert found.chance == 1 / len(LANGUAGES)
    assert found.interval[0] < found.chance < found.interval[1]


def test_a_tie_is_not_right(tokenizer, items, build):
    model = build("ngram", tokenizer.size)
    model.fit_counts(np.empty(0, np.int32))  # all tokens alike
    found = item_accuracy(model, tokenizer, items[3][:20])
    assert found.right == 0
    assert found.target_nats == pytest.approx(math.log(16), rel=1e-5)


@pytest.mark.parametrize("arch", ["gru", "ngram", "window"])
def test_items_read_side_by_side_score_like_one_by_one(build, tokenizer, items, arch):
    model = build(arch, tokenizer.size)
    some = [*items[3][:40], *items[10][:40]]  # more than are read at once, of several lengths
    together = item_scores(model, tokenizer, some)
    for item, row in zip(some, together, strict=True):
        alone = candidate_scores(model, tokenizer, Cloze(item.text), item.candidates)
        assert row == pytest.approx(alone, abs=1e-4)


def test_items_of_another_text_are_an_error(tokenizer, items, build):
    other = WordTokenizer.train(["now he speaks"], WordTokenizer.Settings())
    with pytest.raises(TextError, match="is not in the vocabulary"):
        item_accuracy(build("gru", other.size), other, items[3][:3])


def test_the_first_items_of_each_kind_and_gap_are_asked_and_the_control_comes_first():
    def made(kind, gap, number, candidates=("a", "b")):
        return Item(f"{number} ", "a", candidates, gap, kind)

    items = [made(k, g, n) for n in range(300) for k, g in (("x", 9), ("control", 3), ("x", 1))]
    groups = group_items([*items, made("alone", 1, 0, ("a",))])
    assert list(groups) == [("control", 3), ("x", 1), ("x", 9)]
    for group in groups.values():
        assert [item.text for item in group] == [f"{n} " for n in range(ITEMS_PER_GAP)]


@pytest.fixture(scope="module")
def grammar_file(tmp_path_factory):
    """A small text of the grammar with its items beside it."""
    path = tmp_path_factory.mktemp("made") / "france.txt"
    write_grammar(France(France.Settings(size="small", level=0)), path)
    lines = path.with_suffix(".items.jsonl").read_text().splitlines(keepends=True)
    path.with_suffix(".items.jsonl").write_text("".join(lines[::60]))
    return path


@pytest.mark.parametrize("arch", ["gru", "window", "ngram", "attention"])
@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe"])
def test_cloze_and_probe_give_the_same_answers_to_the_last_digit(
    grammar_file, tmp_path, small_settings, name, arch
):
    texts = {"texts": (str(grammar_file),), "options": TextOptions(documents="line")}
    dataset = load_dataset(CorpusSpec(**texts), name, {"vocabulary": 400})
    settings = {k: v for k, v in asdict(small_settings(arch)).items() if v is not None}
    job = prepare_job(dataset, arch, settings, Budget(steps=3), 0, "cpu")
    run = job.create(tmp_path / "run")
    model = job.model().eval()
    if model.is_count_based:
        model.fit_counts(dataset.tokenized.train[:20_000])
    run.save_weights(model.tensors(), 0)
    cloze = api.cloze(run).to_json()["rows"]
    probe = api.probe(run, name="recall").to_json()["rows"]
    asked = {(row["kind"], row["gap"]): row for row in probe}
    assert {row["kind"] for row in cloze} == {"control", "country"}
    for row in cloze:
        same = asked[row["kind"], row["gap"]]
        assert row["accuracy"] == same["value"]
        for key in ("low", "high", "count", "chance", "target_nats"):
            assert row[key] == same[key]
