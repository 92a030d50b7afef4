"""Sampling: draws follow the model, filters do what they say, text streams and stops exactly."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import UsageError
from lmcli.generation.sampling import (
    MAX_BATCH,
    MAX_LOGITS,
    GenerationStats,
    SamplingSettings,
    StopStrings,
    batch_size,
    in_order,
    sample_batch,
    sample_tokens,
    truncate_distribution,
)
from lmcli.models.base import LanguageModel
from lmcli.registry import NUMPY_MODELS
from lmcli.tokenizers.byte import ByteTokenizer
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer

WARM = SamplingSettings(temperature=1.0)
COLD = SamplingSettings(temperature=0.0)


class Bigram(LanguageModel):
    """Logits by the last token: what is expected can be read off the table."""

    name = "bigram"

    def __init__(self, table):
        super().__init__(table.shape[1], None)
        self.table = torch.as_tensor(table, dtype=torch.float32)  # (V + 1, V)

    def initial_state(self, batch):
        return (torch.zeros(batch, 1),)

    def forward(self, tokens, state, recorder=None):
        return self.table[tokens], state

    def flops_per_token(self):
        return 1


def follows(tokenizer, pairs, otherwise):
    """A model that knows what comes behind a symbol, and says `otherwise` behind all others."""
    table = np.full((tokenizer.size + 1, tokenizer.size), -50.0)
    ids = {tokenizer.symbol(i): i for i in range(tokenizer.size)} | {"start": tokenizer.start}
    table[:, ids[otherwise]] = 0
    for before, behind in pairs.items():
        table[ids[before]] = -50
        table[ids[before], ids[behind]] = 0
    return Bigram(table)


def sample(model, tokenizer, prompt, length, settings, seed, stops=(), end="", sampled=None):
    """The chunks of one text."""
    stats = None if sampled is None else [sampled]
    chunks = sample_batch(model, tokenizer, prompt, length, settings, [seed], stops, end, stats)
    return (text for _, text, _ in chunks if text)


def softmax(logits):
    p = np.exp(logits - logits.max())
    return p / p.sum()


def characters(text):
    return CharTokenizer.train([text], CharTokenizer.Settings())


def words(text):
    return WordTokenizer.train([text], WordTokenizer.Settings())


# ------------------------------------------------------------------ one draw


def draw(logits, settings, rng):
    """One token with the next number of a generator."""
    return sample_tokens(np.array([logits], np.float64), settings, np.array([rng.random()]))[0]


def naive_filter(p, top_k, top_p, min_p):
    """Token by token, likeliest first."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if top_k is not None:
        order = order[: max(1, top_k)]
    if top_p is not None:
        total, kept, reached = sum(p[i] for i in order), [], 0.0
        for i in order:
            if kept and reached >= top_p * total:
                break
            kept.append(i)
            reached += p[i]
        order = kept
    if min_p is not None:
        order = [i for i in order if p[i] >= min_p * max(p)]
    return [p[i] if i in order else 0.0 for i in range(len(p))]


tables = st.lists(st.integers(1, 4), min_size=1, max_size=9).map(lambda n: np.array(n) / 32)


@given(
    p=tables,
    top_k=st.none() | st.integers(0, 10),
    top_p=st.none() | st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0]),
    min_p=st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_filters_keep_what_the_naive_loop_keeps(p, top_k, top_p, min_p):
    found = truncate_distribution(p, SamplingSettings(1.0, top_k, top_p, min_p))
    assert found.tolist() == naive_filter(p.tolist(), top_k, top_p, min_p)
    assert found[p.argmax()] > 0  # the likeliest always stays


