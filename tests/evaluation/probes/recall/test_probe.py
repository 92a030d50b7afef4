"""Recall on a text of random words, where nothing but memory can help."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmcli.data.token_cache import encode_documents
from lmcli.errors import TextError
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.recall.probe import CONTROL, Recall, buckets_of, reach_of
from lmcli.grammars.base import write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.models.base import LanguageModel
from lmcli.models.lstm import LSTM
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.registry import TOKENIZERS

N = 4
SETTINGS = Recall.Settings(items=40, block=600, fewest=20)
SYLLABLES = [c + v for c in "bdfgklmnprst" for v in "aeou"]


class Perfect(LanguageModel):
    """Knows every word it has read since the start, and thinks those likely."""

    name = "perfect"
    Settings = LSTM.Settings

    def initial_state(self, batch):
        return (torch.zeros(batch, self.vocabulary + 1),)

    def forward(self, tokens, state, tap=None):
        logits = []
        for t in range(tokens.shape[1]):
            last, state = self.last_logits(tokens[:, t : t + 1], state)
            logits.append(last)
        return torch.stack(logits, dim=1), state

    def last_logits(self, tokens, state):
        seen = state[0].scatter(1, tokens, 1.0)
        return 10 * seen[:, : self.vocabulary], (seen,)

    def flops_per_token(self):
        return 1


def random_text(words, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(words))


@pytest.fixture(scope="module")
def material():
    """Independent words: a text that is shuffled from the start."""
    held_out = tuple(random_text(600, seed) for seed in range(1, 13))
    return ProbeData(held_out, (random_text(25_000, 0),))


@pytest.fixture(scope="module")
def tokenizer(material):
    cls = TOKENIZERS.load("word")
    return cls.train(material.train, cls.Settings())


def subject(model, tokenizer):
    return ProbedModel(model.name, model.name, model.eval(), tokenizer, lambda: model)


def models(tokenizer, material):
    torch.manual_seed(0)
    ngram = NGram(tokenizer.size, NGram.Settings(order=N))
    ngram.fit_counts(encode_documents(tokenizer, material.train))
    window = Window(tokenizer.size, Window.Settings(window=N, hidden=8, embedding=4))
    lstm = LSTM(tokenizer.size, LSTM.Settings(hidden=8, embedding=4))
    return [ngram, window, lstm, Perfect(tokenizer.size, None)]


@pytest.fixture(scope="module")
def result(material, tokenizer):
    subjects = [subject(m, tokenizer) for m in models(tokenizer, material)]
    return Recall().run(subjects, material, SETTINGS)


def rows_of(result, name):
    return [row for row in result.rows if row["run"] == name]


def summary_of(result, name):
    return next(row for row in result.summary if row["run"] == name)


def test_perfect_memory_is_always_right_and_reaches_all_buckets(result):
    rows = rows_of(result, "perfect")
    assert len(rows) >= 4
    for row in rows:
        assert row["value"] == 1.0
        assert row["flip_rate"] == 1.0
        assert row["median_log_odds"] == pytest.approx(20.0, abs=1e-4)
    reach = summary_of(result, "perfect")["reach"]
    assert reach["at_least"]
    assert reach["tokens"] == rows[-1]["longest"]


@pytest.mark.parametrize("name", ["ngram", "window"])
def test_beyond_its_window_a_model_flips_exactly_half_and_amnesia_changes_nothing(result, name):
    beyond = [row for row in rows_of(result, name) if row["gap_from"] > N]
    assert beyond
    for row in beyond:
        assert row["flip_rate"] == 0.5
        assert row["median_log_odds"] == 0.0
        assert row["gain"] == 0.0
    assert summary_of(result, name)["reach"]["tokens"] <= 8


def test_the_ngram_is_right_in_a_fifth_of_the_items(result):
    rows = rows_of(result, CONTROL)
    count = sum(row["count"] for row in rows)
    right = sum(row["value"] * row["count"] for row in rows) / count
    assert abs(right - 0.2) < 1.96 * (0.2 * 0.8 / count) ** 0.5


def test_the_control_row_is_what_an_ngram_of_that_order_does(result):
    theirs = [row["value"] for row in rows_of(result, "ngram")]
    assert theirs == pytest.approx([row["value"] for row in rows_of(result, CONTROL)], abs=0.06)


def test_an_untrained_net_has_no_reach_on_a_shuffled_text(result):
    assert summary_of(result, "lstm")["reach"] == {"tokens": 0, "at_least": False}
    assert "lstm shows no reach" in result.verdict


def test_every_row_has_count_interval_and_chance(result):
    for row in result.rows:
        assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
        assert row["chance"] == 0.2
        assert row["count"] > 0


def test_the_best_memory_is_what_others_are_compared_with(result):
    assert {d["b"] for d in result.differences} == {"perfect"}
    assert all(d["verdict"] == "worse" for d in result.differences)


def test_runs_that_spell_words_are_tried_on_the_same_items(material, tokenizer):
    cls = TOKENIZERS.load("char")
    letters = cls.train(material.train, cls.Settings())
    torch.manual_seed(0)
    window = Window(letters.size, Window.Settings(window=N, hidden=8, embedding=4))
    both = [subject(Perfect(tokenizer.size, None), tokenizer), subject(window, letters)]
    result = Recall().run(both, material, SETTINGS)
    counts = [sum(r["count"] for r in rows_of(result, n)) for n in ("perfect", "window")]
    assert counts[0] == counts[1] > 50
    beyond = [row for row in rows_of(result, "window") if row["gap_from"] > N]
    assert beyond
    assert all(row["flip_rate"] == 0.5 and row["gain"] == 0.0 for row in beyond)
    assert all(row["words"] < row["gap"] / 4 for row in beyond)


def test_a_text_without_reach_is_told_so_once_and_which_command_makes_another(material, tokenizer):
    named = replace(material, texts=("my.txt",))
    ngram, window, lstm, perfect = models(tokenizer, material)

    def notes(*some):
        result = Recall().run([subject(model, tokenizer) for model in some], named, SETTINGS)
        assert result.too_little in ("", *result.notes)
        return [note for note in result.notes if "lmcli demo" in note]

    (note,) = notes(lstm, lstm)
    assert note.startswith("no run reaches back: too few of the ")
    assert "lmcli demo my.txt makes a text that shows memory" in note
    assert notes(lstm, perfect) == []
    assert notes(ngram, window) == []  # they reach no further in any text


def test_small_buckets_join_their_neighbours():
    gaps = np.array([1] * 5 + [10] * 30 + [20] * 40 + [40] * 3)
    found = [(b.low, b.high, len(b.items)) for b in buckets_of(gaps, 30)]
    assert found == [(1, 16, 35), (17, 64, 43)]


def test_reach_ends_at_the_first_bucket_without_memory():
    def row(gap, low):
        return {"gap": gap, "gain_low": low, "log_odds_low": 0.1, "longest": gap}

    rows = [row(8, 0.1), row(16, 0.1), row(32, -0.1), row(64, 0.1)]
    assert reach_of(rows) == {"tokens": 16, "at_least": False}
    assert reach_of(rows[:2]) == {"tokens": 16, "at_least": True}
    assert reach_of(rows[2:]) == {"tokens": 0, "at_least": False}


def test_a_short_text_is_sent_to_the_echo(tokenizer):
    short = ProbeData(("a b",), ("a b c",))
    why = Recall().applies(subject(Perfect(9, None), tokenizer), short, Recall.Settings())
    assert "echo" in why


def test_items_of_a_grammar_are_asked_by_gap(tmp_path):
    path = tmp_path / "france.txt"
    grammar = France(France.Settings(size="small", level=0))
    write_grammar(grammar, path)
    text = path.read_text(encoding="utf-8")
    cls = TOKENIZERS.load("word")
    tokenizer = cls.train([text], cls.Settings())
    lines = tuple(text.splitlines(keepends=True)[:200])
    optimum = {"perplexity": grammar.optimum().perplexity}
    items = path.with_suffix(".items.jsonl")
    material = ProbeData(lines, lines, items, optimum)
    ngram = NGram(tokenizer.size, NGram.Settings(order=5))
    ngram.fit_counts(encode_documents(tokenizer, text.splitlines(keepends=True)))
    settings = Recall.Settings(items=48)
    result = Recall().run([subject(ngram, tokenizer)], material, settings)
    control = next(r for r in result.rows if r["kind"] == "control")
    country = [r for r in result.rows if r["kind"] == "country" and r["gap"] >= 5]
    assert control["value"] == 1.0
    assert len(country) > 5
    for row in country:
        assert row["chance"] == pytest.approx(1 / 16)
        assert row["target_nats"] == pytest.approx(np.log(16), abs=0.25)
        assert row["low"] < 0.1
    assert 1.0 < country[0]["over_optimum"] < 1.5
    damaged = ProbeData(lines, lines, tmp_path / "none.jsonl")
    with pytest.raises(TextError):
        Recall().run([subject(ngram, tokenizer)], damaged, settings)
