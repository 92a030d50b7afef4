"""Pairs that return, for models that know what came after what, and for those that do not."""

import itertools
import random

import numpy as np
import pytest
import torch

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.forced_choice import score_words
from lmcli.evaluation.probes.copies import Copies, find_copies, gains, states_before
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.state_batches import advance, documents
from lmcli.models.base import LanguageModel
from lmcli.models.gru import GRU
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.registry import TOKENIZERS

N = 4
SYLLABLES = [c + v for c in "bdfgklmnprst" for v in "aeou"]
WORDS = [a + b for a in SYLLABLES[:36] for b in SYLLABLES[:36]]
GAPS = (2, 6, 12, 24, 48, 100)
SETTINGS = Copies.Settings(items=40, block=4000, fewest=12)


class Memory(LanguageModel):
    """Half of the probability goes to the word that came after the last one before, if one did.

    The other half is spread evenly, and a half that is not given goes to the unknown word. So a
    word that is not the one remembered costs the same whatever is remembered.
    """

    name = "memory"
    forgets = False

    def initial_state(self, batch):
        size = self.vocabulary + 1
        return torch.zeros(batch, size, dtype=torch.long), torch.full((batch, 1), self.start_id)

    def forward(self, tokens, state, recorder=None):
        (after, last), logits = state, []
        after = after.clone()
        for token in tokens.unbind(1):
            if not self.forgets:
                after.scatter_(1, last, token[:, None])
            last = token[:, None]
            p = torch.full((len(token), self.vocabulary + 1), 0.5 / self.vocabulary)
            p.scatter_add_(1, after.gather(1, last), torch.full_like(p[:, :1], 0.5))
            logits.append(p[:, :-1].log())
        return torch.stack(logits, dim=1), (after, last)

    def flops_per_token(self):
        return 1


class Amnesia(Memory):
    name = "amnesia"
    forgets = True


def planted(seed):
    """Random words; at each gap four pairs return, and four words return after another one."""
    draw = random.Random(seed)
    text = [draw.choice(WORDS) for _ in range(700)]
    free = iter(draw.sample(WORDS[150:], 144))
    places = iter(draw.sample(range(0, 590, 4), 48))
    for gap in GAPS:
        for copy in (True, False) * 4:
            a, b, c, t = next(free), next(free), next(free), next(places)
            text = [w if w != b else draw.choice(WORDS[:150]) for w in text]
            text[t : t + 2] = a, b
            text[t + gap + 1 : t + gap + 3] = a if copy else c, b
    return " ".join(text)


@pytest.fixture(scope="module")
def data():
    train = " ".join(random.Random(0).choices(WORDS, k=9_000))
    return ProbeData(tuple(planted(seed) for seed in range(1, 10)), (train,))


@pytest.fixture(scope="module")
def tokenizer(data):
    cls = TOKENIZERS.load("word")
    return cls.train(data.train, cls.Settings())


def subject(model, tokenizer):
    name = getattr(model, "name", "net")
    return ProbedModel(name, name, model.eval(), tokenizer, lambda: model)


@pytest.fixture(scope="module")
def result(data, tokenizer):
    torch.manual_seed(0)
    ngram = NGram(tokenizer.size, NGram.Settings(order=N + 1))
    ngram.fit_counts(encode_documents(tokenizer, data.train))
    window = Window(tokenizer.size, Window.Settings(window=N, hidden=8, embedding=4))
    models = [ngram, window, Memory(tokenizer.size, None), Amnesia(tokenizer.size, None)]
    return Copies().run([subject(model, tokenizer) for model in models], data, SETTINGS)


def rows_of(result, name):
    return [row for row in result.rows if row["run"] == name]


def test_who_knows_what_came_after_what_gains_at_all_gaps_and_nothing_at_the_controls(result):
    rows = rows_of(result, "memory")
    assert [row["gap"] for row in rows[:5]] == [8, 16, 32, 64, 128]
    for row in rows:
        assert row["value"] > row["low"] > 3.0
        assert row["control"] == row["control_low"] == row["control_high"] == 0.0
        assert row["association_low"] > 3.0
        assert row["count"] >= 12
        assert row["controls"] >= 8
    memory = next(row for row in result.summary if row["run"] == "memory")
    assert memory["copies"] == {"tokens": rows[-1]["shortest"], "at_least": True}
    assert rows[-1]["shortest"] > 64