def test_filters_by_hand():
    p = np.array([0.1, 0.4, 0.2, 0.3])
    assert truncate_distribution(p, SamplingSettings(top_k=2)).tolist() == [0, 0.4, 0, 0.3]
    assert truncate_distribution(p, SamplingSettings(top_p=0.6)).tolist() == [0, 0.4, 0, 0.3]
    assert truncate_distribution(p, SamplingSettings(top_p=0.75)).tolist() == [0, 0.4, 0.2, 0.3]
    assert truncate_distribution(p, SamplingSettings(min_p=0.5)).tolist() == [0, 0.4, 0.2, 0.3]
    assert truncate_distribution(p, SamplingSettings(top_k=3, min_p=0.6)).tolist() == [
        0,
        0.4,
        0,
        0.3,
    ]
    assert truncate_distribution(p, SamplingSettings()).tolist() == p.tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_probabilities(temperature):
    logits = np.log(np.array([0.5, 0.05, 0.25, 0.15, 0.05]))
    p = softmax(logits) ** (1 / temperature)
    p /= p.sum()
    rng = np.random.default_rng(0)
    settings = SamplingSettings(temperature)
    counts = np.bincount([draw(logits, settings, rng) for _ in range(20_000)], minlength=5)
    assert ((counts - 20_000 * p) ** 2 / (20_000 * p)).sum() < 18.5  # chi², 4 degrees, p = 0.001


def test_temperature_zero_takes_the_likeliest():
    assert draw(np.array([0.1, 3.0, 2.9]), COLD, np.random.default_rng(0)) == 1


@pytest.mark.parametrize("temperature", [1e-6, 1e-300])
def test_near_temperature_zero_nothing_overflows(temperature):
    logits = np.array([-np.inf, 3.0, 2.9, 1e4])
    settings = SamplingSettings(temperature)
    assert draw(logits, settings, np.random.default_rng(0)) == 3


@given(
    weights=st.lists(st.floats(1e-9, 1), min_size=2, max_size=12),
    number=st.sampled_from([0.0, 0.5, math.nextafter(1, 0)]),
    top_k=st.integers(1, 12),
)
def test_what_is_filtered_out_is_never_drawn_whatever_the_random_number(weights, number, top_k):
    logits, settings = np.log(weights), SamplingSettings(1.0, top_k=top_k)
    rng = SimpleNamespace(random=lambda: number)
    token = draw(logits, settings, rng)
    assert truncate_distribution(softmax(logits), settings)[token] > 0


# ------------------------------------------------------------------ stop strings


