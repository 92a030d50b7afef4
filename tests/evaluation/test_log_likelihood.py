"""Scores: every token once given all before it, whatever way the text is read; sums by hand."""

import numpy as np
import pytest
import torch

from lmcli.evaluation import log_likelihood
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.perplexity import score_documents
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS

V = 7
every_architecture = pytest.mark.parametrize("name", [*MODELS.names(), "lstm softmax=adaptive"])


@torch.no_grad()
def naive_nats(model, ids, tokenizer=None):
    """-ln p of every id but the first, one token at a time; 0 for start ids.

    With a tokenizer that has an unknown rate: unknown tokens have that chance.
    """
    rate = tokenizer.unknown_rate if tokenizer else None
    state, nats = model.initial_state(1), []
    for token, target in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        logits, state = model(torch.tensor([[token]]), state)
        row = logits[0, 0].double()
        if rate is not None:
            p = row.softmax(0) * (1 - rate) / (1 - row.softmax(0)[tokenizer.unknown])
            p[tokenizer.unknown] = rate
            row = p.log()
        nats.append(0.0 if target == model.start_id else float(row.logsumexp(0) - row[target]))
    return np.array(nats)


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 8 tokens, so that a short text is read in many rows."""
    monkeypatch.setattr(log_likelihood, "CHUNK", 8)


# ------------------------------------------------------------------ one token at a time


@pytest.mark.usefixtures("short_chunks")
@every_architecture
@pytest.mark.parametrize("start_every", [0, 37], ids=["one document", "many documents"])
def test_reading_side_by_side_is_reading_one_token_at_a_time(build, stream, name, start_every):
    model, ids = build(name), stream(601, V, 3, start_every)
    right = naive_nats(model, ids)
    for rows in (1, 2, 3, 8, 18, 32):
        found = stream_nats(model, ids, rows)
        assert found == pytest.approx(right, abs=2e-5), rows
        assert found.sum(dtype=np.float64) == pytest.approx(right.sum(), rel=1e-6)


@pytest.mark.usefixtures("short_chunks")
def test_a_model_that_never_forgets_is_read_exactly(build, stream):
    model = build("lstm", V, forget_bias=20)
    with torch.no_grad():
        model.layers[0].recurrent_weight.zero_()  # the cell adds up and never comes back
        model.layers[0].bias[:12] = -2
        model.output.weight.mul_(3)
    ids = stream(601, V, 3)
    right = naive_nats(model, ids)
    cold = naive_nats(model, np.append(V, ids[301:]).astype(np.uint16))
    assert np.abs(cold[-200:] - right[-200:]).max() > 0.01  # a cold start would show to the end
    for rows in (1, 2, 5, 18):
        assert stream_nats(model, ids, rows) == pytest.approx(right, abs=1e-4)


def test_a_text_is_read_few_times_however_long_a_cell_keeps_what_it_holds(build, stream):
    model, ids, work = build("lstm", V, forget_bias=20), stream(40_000, V, 3), 0
    with torch.no_grad():
        model.layers[0].recurrent_weight.zero_()  # the cell adds up and never comes back
        model.layers[0].bias[:12] = -2
    read = model.log_probabilities

    def counted(tokens, *more):
        nonlocal work
        work += tokens.numel()
        return read(tokens, *more)

    model.log_probabilities = counted
    stream_nats(model, ids)
    assert 2 * len(ids) < work < 5 * len(ids)  # with 32 rows 16 times


class Counter(LanguageModel):
    """Its state is how many tokens came before: no two places of a text share one."""

    name = "counter"

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def forward(self, tokens, state, tap=None):
        places = state[0] + torch.arange(1, tokens.shape[1] + 1)  # (B, T)
        logits = torch.zeros(*tokens.shape, self.vocabulary)
        logits[..., 0] = torch.sin(places)
        return logits, (places[:, -1:],)

    def flops_per_token(self):
        return 1


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("rows", [1, 2, 7, 18])
def test_a_state_that_never_meets_itself_is_handed_on_through_all_rows(rows):
    model, ids = Counter(2, None), np.zeros(602, np.uint16)
    places = np.arange(1, 602)
    right = np.log(np.exp(np.sin(places)) + 1) - np.sin(places)
    assert stream_nats(model, ids, rows) == pytest.approx(right, abs=1e-5)


@every_architecture
def test_a_rough_reading_comes_close(build, stream, name):
    model, ids = build(name), stream(20_000, V, start_every=900)
    exact, rough = (stream_nats(model, ids, 8, rough).sum() for rough in (False, True))
    assert rough == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 9, 130])
def test_texts_of_any_length_are_scored(build, stream, length):
    model, ids = build("gru"), stream(130, V)[:length]
    assert stream_nats(model, ids) == pytest.approx(naive_nats(model, ids), abs=1e-5)


def test_scoring_leaves_no_trace_in_the_model(build, stream):
    model = build("gru", V, dropout=0.5)
    for training in (True, False):
        model.train(training)
        random = torch.get_rng_state()
        first = stream_nats(model, stream(300, V))
        assert np.array_equal(first, stream_nats(model, stream(300, V)))
        assert model.training is training
        assert torch.equal(torch.get_rng_state(), random)
        assert all(p.grad is None for p in model.parameters())


@every_architecture
def test_the_number_of_rows_moves_the_sum_by_less_than_a_millionth(build, stream, name):
    model, ids = build(name), stream(20_000, V)
    sums = [stream_nats(model, ids, rows).sum(dtype=np.float64) for rows in (1, 4, 32)]
    assert sums[1:] == pytest.approx([sums[0]] * 2, rel=1e-6)


# ------------------------------------------------------------------ texts


PIECES = ["Anna grew up in France .\nshe speaks Zulu .\n", "", "no one\n\nknows", "\n"]


@pytest.mark.parametrize("tokenizer_name", TOKENIZERS.names())
@pytest.mark.parametrize("reset", ["document", "line", "never"])
def test_pieces_are_scored_as_the_naive_loop_does(speaker, tokenizer_name, reset):
    model, tokenizer = speaker(tokenizer_name)
    scored = score_documents(model, tokenizer, PIECES, reset)
    pieces = PIECES
    if reset == "line":
        pieces = [line for piece in PIECES for line in piece.splitlines(keepends=True)]
    assert [s.text for s in scored] == pieces
    before = []
    for one in scored:
        ids = tokenizer.encode(one.text)
        right = naive_nats(model, np.array([tokenizer.start, *before, *ids]), tokenizer)
        right = right[len(before) :]
        assert one.ids.tolist() == ids.tolist()
        assert one.nats == pytest.approx(right, abs=1e-5)
        before = [*before, *ids] if reset == "never" else []
