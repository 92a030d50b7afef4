"""Recall on a text of random words, where nothing but memory can help."""

import random
from dataclasses import replace

import pytest
import torch

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.recall.probe import CONTROL, Recall
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


class Limited(Perfect):
    """Knows a word with at most 64 others between."""

    name = "limited"

    def initial_state(self, batch):
        return (torch.full((batch, 65), self.vocabulary),)

    def last_logits(self, tokens, state):
        read = torch.cat([state[0], tokens], dim=1)[:, -65:]
        seen = torch.zeros(len(read), self.vocabulary + 1).scatter(1, read, 1.0)
        return 10 * seen[:, : self.vocabulary], (read,)


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
    return [ngram, window, lstm, Perfect(tokenizer.size, None), Limited(tokenizer.size, None)]


@pytest.fixture(scope="module")
def result(material, tokenizer):
    subjects = [subject(m, tokenizer) for m in models(tokenizer, material)]
    return Recall().run(subjects, material, SETTINGS)


def rows_of(result, name):
    return [row for row in result.rows if row["run"] == name]


def measured(rows):
    """Without those left over at the far end."""
    return [row for row in rows if row["measured"]]


def summary_of(result, name):
    return next(row for row in result.summary if row["run"] == name)


def test_perfect_memory_is_always_right_and_reaches_all_buckets(result):
    rows = rows_of(result, "perfect")
    assert len(rows) >= 4
    for row in rows:
        assert row["value"] == 1.0
        assert row["retained"] == pytest.approx(1.0, abs=1e-3)
        assert row["flip_rate"] == 1.0
        assert row["median_log_odds"] == row["log_odds"] == pytest.approx(20.0, abs=1e-4)
    summary = summary_of(result, "perfect")
    assert summary["reach"] == {"tokens": measured(rows)[-1]["shortest"], "at_least": True}
    assert summary["measured_to"] == measured(rows)[-1]["longest"]


def test_a_memory_of_64_tokens_reaches_the_bucket_that_ends_there(result):
    rows = rows_of(result, "limited")
    within = [row for row in rows if row["longest"] <= 64]
    assert all(row["log_odds"] == pytest.approx(20.0, abs=1e-4) for row in within)
    reach = {"tokens": measured(within)[-1]["shortest"], "at_least": False}
    assert summary_of(result, "limited")["reach"] == reach
    assert 32 <= reach["tokens"] <= 64


@pytest.mark.parametrize(("name", "memory"), [("ngram", N - 1), ("window", N - 1), ("limited", 64)])
def test_beyond_its_window_a_model_flips_exactly_half_and_has_no_gain(result, name, memory):
    beyond = [row for row in measured(rows_of(result, name)) if row["gap_from"] > memory]
    assert beyond
    for row in beyond:
        assert (row["flip_rate"], row["flip_low"], row["flip_high"]) == (0.5, 0.5, 0.5)
        for key in ("gain", "log_odds"):
            assert (row[key], row[f"{key}_low"], row[f"{key}_high"]) == (0.0, 0.0, 0.0)
    assert summary_of(result, name)["reach"]["tokens"] <= memory


@pytest.mark.parametrize("name", ["ngram", "perfect"])
def test_the_placebo_changes_nothing_for_a_model_that_knows_words_one_by_one(result, name):
    (row,) = rows_of(result, f"placebo: {name}")
    limits = row["log_odds_low"], row["log_odds_high"]
    assert (row["log_odds"], *limits, row["flip_rate"]) == (0.0, 0.0, 0.0, 0.5)
    assert row["swaps"] > 100


def test_the_placebo_of_an_untrained_net_is_0_on_average(result):
    (row,) = rows_of(result, "placebo: lstm")
    assert row["log_odds_low"] < 0 < row["log_odds_high"]


def test_the_ngram_is_right_in_a_fifth_of_the_items(result):
    rows = rows_of(result, CONTROL)
    count = sum(row["count"] for row in rows)
    right = sum(row["value"] * row["count"] for row in rows) / count
    assert abs(right - 0.2) < 1.96 * (0.2 * 0.8 / count) ** 0.5


def test_the_control_row_is_an_ngram_scored_like_a_run(result):
    """One of the same order and text: the same figures in each bucket."""
    theirs, control = rows_of(result, "ngram"), rows_of(result, CONTROL)
    keys = ("value", "count", "retained", "gain", "log_odds", "flip_rate")
    assert [[r[k] for k in keys] for r in control] == [[r[k] for k in keys] for r in theirs]


def test_an_untrained_net_has_no_reach_on_a_shuffled_text(result):
    assert summary_of(result, "lstm")["reach"] == {"tokens": 0, "at_least": False}
    assert "lstm shows no reach" in result.verdict


def test_every_row_has_count_interval_and_chance(result):
    assert len({row["run"] for row in result.rows}) == 2 * 5 + 1
    for row in result.rows:
        if row["low"] is not None:
            assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
        assert row["chance"] == (None if row["arch"] == "placebo" else 0.2)
        assert row["swaps"] > 0


def test_a_text_of_few_stretches_is_too_little_to_tell(material, tokenizer):
    little = replace(material, held_out=material.held_out[:2], texts=("my.txt",))
    asked = [subject(Perfect(tokenizer.size, None), tokenizer)]
    result = Recall().run(asked, little, replace(SETTINGS, fewest=5))
    (row,) = result.summary
    assert row["reach"] == {"tokens": None, "at_least": False}
    assert result.verdict == "perfect: too little text to tell"
    assert "lmcli demo my.txt" in result.too_little
    assert all(r["low"] is None and r["gain_low"] is None for r in result.rows if "gain" in r)


def test_the_best_memory_is_what_others_are_compared_with(result):
    assert {d["b"] for d in result.differences} == {"perfect"}
    assert all(d["verdict"] == "worse" and d["high"] < 0 for d in result.differences)


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
    ngram, window, lstm, perfect, _ = models(tokenizer, material)

    def notes(*some):
        result = Recall().run([subject(model, tokenizer) for model in some], named, SETTINGS)
        assert result.too_little in ("", *result.notes)
        return [note for note in result.notes if "lmcli demo" in note]

    (note,) = notes(lstm, lstm)
    assert note.startswith("no run reaches back: too few of the ")
    assert "lmcli demo my.txt makes a text that shows memory" in note
    assert notes(lstm, perfect) == []
    assert notes(ngram, window) == []  # they reach no further in any text


def test_a_short_text_is_sent_to_the_echo(tokenizer):
    short = ProbeData(("a b",), ("a b c",))
    why = Recall().applies(subject(Perfect(9, None), tokenizer), short, Recall.Settings())
    assert "echo" in why