def naive_stop(text, stops):
    """Character by character: the text before the first stop string that is complete."""
    for end in range(len(text) + 1):
        ending = [s for s in stops if s and text[:end].endswith(s)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def strings(longest):
    """All texts of the letters a and b up to a length."""
    for length in range(1, longest + 1):
        yield from map("".join, itertools.product("ab", repeat=length))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_text_ends_before_the_first_stop_string_however_it_is_cut(size):
    stop_lists = [(), *itertools.combinations_with_replacement(["", *strings(3)], 2)]
    for text, stops in itertools.product(strings(6), stop_lists):
        gate, out = StopStrings(stops), ""
        for begin in range(0, len(text), size):
            out += gate.push(text[begin : begin + size])
            # no more is held back than must be
            assert len(gate.held) < max(1, *map(len, stops), 1)
            if gate.stopped:
                break
        else:
            out += gate.finish()
        assert (out, gate.stopped) == naive_stop(text, stops), (text, stops)


@pytest.mark.parametrize("stops", [("ef",), ("zz", "d e"), ("d ef gh",)])
def test_a_stop_string_across_tokens_is_found_and_not_shown(stops):
    tokenizer = words("ab cd ef gh")
    pairs = {"start": "ab", "ab": "cd", "cd": "ef", "ef": "gh", "gh": "ab"}
    model = follows(tokenizer, pairs, "ab")
    out = "".join(sample(model, tokenizer, "", 40, COLD, 0, stops))
    whole = "".join(sample(model, tokenizer, "", 40, COLD, 0))
    assert whole.startswith("ab cd ef gh ab")
    assert out == naive_stop(whole, stops)[0]


def test_what_was_held_back_for_nothing_comes_at_the_end():
    tokenizer = characters("abc")
    model = follows(tokenizer, {"start": "a", "a": "b", "b": "a"}, "a")
    assert "".join(sample(model, tokenizer, "", 4, COLD, 0, ("abx", "bc"))) == "abab"


# ------------------------------------------------------------------ a stream of text


def test_a_stream_follows_the_models_probabilities():
    tokenizer = characters("abc")
    p = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    model = Bigram(np.log(p[[0, 1, 2, 0, 1]]))
    text = "".join(sample(model, tokenizer, "", 6000, WARM, 1))
    pairs = np.zeros((4, 4))
    for before, behind in itertools.pairwise(tokenizer.encode(text).tolist()):
        pairs[before, behind] += 1
    for row in (1, 2, 3):
        expected = p[[0, 1, 2, 0]][row, 1:]
        expected = pairs[row].sum() * expected / expected.sum()  # nothing unknown is drawn
        assert ((pairs[row, 1:] - expected) ** 2 / expected).sum() < 13.8  # 2 degrees, 0.001
    assert pairs[0].sum() == 0


def test_the_unknown_symbol_is_never_drawn_however_likely():
    for tokenizer, settings in itertools.product((characters("ab"), words("a b")), (WARM, COLD)):
        table = np.zeros((tokenizer.size + 1, tokenizer.size))
        table[:, tokenizer.unknown] = 30
        text = "".join(sample(Bigram(table), tokenizer, "", 50, settings, 0))
        assert tokenizer.unknown not in tokenizer.encode(text)
        assert len(tokenizer.encode(text)) > 0


def test_the_same_seed_is_the_same_text(build):
    tokenizer = characters("abcdefg")
    model = build("gru", tokenizer.size)
    made = ["".join(sample(model, tokenizer, "ab", 60, WARM, seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("length", [1, 7, 50])
def test_length_is_counted_in_tokens(build, length):
    tokenizer = characters("abcdefg")
    sampled = GenerationStats()
    text = "".join(
        sample(build("rnn", tokenizer.size), tokenizer, "ab", length, WARM, 0, sampled=sampled)
    )
    assert len(text) == sampled.tokens == length


def test_length_zero_goes_on_without_end(build):
    tokenizer = characters("abcdefg")
    pieces = sample(build("rnn", tokenizer.size), tokenizer, "", 0, WARM, 0)
    assert len("".join(itertools.islice(pieces, 3000))) == 3000


@pytest.mark.parametrize("name", ["gru", "ngram", "window"])
def test_what_is_counted_is_the_surprise_of_the_model_itself(build, name):
    tokenizer = characters("abcdefg")
    model, sampled = build(name, tokenizer.size), GenerationStats()
    settings = SamplingSettings(0.5, top_k=3)
    text = "".join(sample(model, tokenizer, "abc", 40, settings, 0, sampled=sampled))
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode("abc" + text)]])
    targets = ids[:, 1:].clone()
    targets[:, :3] = -1
    with torch.no_grad():
        logs, _ = model.log_probabilities(ids[:, :-1], targets, model.initial_state(1))
    assert sampled.nats == pytest.approx(-logs.sum().item(), rel=1e-4)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 1300])
def test_a_prompt_of_any_length_is_read_to_its_end(build, length):
    tokenizer = characters("abcdefg")
    model = build("lstm", tokenizer.size)
    with torch.no_grad():
        model.output.weight.mul_(5)
    prompt = "".join(np.random.default_rng(0).choice(list("abcdefg"), length))
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode(prompt)]])
    with torch.no_grad():
        logits = model(ids, model.initial_state(1))[0][0, -1]
    logits[tokenizer.unknown] = -math.inf
    first = "".join(sample(model, tokenizer, prompt, 1, COLD, 0))
    assert tokenizer.encode(first).tolist() == [logits.argmax().item()]


def test_what_is_made_is_joined_to_the_prompt_as_text_would_be():
    tokenizer = words("he said , yes . no ( maybe )")
    pairs = {"start": "he", "he": "said", "said": ",", ",": "yes", "yes": "."}
    model = follows(tokenizer, pairs, "he")
    for prompt, right in (("", "he said, yes."), ("he", " said, yes."), ("he said", ", yes.")):
        length = len(tokenizer.encode(right if prompt else "he said, yes."))
        made = "".join(sample(model, tokenizer, prompt, length, COLD, 0))
        ids = tokenizer.encode(prompt).tolist() + tokenizer.encode(made.lstrip()).tolist()
        assert tokenizer.decode(ids) == prompt + made


