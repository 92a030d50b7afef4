"""What a replaced token does to models whose memory is known."""

import numpy as np
import pytest
import torch
from torch import nn

from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.gradient import Gradient, gradient_norms
from lmcli.evaluation.probes.influence import (
    DRAWS,
    Influence,
    Replacements,
    influences,
    lagged,
)
from lmcli.evaluation.probes.sampling import Targets, draw_targets
from lmcli.evaluation.state_batches import documents
from lmcli.models.base import LanguageModel
from lmcli.models.gru import GRU
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.tokenizers.char import CharTokenizer

LETTERS = "abcdefgh"
N = 4


def letters(length, seed):
    rng = np.random.default_rng(seed)
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=length))


@pytest.fixture(scope="module")
def tokenizer():
    return CharTokenizer.train([LETTERS], CharTokenizer.Settings())


def subject(model, tokenizer):
    return ProbedModel("one", "net", model.eval(), tokenizer, lambda: model)


class Latch(LanguageModel):
    """Keeps for ever whether the first token of a document is above the middle: tanh(50 h + e)."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary, None)
        self.embed = nn.Embedding(vocabulary + 1, 1)
        with torch.no_grad():
            self.embed.weight[:, 0] = torch.arange(vocabulary + 1).sub(vocabulary / 2).sign() * 20
            self.embed.weight[vocabulary] = 0.0

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        (h,), steps = state, []
        for e in self.embed(tokens).unbind(1):
            h = torch.tanh(50 * h + e)
            steps.append(h)
        place = torch.linspace(-1, 1, self.vocabulary)
        return torch.stack(steps, dim=1) * place, (h,)

    def flops_per_token(self):
        return 1


class Toggle(LanguageModel):
    """Keeps one bit for ever, which half of the tokens flip: h = tanh(50 h e) with e = 1 or -1."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary, None)
        flips = torch.arange(vocabulary + 1).sub(vocabulary / 2).sign()
        self.embed = nn.Embedding.from_pretrained(flips.unsqueeze(1), freeze=False)

    def initial_state(self, batch):
        return (torch.ones(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        (h,), steps = state, []
        for e in self.embed(tokens).unbind(1):
            h = torch.tanh(50 * h * e)
            steps.append(h + e)  # e lies on the way to the logits, the only one for a gradient
        return torch.stack(steps, dim=1) * torch.linspace(-1, 1, self.vocabulary), (h,)

    def flops_per_token(self):
        return 1


def test_each_replacement_is_that_read_from_the_beginning(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=8, embedding=4)).eval()
    streams = documents(tokenizer, [letters(60, 0), letters(25, 1)])
    targets = draw_targets(streams, 12, np.random.default_rng(0))
    lags, rng = [1, 2, 8, 32], np.random.default_rng(1)
    others = Replacements(streams, tokenizer)
    drawn = [others.draw(lagged(streams, targets, lag), rng) for lag in lags]
    moved, cost = influences(model, streams, targets, lags, drawn)
    for row, (document, t) in enumerate(zip(targets.document, targets.place, strict=True)):
        for k, lag in enumerate(lags):
            assert np.isfinite(moved[row, k]) == (t - lag >= 1)
            if t - lag < 1:
                continue
            logs = []
            ids = streams[document][:t]
            for token in (ids[t - lag], *drawn[k][row]):
                read = ids.copy()
                read[t - lag] = token
                with torch.no_grad():
                    logits, _ = model(torch.from_numpy(read[None]), model.initial_state(1))
                logs.append(logits[0, -1].double().log_softmax(-1).numpy())
            real, *replaced = logs
            kl = np.mean([(np.exp(real) * (real - other)).sum() for other in replaced])
            goal = streams[document][t]
            assert moved[row, k] == pytest.approx(kl, abs=1e-5)
            assert cost[row, k] == pytest.approx(
                real[goal] - np.mean([other[goal] for other in replaced]), abs=5e-5
            )


@pytest.mark.parametrize("name", ["ngram", "window"])
def test_beyond_its_window_a_token_does_exactly_nothing(tokenizer, name):
    torch.manual_seed(0)
    model = Window(tokenizer.size, Window.Settings(window=N, hidden=16, embedding=6))
    if name == "ngram":
        model = NGram(tokenizer.size, NGram.Settings(order=N + 1))
        model.fit_counts(tokenizer.encode(letters(3000, 5)))
    data = ProbeData((letters(900, 2), letters(700, 3)))
    settings = Influence.Settings(targets=64, longest=128)
    result = Influence().run([subject(model, tokenizer)], data, settings)
    assert [row["lag"] for row in result.rows] == [1, 2, 4, 8, 16, 32, 64, 128]
    for row in result.rows:
        inside = row["lag"] <= N
        assert (row["value"] > 0) == inside
        if not inside:
            assert row["low"] == row["high"] == row["use"] == row["use_low"] == 0.0
    assert result.summary[0]["felt"] == {"tokens": N, "at_least": False}


def test_a_latched_bit_has_no_gradient_and_is_felt_for_ever(tokenizer):
    model = Latch(tokenizer.size).eval()
    streams = documents(tokenizer, [letters(300, seed) for seed in range(40)])
    for lag in (2, 16, 128, 256):
        number = np.arange(len(streams))
        targets = Targets(number, np.full(len(streams), 1 + lag), number)
        first = lagged(streams, targets, lag)
        flipped = np.where(first > tokenizer.size / 2, 1, tokenizer.size - 1)
        drawn = np.repeat(flipped[:, None], DRAWS, axis=1)
        moved, _ = influences(model, streams, targets, [lag], [drawn])
        assert moved.min() > 0.1
        read = torch.tensor(np.array([s[1 : lag + 2] for s in streams]))
        assert (gradient_norms(model, read)[:, lag - 1] == 0).all()


def test_both_probes_beside_each_other_on_a_bit_kept_for_ever(tokenizer):
    data = ProbeData((letters(3000, 2),))
    one = subject(Toggle(tokenizer.size), tokenizer)
    gradient = Gradient().run([one], data, Gradient.Settings(longest=256))
    flat = {row["lag"]: row["value"] for row in gradient.rows if row["time"] == "trained"}
    assert flat.pop(0) == 1
    assert set(flat) == {1 << k for k in range(9)}
    assert set(flat.values()) == {0}
    influence = Influence().run([one], data, Influence.Settings(targets=128))
    assert [row["lag"] for row in influence.rows] == [1 << k for k in range(11)]
    assert all(row["low"] > 0.1 for row in influence.rows)
    assert influence.summary[0]["felt"] == {"tokens": 1024, "at_least": True}


def test_a_model_that_learnt_to_copy_uses_what_it_copies(tokenizer):
    period = 4
    model = NGram(tokenizer.size, NGram.Settings(order=period + 1))
    text = "".join(letters(period, seed) * 40 for seed in range(30))
    model.fit_counts(tokenizer.encode(text))
    data = ProbeData((text[500:2500],), (text,))
    settings = Influence.Settings(targets=128, longest=16)
    result = Influence().run([subject(model, tokenizer)], data, settings)
    use = {row["lag"]: row for row in result.rows}
    assert use[4]["use"] > use[4]["use_low"] > 0.1
    assert use[8]["use"] == 0.0
    assert result.summary[0]["use"] == {"tokens": 4, "at_least": False}
    assert result.verdict == "net feels a single token 4 tokens later, and uses it up to 4 tokens"


def test_other_tokens_are_as_frequent(tokenizer):
    text = "a" * 100 + "b" * 40 + "c" * 33 + "d" * 10 + "e" * 9 + "f" * 8 + "g"
    others = Replacements(documents(tokenizer, [text]), tokenizer)
    ids = np.repeat(tokenizer.encode(text[:1] + "bdg"), 50)
    drawn = others.draw(ids, np.random.default_rng(0)).reshape(4, -1)
    found = ["".join(sorted({tokenizer.decode([i]) for i in row})) for row in drawn.tolist()]
    assert found == ["bc", "ac", "ef", "def"]
    assert not Replacements(documents(tokenizer, ["aaa"]), tokenizer).possible


def test_short_documents_have_few_lags_and_too_short_ones_none(tokenizer):
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=6, embedding=4))
    data = ProbeData(tuple(letters(20, seed) for seed in range(30)))
    result = Influence().run([subject(model, tokenizer)], data, Influence.Settings())
    assert max(row["lag"] for row in result.rows) == 16
    assert all(row["low"] <= row["value"] <= row["high"] for row in result.rows)
    short = Influence().run([subject(model, tokenizer)], ProbeData(("ab",)), Influence.Settings())
    assert short.rows == []
    assert "too short" in short.verdict