def test_without_memory_nothing_is_gained_anywhere(result):
    for row in rows_of(result, "amnesia"):
        assert row["value"] == row["low"] == row["high"] == row["association"] == 0.0
    assert "amnesia shows no memory of which word came after which" in result.verdict


@pytest.mark.parametrize("name", ["ngram", "window"])
def test_beyond_its_window_a_model_gains_exactly_nothing(result, name):
    near, *beyond = rows_of(result, name)
    assert (near["value"] != 0.0) == (name == "window")  # an n-gram has never counted these words
    assert len(beyond) >= 3
    for row in beyond:
        assert row["shortest"] > N
        assert row["value"] == row["control"] == row["low"] == row["association_high"] == 0.0


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_where_words_are_spelt_a_gain_is_that_of_the_whole_word(data, name):
    cls = TOKENIZERS.load(name)
    settings = cls.Settings() if name == "char" else cls.Settings(vocabulary=300)
    tokenizer = cls.train(data.train, settings)
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=8, embedding=4)).eval()
    one = subject(model, tokenizer)
    small = ProbeData(data.held_out[:2], data.train)
    found = find_copies([one], small, Copies.Settings(items=3, block=2000), 0)
    gained, gaps = gains(one, found)
    streams = documents(tokenizer, found.blocks)
    for number, item in enumerate(found.items[:6]):
        text = found.blocks[item.block]
        between = text[item.cue : item.target]
        assert len(between.split()) == item.between
        kept = between if name == "char" else between.rstrip()
        assert gaps[number] == len(tokenizer.encode(kept))
        if name == "char":
            block, share = found.donors[found.which[number]]
            donor = streams[block][1 : int(share * len(streams[block]))]
            lefts = [text[: item.target], tokenizer.decode(donor) + between]
            real, foreign = score_words(model, tokenizer, lefts, [[item.word]] * 2)[:, 0]
            assert gained[number] == pytest.approx(real - foreign, abs=5e-5)


def test_copies_and_controls_are_what_they_are_said_to_be(data, tokenizer):
    found = find_copies([subject(Amnesia(tokenizer.size, None), tokenizer)], data, SETTINGS, 0)
    assert {item.copies for item in found.items} == {True, False}
    train = data.train[0].split()
    pairs = list(itertools.pairwise(train))
    for item in found.items[::9]:
        text = found.blocks[item.block]
        before, between = text[: item.cue].split(), text[item.cue : item.target].split()
        assert before[-1] == item.word
        assert item.word not in between
        assert len(between) == item.between
        assert (before[-2] == between[-1]) == item.copies
        assert pairs.count((between[-1], item.word)) <= 2
        words = [*before, *between]
        assert item.copies or (between[-1], item.word) not in itertools.pairwise(words)
        assert found.donors[found.which[found.items.index(item)]][0] != item.block


def test_states_are_those_of_reading_from_the_beginning():
    torch.manual_seed(0)
    model = GRU(9, GRU.Settings(hidden=5, embedding=4)).eval()
    rng = np.random.default_rng(0)
    streams = [rng.integers(9, size=n) for n in (40, 7, 90)]
    rows, places = [0, 2, 2, 1, 0, 2], [33, 80, 2, 6, 33, 9]
    read = {}
    for some, state in states_before(model, streams, rows, places):
        read |= dict(zip(some, state[0], strict=True))
    assert sorted(read) == list(range(len(rows)))
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        alone = advance(model, [streams[row][:place]], model.initial_state(1))
        assert torch.allclose(read[number], alone[0][0], atol=1e-6)


def test_too_few_pairs_and_no_training_text_are_said_in_one_line(data, tokenizer):
    one = subject(Amnesia(tokenizer.size, None), tokenizer)
    for held_out in ((), ("baba bebe",)):
        result = Copies().run([one], ProbeData(held_out, data.train), SETTINGS)
        assert result.rows == []
        assert result.verdict == "too few rare pairs of words return to tell: 0"
        assert "not at hand" in Copies().applies(one, ProbeData(held_out), SETTINGS)