def test_bytes_stream_as_whole_characters_and_half_ones_at_the_end_show():
    tokenizer = ByteTokenizer()
    table = np.full((257, 256), -50.0)
    for before, behind in itertools.pairwise([256, 0xE2, 0x82, 0xAC, 0xC3]):
        table[before, behind] = 0
    table[0xC3, 0xA9] = 0  # €é and then é without end
    table[0xA9, 0xC3] = 0
    pieces = list(sample(Bigram(table), tokenizer, "", 8, COLD, 0))
    assert pieces == ["€", "é", "é", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("end", ["\n", "\n\n"])
def test_behind_a_documents_end_a_new_one_begins(end):
    tokenizer = characters("ab\n")
    pairs = {"start": "a", "a": "\\n", "b": "\\n"}
    model = follows(tokenizer, pairs, "b")  # behind a line end: b, unless a document begins
    if end == "\n\n":
        table = model.table.clone()
        newline = tokenizer.encode("\n")[0]
        table[newline] = -50
        table[newline, newline] = 0
        model = Bigram(table)
    one = "a" + end
    assert "".join(sample(model, tokenizer, "", 12, COLD, 0, end=end)) == (one * 12)[:12]
    without = "".join(sample(model, tokenizer, "", 12, COLD, 0))
    assert without == ("a\nb\nb\nb\nb\nb\n" if end == "\n" else "a" + "\n" * 11)


def test_leaving_the_loop_stops_the_work(build):
    tokenizer = characters("abcdefg")
    sampled = GenerationStats()
    pieces = sample(build("rnn", tokenizer.size), tokenizer, "", 0, WARM, 0, sampled=sampled)
    next(pieces)
    pieces.close()
    assert sampled.tokens == 1


# ------------------------------------------------------------------ several texts at once


@pytest.fixture
def numpy_models(build):
    """``numpy_models("gru", 8)``: a NumPy model and the small model of its weights."""

    def make(name, vocabulary):
        model = build(name, vocabulary)
        tensors = {key: tensor.numpy() for key, tensor in model.tensors().items()}
        return NUMPY_MODELS.load(name)(vocabulary, model.settings, tensors), model

    return make


def together(model, tokenizer, *arguments, **more):
    """The texts, each as its pieces; a text ends once, and behind its end nothing comes."""
    texts = {}
    for number, piece, last in sample_batch(model, tokenizer, *arguments, **more):
        pieces = texts.setdefault(number, [])
        assert None not in pieces
        pieces += [piece, None] if last else [piece]
    return ["".join(texts[i][:-1]) for i in sorted(texts)]


@given(
    rows=st.integers(1, 5),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_k=st.none() | st.integers(1, 4),
    min_p=st.none() | st.just(0.3),
)
def test_tokens_chosen_together_are_those_chosen_alone(rows, temperature, top_k, min_p):
    rng = np.random.default_rng(rows)
    logits, numbers = rng.normal(size=(rows, 9)), rng.random(rows)
    settings = SamplingSettings(temperature, top_k, min_p=min_p)
    alone = [
        draw(row, settings, SimpleNamespace(random=lambda n=n: n))
        for row, n in zip(logits, numbers, strict=True)
    ]
    assert sample_tokens(logits.copy(), settings, numbers) == alone


def test_a_text_is_drawn_with_the_numbers_of_its_seed_one_by_one():
    tokenizer = characters("abc")
    table = np.random.default_rng(0).normal(size=(5, 4))
    rng, last, expected = np.random.default_rng(7), tokenizer.start, ""
    table[:, tokenizer.unknown] = -np.inf
    for _ in range(700):
        last = draw(table[last].astype(np.float32), WARM, rng)
        expected += tokenizer.decode([last])
    table[:, tokenizer.unknown] = 0
    assert "".join(sample(Bigram(table), tokenizer, "", 700, WARM, 7)) == expected


@pytest.mark.parametrize("name", ["lstm", "ngram", "window", "mingru"])
@pytest.mark.parametrize(
    ("stops", "end"), [((), ""), (("ab", "g"), ""), ((), "c"), (("gg", "dac"), "d")]
)
def test_texts_made_together_are_those_made_alone_by_numpy_model_and_by_torch(
    numpy_models, name, stops, end
):
    tokenizer = characters("abcdefg")
    numpy_model, model = numpy_models(name, tokenizer.size)
    seeds = [3, 4, 9, 1]
    alone = ["".join(sample(model, tokenizer, "fa", 50, WARM, seed, stops, end)) for seed in seeds]
    for maker in (numpy_model, model):
        assert together(maker, tokenizer, "fa", 50, WARM, seeds, stops, end) == alone
        assert together(maker, tokenizer, "fa", 50, WARM, seeds[1:2], stops, end) == alone[1:2]
    assert len(set(alone)) > 1
    assert not stops or len({len(text) for text in alone}) > 1


def test_each_of_several_texts_is_counted_alone(numpy_models):
    tokenizer = characters("abcdefg")
    numpy_model, model = numpy_models("gru", tokenizer.size)
    counted = [GenerationStats(), GenerationStats(), GenerationStats()]
    texts = together(numpy_model, tokenizer, "", 30, WARM, [1, 2, 3], ("a",), sampled=counted)
    for seed, text, found in zip((1, 2, 3), texts, counted, strict=True):
        alone = GenerationStats()
        assert "".join(sample(model, tokenizer, "", 30, WARM, seed, ("a",), "", alone)) == text
        assert found.tokens == alone.tokens
        assert found.nats == pytest.approx(alone.nats, rel=1e-5)


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=2)), max_size=30))
def test_texts_made_in_turns_come_one_after_another(made):
    pieces = [(number, text, False) for number, text in made]
    pieces += [(number, "", True) for number in (2, 0, 3, 1)]
    texts = [""]
    for text, last in in_order(pieces, 4):
        texts[-1] += text
        texts += [""] * last
    assert texts == ["".join(t for m, t in made if m == n) for n in range(4)] + [""]


