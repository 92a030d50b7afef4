"""What an opener adds, for models whose memory is known."""

import itertools
import math

import numpy as np
import pytest
import torch

from lmcli.evaluation.probes.base import bucket_bound
from lmcli.evaluation.probes.closing.cases import SimilarTokens, find_token_pairs
from lmcli.evaluation.probes.closing.probe import Closing, ClosingSettings, gains
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.grammars.brackets import Brackets, BracketsSettings
from lmcli.models.base import LanguageModel
from lmcli.models.gru import GRU
from lmcli.models.ngram.model import NGram
from lmcli.models.window import Window
from lmcli.tokenizers.char import CharTokenizer

N = 4
SEEN, UNSEEN = 3.0, -2.0
"""logit of a closer while something is open, and else"""


@pytest.fixture(scope="module")
def texts():
    grammar = Brackets(BracketsSettings(size="small"))
    return tuple(d + "\n" for d in itertools.islice(grammar.documents(), 800))


@pytest.fixture(scope="module")
def tokenizer(texts):
    return CharTokenizer.train(texts, CharTokenizer.Settings())


class Depth(LanguageModel):
    """Counts what is open, and expects a closer as long as something is."""

    def __init__(self, tokenizer, memory=True):
        super().__init__(tokenizer.size, None)
        self.marks = tokenizer.encode("()").tolist()
        self.memory = memory

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        opener, closer = self.marks
        steps = (tokens == opener).float() - (tokens == closer).float()
        sums = state[0] + steps.cumsum(1)
        depth = sums - sums.cummin(1).values.clamp(max=0)  # what was not opened does not close
        logits = torch.zeros(*tokens.shape, self.vocabulary)
        known = (depth > 0) & self.memory
        logits[..., closer] = torch.where(known, torch.tensor(SEEN), torch.tensor(UNSEEN))
        return logits, (depth[:, -1:],)

    def flops_per_token(self):
        return 1


def subject(model, tokenizer, name="net"):
    return ProbedModel(name, name, model.eval(), tokenizer, lambda: model)


def probe(models, texts, tokenizer, **settings):
    subjects = [subject(model, tokenizer, name) for name, model in models.items()]
    found = ClosingSettings(**{"pairs": 40, "longest": 128} | settings)
    return Closing().run(subjects, ProbeData(texts, texts), found)


def test_who_counts_what_is_open_gains_at_all_gaps_and_who_does_not_nowhere(texts, tokenizer):
    models = {"counts": Depth(tokenizer), "blind": Depth(tokenizer, memory=False)}
    result = probe(models, texts, tokenizer)
    rest = tokenizer.size - 1
    p = [z - math.log(rest + math.exp(z)) for z in (SEEN, UNSEEN)]
    gaps = {"counts": [], "blind": []}
    for row in result.rows:
        exact = p[0] - p[1] if row["run"] == "counts" else 0.0
        for end in ("value", "low", "high"):
            assert row[end] == pytest.approx(exact, abs=1e-5)
        assert row["control"] == row["control_low"] == row["control_high"] == 0.0
        gaps[row["run"]].append(row["gap"])
    assert gaps["counts"] == gaps["blind"] == [1, 2, 4, 8, 16, 32, 64, 128]
    reaches = [row["reach"] for row in result.summary]
    assert reaches == [{"tokens": 65, "at_least": True}, {"tokens": 0, "at_least": False}]
    assert result.verdict == (
        "counts knows what is open at least 65 tokens after its opener; "
        "blind is not shown to know what is open"
    )
    assert result.notes[1].startswith("in the text: ")
    assert result.figures[0].ticks == ["1", "2", "4", "8", "16", "32", "64", "128"]


@pytest.mark.parametrize("name", ["ngram", "window"])
def test_beyond_its_window_an_opener_does_exactly_nothing(texts, tokenizer, name):
    torch.manual_seed(0)
    model = Window(tokenizer.size, Window.Settings(window=N, hidden=16, embedding=6))
    if name == "ngram":
        model = NGram(tokenizer.size, NGram.Settings(order=N + 1))
        ids = [np.concatenate([[tokenizer.start], tokenizer.encode(text)]) for text in texts]
        model.fit_counts(np.concatenate(ids))
    result = probe({name: model}, texts, tokenizer)
    for row in result.rows:
        seen = row["gap_from"] < N  # an opener g tokens before is g + 1 back
        assert (row["value"] != 0) == seen
        if not seen:
            assert row["low"] == row["high"] == row["control"] == row["control_high"] == 0.0
    if name == "ngram":
        assert result.summary[0]["reach"] == {"tokens": 3, "at_least": False}
        assert all(row["over_control_low"] > 0 for row in result.rows[:3])


def test_each_gain_is_that_of_two_texts_read_from_the_beginning(tokenizer):
    """Documents so short that all of them is read."""
    torch.manual_seed(0)
    model = GRU(tokenizer.size, GRU.Settings(hidden=8, embedding=4)).eval()
    texts = ["ab(cde)f", "(a)bc", "cab(d(e)f)(abcdefab)"]
    rng = np.random.default_rng(0)
    similar = SimilarTokens([tokenizer.encode("abcdefgh" * 3)], tokenizer)
    found, _, _ = find_token_pairs(tokenizer, texts, 100)
    cases = [similar.exchange(pair, rng) for pair in found]
    d, control = gains(model, cases)

    def log_p(ids, pair):
        with torch.no_grad():
            read = torch.from_numpy(ids[None, : pair.closer])
            logits, _ = model(read, model.initial_state(1))
        return float(logits[0, -1].double().log_softmax(-1)[ids[pair.closer]])

    for case, gain, away in zip(cases, d, control, strict=True):
        pair = case.pair
        other, word = pair.ids.copy(), pair.ids.copy()
        other[pair.opener : pair.between] = case.others
        assert gain == pytest.approx(log_p(pair.ids, pair) - log_p(other, pair), abs=5e-5)
        if case.place is None:
            assert math.isnan(away)
            continue
        word[case.place] = case.word
        assert away == pytest.approx(log_p(pair.ids, pair) - log_p(word, pair), abs=5e-5)
    assert [case.place is None for case in cases] == [False, True, False, False]


def test_at_most_so_many_pairs_are_read_and_none_further_apart(texts, tokenizer):
    result = probe({"counts": Depth(tokenizer)}, texts, tokenizer, pairs=25, longest=20)
    assert max(row["gap"] for row in result.rows) == bucket_bound(20)
    assert all(row["count"] <= 25 for row in result.rows)


def test_a_text_with_few_pairs_says_so(tokenizer):
    net = subject(Depth(tokenizer), tokenizer)
    few = ProbeData(("abc (d) ef\n" * 5,))
    said = "pairs of brackets, quotation marks or tags: 5, too few for closing"
    assert Closing().applies(net, few, ClosingSettings()) == said
    empty = ProbeData(("ab()\n" * 50, "ab()\n"))
    assert Closing().applies(net, empty, ClosingSettings()) is None
    result = Closing().run([net], empty, ClosingSettings())
    assert result.rows == []
    assert "too few" in result.verdict
