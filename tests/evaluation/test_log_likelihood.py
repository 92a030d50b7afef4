"""Scores: every token once given all before it, whatever way the text is read; sums by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.evaluation import log_likelihood
from lmcli.evaluation.log_likelihood import score_documents, stream_nats
from lmcli.evaluation.score import Score, ScoredText, block_width, resample
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS

V = 7
every_architecture = pytest.mark.parametrize("name", [*MODELS.names(), "lstm softmax=adaptive"])


@torch.no_grad()
def naive_nats(model, ids):
    """-ln p of every id but the first, one token at a time; 0 for start ids."""
    state, nats = model.initial_state(1), []
    for token, target in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        logits, state = model(torch.tensor([[token]]), state)
        row = logits[0, 0].double()
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


@pytest.fixture(scope="module")
def speaker(build, france_documents):
    """A tokenizer by name with a model over it."""

    def make(tokenizer_name, arch="gru"):
        cls = TOKENIZERS.load(tokenizer_name)
        tokenizer = cls.train(iter(france_documents), cls.Settings())
        return build(arch, tokenizer.size), tokenizer

    return make


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
        right = naive_nats(model, np.array([tokenizer.start, *before, *ids]))[len(before) :]
        assert one.ids.tolist() == ids.tolist()
        assert one.nats == pytest.approx(right, abs=1e-5)
        before = [*before, *ids] if reset == "never" else []


@pytest.mark.parametrize("tokenizer_name", TOKENIZERS.names())
@given(pieces=st.lists(st.text("ab .\né"), min_size=1, max_size=4))
@settings(max_examples=40)
def test_lines_add_up_to_the_text(speaker, tokenizer_name, pieces):
    _, tokenizer = speaker(tokenizer_name)
    for text in pieces:
        encoded = tokenizer.encode_with_ends(text)
        nats = np.arange(1, len(encoded.ids) + 1, dtype=np.float32)
        whole = ScoredText(text, encoded.ids, encoded.ends, nats, tokenizer.unknown)
        lines = whole.lines()
        assert "".join(line.text for line in lines) == text
        assert all(line.text.endswith("\n") for line in lines[:-1])
        if text:
            assert np.concatenate([line.nats for line in lines]).tolist() == nats.tolist()
            assert np.concatenate([line.ids for line in lines]).tolist() == encoded.ids.tolist()
        for line in lines:
            assert all(0 <= end <= len(line.text) for end in line.ends)
            assert sum(end - begin for begin, end in line.spans()) == (
                line.ends[-1] if len(line.ends) else 0
            )


def scored(text, nats, ids=None, unknown=None):
    """A text of one token a character, with these nats."""
    ids = np.ones(len(text), np.int32) if ids is None else np.array(ids, np.int32)
    ends = np.arange(1, len(text) + 1)
    return ScoredText(text, ids, ends, np.array(nats, np.float32), unknown)


# ------------------------------------------------------------------ sums


def test_sums_are_those_counted_by_hand():
    texts = [scored("ab é", [1, 2, 3, 4], [5, 0, 5, 5], 0), scored("c d", [0.5, 0.25, 0.25])]
    score = Score.of(texts)
    assert (score.tokens, score.chars, score.bytes, score.words) == (7, 7, 8, 4)
    assert (score.nats, score.unknown_tokens, score.unknown_nats) == (11, 1, 2)
    assert score.nats_per_token == pytest.approx(11 / 7)
    assert score.perplexity == pytest.approx(math.exp(11 / 7))
    assert score.perplexity_without_unknown == pytest.approx(math.exp(9 / 6))
    assert score.bits_per_char == pytest.approx(11 / 7 / math.log(2))
    assert score.bits_per_byte == pytest.approx(11 / 8 / math.log(2))
    assert score.word_perplexity == pytest.approx(math.exp(11 / 4))
    assert texts[0].score().nats == 10


def test_characters_are_counted_whatever_a_token_holds():
    ids, ends = np.ones(2, np.int32), np.array([5, 8])
    score = Score.of([ScoredText("two toké", ids, ends, np.array([1, 2], np.float32), None)])
    assert (score.tokens, score.chars, score.bytes, score.words) == (2, 8, 9, 2)
    assert score.perplexity == pytest.approx(math.exp(3 / 2))
    assert score.bits_per_char == pytest.approx(3 / 8 / math.log(2))
    assert score.bits_per_byte == pytest.approx(3 / 9 / math.log(2))


def test_the_keys_of_the_json_are_those_of_the_contract():
    assert set(Score.of([scored("ab", [1, 2])]).to_json()) == {
        "tokens", "chars", "bytes", "words", "nats", "perplexity", "perplexity_without_unknown",
        "unknown_tokens", "bits_per_char", "bits_per_byte", "word_perplexity", "standard_error",
    }  # fmt: skip


def test_rates_of_nothing_are_not_a_number_and_too_large_ones_infinite():
    empty = Score.of([scored("", [])])
    assert all(math.isnan(r) for r in (empty.perplexity, empty.bits_per_char, empty.standard_error))
    assert Score.of([scored("a", [1e4])]).perplexity == math.inf
    unknown = Score.of([scored("a", [1], [0], 0)])
    assert math.isnan(unknown.perplexity_without_unknown)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    score = Score.of([scored("x" * 1000, np.full(1000, math.log(65)))])
    assert score.perplexity == pytest.approx(65)
    assert score.bits_per_char == pytest.approx(math.log2(65))
    assert score.standard_error == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------ blocks and errors


def test_blocks_are_of_equal_width_but_the_last_and_hold_all_nats():
    rng = np.random.default_rng(0)
    nats = rng.random(12_345)
    score = Score.of([scored("x" * 5000, nats[:5000]), scored("y" * 7345, nats[5000:])])
    width = block_width(12_345)
    assert width == 246
    assert set(score.block_chars[:-1]) == {246}
    assert width <= score.block_chars[-1] < 2 * width
    assert score.block_chars.sum() == 12_345
    assert score.block_nats[3] == pytest.approx(nats[3 * width : 4 * width].sum(), rel=1e-6)
    assert score.block_nats.sum() == pytest.approx(score.nats)


@pytest.mark.parametrize(
    ("chars", "width"),
    [(0, 20), (999, 20), (5000, 100), (50_000, 1000), (1_000_000, 1000), (4_000_000, 2000)],
)
def test_blocks_have_about_a_thousand_characters(chars, width):
    assert block_width(chars) == width


def test_blocks_are_the_same_for_every_tokenizer(speaker, france_documents):
    pieces = [d + "\n" for d in france_documents[:30]]
    scores = [Score.of(score_documents(*speaker(name), pieces)) for name in TOKENIZERS.names()]
    assert len(scores[0].block_chars) > 10
    for score in scores[1:]:
        assert score.block_chars.tolist() == scores[0].block_chars.tolist()
        assert (score.chars, score.bytes, score.words) == (
            scores[0].chars,
            scores[0].bytes,
            scores[0].words,
        )


def test_a_token_belongs_to_the_block_in_which_it_ends():
    text = "x" * 40  # two blocks of 20
    ids, ends = np.ones(3, np.int32), np.array([20, 21, 40])
    nats = np.array([1, 2, 4], np.float32)
    score = Score.of([ScoredText(text, ids, ends, nats, None)])
    assert score.block_nats.tolist() == [1, 6]


def test_the_standard_error_of_independent_tokens_is_that_of_the_mean():
    rng = np.random.default_rng(1)
    nats = rng.exponential(size=200_000)
    score = Score.of([scored("x" * len(nats), nats)])
    right = nats.std(ddof=1) / math.sqrt(len(nats)) / math.log(2)
    assert score.standard_error == pytest.approx(right, rel=0.2)


def test_the_bootstrap_of_blocks_is_the_error_of_a_ratio_of_sums():
    rng = np.random.default_rng(2)
    sizes = rng.integers(500, 1500, size=400).astype(float)
    values = 2 * sizes + rng.normal(scale=30, size=400)
    right = (values - values.sum() / sizes.sum() * sizes).std(ddof=1) * 20 / sizes.sum()
    rates = resample(values, sizes)
    assert rates.std(ddof=1) == pytest.approx(right, rel=0.1)
    assert rates.mean() == pytest.approx(values.sum() / sizes.sum(), rel=1e-3)


def test_tokens_that_lean_on_each_other_make_the_error_larger():
    rng = np.random.default_rng(3)
    nats = np.repeat(rng.exponential(size=500), 400)  # 400 tokens alike
    score = Score.of([scored("x" * len(nats), nats)])
    as_if_independent = nats.std() / math.sqrt(len(nats)) / math.log(2)
    assert score.standard_error > 5 * as_if_independent


def test_the_same_text_has_the_same_error_every_time():
    nats = np.random.default_rng(4).random(5000)
    errors = {Score.of([scored("x" * 5000, nats)]).standard_error for _ in range(3)}
    assert len(errors) == 1
