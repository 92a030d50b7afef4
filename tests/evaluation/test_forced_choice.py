"""One score for a word: ln p of its tokens and of its end, by a naive sum over whole texts."""

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
from lmcli.evaluation import forced_choice
from lmcli.evaluation.cloze import Cloze, candidate_scores
from lmcli.evaluation.forced_choice import (
    ITEMS_PER_GAP,
    encode_words,
    group_items,
    item_accuracy,
    item_scores,
    score_words,
)
from lmcli.grammars.base import Item, write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.grammars.france.sentences import LANGUAGES
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.word.tokenizer import WordTokenizer
from lmcli.training.job import prepare_job
from lmcli.training.trainer import Budget

LEFTS = ["Anna grew up in France . now she speaks fluent ", "she speaks of the "]
WORDS = [["French", "Spanish", "Qx"], ["dog", "Qx", "German"]]


@pytest.fixture(scope="module")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it; every token of it has some probability."""

    def make(name, arch):
        cls = TOKENIZERS.load(name)
        settings = cls.Settings(vocabulary=400) if name == "bpe" else cls.Settings()
        tokenizer = cls.train([*france_documents, "Qx dog .\n"], settings)
        return build(arch, tokenizer.size), tokenizer

    return make


@torch.no_grad()
def naive_sum(model, tokenizer, text):
    """ln p of all tokens of a text, one at a time."""
    state, last, total = model.initial_state(1), tokenizer.start, 0.0
    for token in tokenizer.encode(text).tolist():
        logits, state = model(torch.tensor([[last]]), state)
        total += logits[0, 0].double().log_softmax(0)[token].item()
        last = token
    return total


@torch.no_grad()
def naive_scores(model, tokenizer, left, words):
    """ln p(left + word, and then a token that ends the word) - the same of the first word.

    Encoded as a whole text each, read one token at a time.
    """
    scores = []
    for word in words:
        state, last, total = model.initial_state(1), tokenizer.start, 0.0
        for token in [*tokenizer.encode(left + word).tolist(), None]:
            logits, state = model(torch.tensor([[last]]), state)
            logs, last = logits[0, 0].double().log_softmax(0), token
            if token is not None:
                total += logs[token].item()
        if tokenizer.spells:
            texts = [tokenizer.decode([i])[:1] for i in range(tokenizer.size)]
            ends = [i for i, t in enumerate(texts) if not (t.isalnum() or t in "'-\ufffd")]
            total += logs[ends].logsumexp(0).item()
        scores.append(total)
    return np.array(scores) - scores[0]


every_speaker = pytest.mark.parametrize(
    ("name", "arch"),
    [
        (name, arch)
        for name in ("byte", "char", "word", "bpe")
        for arch in ("gru", "lstm", "window", "ngram", "attention", "mingru")
    ],
)


def test_what_one_model_was_asked_is_not_encoded_anew_for_the_next(speaker, monkeypatch, build):
    model, tokenizer = speaker("word", "gru")
    found = score_words(model, tokenizer, LEFTS, WORDS)
    calls = []
    encode = tokenizer.encode_with_ends
    monkeypatch.setattr(tokenizer, "encode_with_ends", lambda t: (calls.append(t), encode(t))[1])
    assert (score_words(model, tokenizer, LEFTS, WORDS) == found).all()
    score_words(build("lstm", tokenizer.size), tokenizer, LEFTS, WORDS)
    assert calls == []
    score_words(model, tokenizer, LEFTS, WORDS, right=" .")  # as long as it likes, so not kept
    assert calls
    calls.clear()
    monkeypatch.setattr(forced_choice, "LONGEST_KEPT", 4)  # longer ones would fill the memory
    assert (score_words(model, tokenizer, LEFTS, WORDS) == found).all()
    assert calls


@every_speaker
def test_a_score_is_that_of_the_word_and_of_all_tokens_that_end_it(speaker, name, arch):
    model, tokenizer = speaker(name, arch)
    found = score_words(model, tokenizer, LEFTS, WORDS)
    for left, words, scores in zip(LEFTS, WORDS, found, strict=True):
        right = naive_scores(model, tokenizer, left, words)
        assert scores - scores[0] == pytest.approx(right, abs=1e-4)


def test_a_blank_that_only_some_words_are_joined_to_counts_to_the_words(speaker):
    _, tokenizer = speaker("bpe", "gru")
    edge, ids = encode_words(tokenizer, LEFTS[0], ["German", "Qx"])
    assert edge == len(LEFTS[0]) - 1
    assert [tokenizer.decode(i) for i in ids] == [" German", " Qx"]
    assert tokenizer.decode(ids[1][:1]) == " "
    same, _ = encode_words(tokenizer, LEFTS[0], ["Qx"])
    assert same == len(LEFTS[0])  # alone it has the blank to itself


@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe"])
def test_a_long_text_to_the_left_changes_no_tokens_of_a_word(speaker, name):
    _, tokenizer = speaker(name, "gru")
    for left in (LEFTS[0], 20 * LEFTS[0], "x" * 300 + " ", "a\n" * 90):
        edge, ids = encode_words(tokenizer, left, WORDS[0])
        for word, mine in zip(WORDS[0], ids, strict=True):
            encoded = tokenizer.encode_with_ends(left + word)
            cut = int(np.searchsorted(encoded.ends, edge, "right"))
            assert encoded.ids[cut:].tolist() == mine


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_a_text_to_the_right_belongs_to_every_word(speaker, name, monkeypatch):
    model, tokenizer = speaker(name, "lstm")
    left, words, right = LEFTS[1], ["dog", "German", "French"], " who speaks of him ." * 3
    found = score_words(model, tokenizer, [left], [words], right)[0]
    whole = [naive_sum(model, tokenizer, left + word + right) for word in words]
    assert found - found[0] == pytest.approx(np.array(whole) - whole[0], abs=1e-4)
    monkeypatch.setattr(forced_choice, "LOGITS", 40 * model.vocabulary)  # a few steps at a time
    again = score_words(model, tokenizer, [left], [words], right)[0]
    assert again == pytest.approx(found, abs=1e-5)


def test_how_many_are_scored_at_once_changes_nothing(speaker, monkeypatch):
    model, tokenizer = speaker("char", "gru")
    found = score_words(model, tokenizer, LEFTS, WORDS)
    monkeypatch.setattr(forced_choice, "LOGITS", 1)
    assert score_words(model, tokenizer, LEFTS, WORDS) == pytest.approx(found, abs=1e-5)


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
def test_a_perfect_memory_is_right_every_time(tokenizer, items, gap, country_reader):
    found = item_accuracy(country_reader(tokenizer), tokenizer, items[gap])
    assert (found.gap, found.right, found.count) == (gap, 300, 300)
    assert found.accuracy == 1
    assert found.interval[0] > 0.98
    assert found.target_nats == pytest.approx(math.log(1 + 15 * math.exp(-10)), rel=1e-3)


def test_a_model_that_always_says_the_same_is_right_as_often_as_chance(
    tokenizer, items, country_reader
):
    french = int(tokenizer.encode("French")[0])
    found = item_accuracy(country_reader(tokenizer, favourite=french), tokenizer, items[3])
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
        alone = candidate_scores(model, tokenizer, [Cloze(item.text)], item.candidates)[0]
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