def test_the_first_of_several_texts_does_not_wait_for_the_others():
    pieces = iter([(1, "x", False), (0, "a", False), (0, "b", False), (1, "y", True)])
    shown = in_order(pieces, 2)
    assert next(shown) == ("a", False)
    assert next(shown) == ("b", False)
    assert next(pieces) == (1, "y", True)


def test_how_many_texts_are_made_at_once():
    assert batch_size(1, 500, 65) == 1
    assert batch_size(9, 500, 65) == 9
    assert batch_size(1000, 500, 65) == MAX_BATCH
    assert batch_size(9, 0, 65) == 1  # the others' text would have to be held for ever
    assert batch_size(64, 500, MAX_LOGITS // 2) == 2
    assert batch_size(64, 500, 2 * MAX_LOGITS) == 1


@pytest.mark.parametrize(
    ("values", "option", "bounds"),
    [
        ({"temperature": math.nan}, "--temperature nan", "a number from 0 on"),
        ({"temperature": -1.0}, "--temperature -1.0", "a number from 0 on"),
        ({"temperature": math.inf}, "--temperature inf", "a number from 0 on"),
        ({"top_p": 1.5}, "--top-p 1.5", "from 0 to 1"),
        ({"min_p": -0.1}, "--min-p -0.1", "from 0 to 1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_bounds(values, option, bounds):
    with pytest.raises(UsageError) as caught:
        SamplingSettings(**values)
    assert caught.value.problem == f"{option} is out of range"
    assert caught.value.hint == f"it must be {bounds}"


@pytest.mark.parametrize("temperature", [1e-320, 1e-201, 1e-199, 1e-10])
def test_the_coldest_temperatures_take_the_likeliest(temperature):
    settings = SamplingSettings(temperature)
    for rows in (1, 3):
        logits = np.tile([-3e38, 1.0, 2.5, -np.inf], (rows, 1))
        assert sample_tokens(logits, settings, np.full(rows, 0.999)) == [2] * rows
