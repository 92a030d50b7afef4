"""Laws of looking inside: values are the cell's, losses the score's, and some units tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import LmcliError, TextError, UsageError
from lmcli.evaluation.activations import (
    CHUNK,
    Activations,
    auc,
    correlate,
    loss_difference,
    read_inside,
    read_only,
    record,
    within,
)
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.tokenizers.base import Tokenizer

TEXT = 'she said "go on" and he did . "why" ?\nnobody knew , "so" .\n'
Cell = Callable[[dict[str, Any], Any, list[Any]], tuple[dict[str, Any], list[Any]]]


def tokenizer_of(name: str, text: str = TEXT) -> Tokenizer:
    cls = TOKENIZERS.load(name)
    made: Tokenizer = cls.train([text], cls.Settings())
    return made


def model_of(name: str, vocabulary: int, **changes: Any) -> LanguageModel:
    """An untrained model whose biases and recurrent weights are not what they begin with."""
    torch.manual_seed(3)
    cls = MODELS.load(name)
    small = {k: v for k, v in {"hidden": 7, "embedding": 5}.items() if k in dir(cls.Settings())}
    model: LanguageModel = cls(vocabulary, replace(cls.Settings(), **small | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


# Gates


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm(w: dict[str, Any], x: Any, state: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Hochreiter and Schmidhuber's cell with forget gate, gate by gate."""
    h, c = state

    def total(gate: int) -> Any:
        rows = slice(gate * len(h), (gate + 1) * len(h))
        return w["input_weight"][rows] @ x + w["recurrent_weight"][rows] @ h + w["bias"][rows]

    values = {"input": sigmoid(total(0)), "forget": sigmoid(total(1))}
    values |= {"candidate": np.tanh(total(2)), "output": sigmoid(total(3))}
    values["cell"] = values["forget"] * c + values["input"] * values["candidate"]
    values["hidden"] = values["output"] * np.tanh(values["cell"])
    return values, [values["hidden"], values["cell"]]


def gru(w: dict[str, Any], x: Any, state: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Cho's unit as PyTorch has it, gate by gate."""
    (h,) = state
    r, z, n = (slice(i * len(h), (i + 1) * len(h)) for i in range(3))
    reset = sigmoid(w["input_weight"][r] @ x + w["recurrent_weight"][r] @ h + w["bias"][r])
    keep = sigmoid(w["input_weight"][z] @ x + w["recurrent_weight"][z] @ h + w["bias"][z])
    behind = w["recurrent_weight"][n] @ h + w["candidate_bias"]
    candidate = np.tanh(w["input_weight"][n] @ x + w["bias"][n] + reset * behind)
    hidden = (1 - keep) * candidate + keep * h
    values = {"reset": reset, "keep": keep, "candidate": candidate, "hidden": hidden}
    return values, [hidden]


def rnn(w: dict[str, Any], x: Any, state: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Elman's network."""
    hidden = np.tanh(w["input_weight"] @ x + w["recurrent_weight"] @ state[0] + w["bias"])
    return {"hidden": hidden}, [hidden]


def forward_unrolled(
    cell: Cell, parts: int, model: LanguageModel, pieces: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """All values behind every token, computed in float64 and NumPy from the saved weights."""
    saved = {k: v.double().numpy() for k, v in model.tensors().items()}
    layers = sorted({k.split(".")[1] for k in saved if k.startswith("layers.")})
    weights = [
        {k.split(".")[2]: v for k, v in saved.items() if k.startswith(f"layers.{n}.")}
        for n in layers
    ]
    width = saved["output.weight"].shape[1]
    found: dict[str, list[Any]] = {}
    for ids in pieces:
        states = [[np.zeros(width)] * parts for _ in layers]
        for place, token in enumerate([model.start_id, *ids]):
            x = saved["embed.weight"][token]
            for n, w in enumerate(weights):
                values, states[n] = cell(w, x, states[n])
                if place == 0:  # a start id leaves what its layer says, see `after_start`
                    x, states[n] = after_start(cell, w, x, values, width)
                else:
                    x = states[n][0]
                prefix = f"{n + 1}." if len(layers) > 1 else ""
                for name, value in values.items() if place else ():
                    found.setdefault(prefix + name, []).append(value)
    return {name: np.stack(rows) for name, rows in found.items()}


def after_start(
    cell: Cell, w: dict[str, Any], x: Any, values: dict[str, Any], width: int
) -> tuple[Any, list[Any]]:
    """What a document's start shows and leaves: all see x alone, and the lstm leaves h = c = 0."""
    if cell is lstm:
        return values["hidden"], [np.zeros(width), np.zeros(width)]
    rows = slice(2 * width, 3 * width) if cell is gru else slice(None)
    seen = np.tanh(w["input_weight"][rows] @ x + w["bias"][rows])
    return seen, [seen]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("name", "cell", "parts"), [("lstm", lstm, 2), ("gru", gru, 1), ("rnn", rnn, 1)]
)
def test_every_value_shown_is_that_of_the_cell_written_out(
    name: str, cell: Cell, parts: int, layers: int
) -> None:
    tokenizer = tokenizer_of("char")
    model = model_of(name, tokenizer.size, layers=layers)
    pieces = [TEXT[:40], TEXT[40:]]
    shown = read_inside(model, tokenizer, pieces).values
    expected = forward_unrolled(cell, parts, model, [tokenizer.encode(p).tolist() for p in pieces])
    assert list(shown) == list(expected)
    for gate, values in expected.items():
        assert values.shape == (len(TEXT), 7)
        np.testing.assert_allclose(shown[gate], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "window"])
def test_the_recorded_forward_is_the_fused_one(name: str) -> None:
    """The last layer's hidden values, through the output layer, give the losses of the score."""
    tokenizer = tokenizer_of("char")
    model = model_of(name, tokenizer.size)
    seen = read_inside(model, tokenizer, [TEXT])
    logits = torch.from_numpy(seen.values["hidden"]) @ model.output.weight.T + model.output.bias
    logs = logits[:, 1:].log_softmax(-1)[:-1].detach().numpy()  # of all but the unknown symbol
    ids = tokenizer.encode(TEXT)[1:]
    nats = -logs[np.arange(len(ids)), ids - 1] - np.log1p(-tokenizer.unknown_rate)
    np.testing.assert_allclose(nats, seen.nats[1:], rtol=0, atol=2e-6)


def test_a_long_text_is_read_in_chunks_without_a_seam() -> None:
    tokenizer = tokenizer_of("char")
    model = model_of("gru", tokenizer.size)
    text = 8 * TEXT
    assert len(text) > CHUNK + 50
    ids = tokenizer.encode(text).tolist()
    whole = forward_unrolled(gru, 1, model, [ids])
    for gate, values in record(model, [ids]).items():
        np.testing.assert_allclose(values, whole[gate], rtol=0, atol=1e-6)


def test_values_do_not_depend_on_what_comes_later() -> None:
    tokenizer = tokenizer_of("char")
    model = model_of("lstm", tokenizer.size)
    short, whole = (read_inside(model, tokenizer, [t]) for t in (TEXT[:20], TEXT))
    for gate, values in short.values.items():
        np.testing.assert_allclose(values, whole.values[gate][:20], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["char", "word", "byte", "bpe"])
def test_every_token_has_its_text_its_loss_and_its_values(kind: str) -> None:
    text = TEXT + "naïve “ü”\n"
    tokenizer = tokenizer_of(kind, text)
    seen = read_inside(model_of("lstm", tokenizer.size), tokenizer, [TEXT, text])
    assert "".join(seen.tokens) == TEXT + text
    count = len(tokenizer.encode(TEXT)) + len(tokenizer.encode(text))
    assert len(seen.tokens) == len(seen.nats) == count
    assert {values.shape for values in seen.values.values()} == {(count, 7)}


@pytest.mark.parametrize("name", [n for n in MODELS.names() if n != "ngram"])
def test_every_architecture_that_learns_by_descent_has_something_to_show(name: str) -> None:
    tokenizer = tokenizer_of("char")
    seen = read_inside(model_of(name, tokenizer.size), tokenizer, [TEXT[:20], TEXT[20:]])
    assert seen.values
    for gate, values in seen.values.items():
        assert len(values) == len(TEXT), gate
        assert np.isfinite(values).all(), gate


def test_what_the_model_has_never_seen_is_counted() -> None:
    tokenizer = tokenizer_of("char")
    assert read_inside(model_of("rnn", tokenizer.size), tokenizer, ["so € on ¥"]).unknown == 2


def test_an_architecture_without_units_says_so_and_can_be_compared() -> None:
    tokenizer = tokenizer_of("char")
    model = MODELS.load("ngram")(tokenizer.size, MODELS.load("ngram").Settings())
    model.fit_counts(np.append([tokenizer.start], tokenizer.encode(TEXT)))
    with pytest.raises(LmcliError, match="ngram has neither gates nor units") as caught:
        read_inside(model, tokenizer, [TEXT])
    assert "--versus" in caught.value.hint
    assert len(read_only(model, tokenizer, [TEXT]).nats) == len(TEXT)


def test_no_text_is_a_text_error() -> None:
    tokenizer = tokenizer_of("char")
    with pytest.raises(TextError, match="no text"):
        read_inside(model_of("rnn", tokenizer.size), tokenizer, [""])


# Choosing


def made(values: Any, text: str | None = None, gate: str = "cell") -> Activations:
    """An inspection with these values, a character a token."""
    array = np.asarray(values, np.float32)
    text = "x" * len(array) if text is None else text
    spans = [(i, i + 1) for i in range(len(text))]
    return Activations(text, spans, np.zeros(len(array)), 0, {gate: array})


def test_an_average_is_over_units_and_of_sizes() -> None:
    assert made([[0.2, 0.4], [-1.0, 0.5]]).average("cell").tolist() == pytest.approx([0.3, 0.75])


def test_the_most_telling_units_are_those_that_vary_most() -> None:
    seen = made([[0, 5, 1, 0], [0, 5, -1, 3], [0, 5, 1, 0]])
    assert seen.most_varying("cell", 2) == [3, 2]
    assert seen.most_varying("cell", 9) == [3, 2, 0, 1]


def test_a_gate_is_found_in_every_layer_and_a_wrong_one_is_met_with_a_hint() -> None:
    values = np.zeros((2, 1), np.float32)
    names = ("1.forget", "1.cell", "2.forget")
    seen = replace(made(values), values=dict.fromkeys(names, values))
    assert seen.matching("forget") == ["1.forget", "2.forget"]
    assert seen.matching("1.cell") == ["1.cell"]
    assert seen.matching(None) == list(names)
    with pytest.raises(UsageError, match="no such gate") as caught:
        seen.matching("1.forgt")
    assert caught.value.hint == "did you mean '1.forget'?"


def test_a_unit_that_is_not_there_is_a_usage_error() -> None:
    assert made([[1, 2], [3, 4]]).unit("cell", 1).tolist() == [2, 4]
    with pytest.raises(UsageError, match="no unit 2: cell has 2") as caught:
        made([[1, 2]]).unit("cell", 2)
    assert caught.value.hint == "from 0 to 1"


# Two models


@pytest.mark.parametrize("kinds", [("char", "word"), ("byte", "bpe"), ("word", "bpe")])
def test_losses_of_two_tokenizers_meet_where_both_end_a_token(kinds: tuple[str, str]) -> None:
    text = TEXT + "naïve “ü”\n"
    first, second = (
        read_only(model_of("rnn", t.size), t, [text])
        for t in (tokenizer_of(k, text) for k in kinds)
    )
    found = loss_difference(first, second)
    assert "".join(s.text for s in found) == text
    assert sum(s.nats for s in found) == pytest.approx(first.nats.sum())
    assert sum(s.versus for s in found) == pytest.approx(second.nats.sum())
    apart = first.nats.sum() - second.nats.sum()
    assert sum(s.difference for s in found) == pytest.approx(apart)


def test_with_one_tokenizer_every_token_is_compared() -> None:
    tokenizer = tokenizer_of("char")
    lstm_, rnn_ = (
        read_only(model_of(n, tokenizer.size), tokenizer, [TEXT]) for n in ("lstm", "rnn")
    )
    assert [s.difference for s in loss_difference(lstm_, rnn_)] == pytest.approx(
        lstm_.nats - rnn_.nats
    )


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("char", ['"', "g", "o", " ", "o", "n", '"']),
        ("word", [' "', "go", " on", '"']),
        ("byte", ['"', "g", "o", " ", "o", "n", '"']),
    ],
)
def test_a_token_is_inside_if_its_last_character_is(
    build: Any, kind: str, inside: list[str]
) -> None:
    tokenizer = tokenizer_of(kind)
    seen = read_only(build("rnn", tokenizer.size), tokenizer, [TEXT])
    flags = within(seen, '"go[^"]*"')
    assert [t for t, flag in zip(seen.tokens, flags, strict=True) if flag and t] == inside


def test_all_bytes_of_a_character_are_inside_with_it(build: Any) -> None:
    tokenizer = tokenizer_of("byte")
    seen = read_only(build("rnn", tokenizer.size), tokenizer, ["a“b"])
    assert within(seen, "“").tolist() == [False, True, True, True, False]


def quoted(tokens: int, seed: int = 0) -> tuple[str, Any]:
    """A text with token_spans in quotes, and which of its characters are in them."""
    rng, text = np.random.default_rng(seed), ""
    while len(text) < tokens:
        text += "a" * rng.integers(3, 9) + '"' + "b" * rng.integers(2, 7) + '"'
    text = text[:tokens]
    inside, flags = False, []
    for c in text:
        flags.append(inside or c == '"')
        inside ^= c == '"'
    return text, np.array(flags)


def test_the_unit_that_tells_is_found_and_scored_on_the_other_half() -> None:
    text, inside = quoted(800)
    values = np.random.default_rng(1).normal(size=(800, 20))
    values[:, 13] = np.where(inside, -1.0, 1.0)
    values[::40, 13] *= -1  # one in forty is wrong
    found = correlate(made(values, text), '"b*("|$)', ["cell"], 3)
    best = found.units[0]
    assert (best.gate, best.unit, best.above, best.threshold) == ("cell", 13, False, 0.0)
    right = (values[400:, 13] < 0) == inside[400:]
    expected = (right[inside[400:]].mean() + right[~inside[400:]].mean()) / 2
    assert best.score == pytest.approx(expected)
    assert best.auc == pytest.approx(auc(-values[400:, 13], inside[400:]))
    assert (found.tokens, found.inside) == (400, inside[400:].sum())
    assert found.shifted < 0.75 < best.score
    assert [t.fit for t in found.units] == sorted((t.fit for t in found.units), reverse=True)


def test_a_unit_that_tells_in_the_first_half_only_scores_at_chance() -> None:
    """It is chosen for its fit and must not be praised for it."""
    text, inside = quoted(2000)
    values = np.random.default_rng(2).normal(size=(2000, 5))
    values[:1000, 2] = inside[:1000]
    best = correlate(made(values, text), '"b*("|$)', ["cell"], 1).units[0]
    assert (best.unit, best.fit) == (2, 1.0)
    assert best.score == pytest.approx(0.5, abs=0.06)


def test_units_of_noise_do_no_better_than_on_shifted_matches() -> None:
    text, _ = quoted(2000)
    values = np.random.default_rng(3).normal(size=(2000, 50))
    found = correlate(made(values, text), '"b*("|$)', ["cell"], 1)
    assert found.units[0].score <= found.shifted < 0.6


@given(st.lists(st.integers(0, 4), min_size=60, max_size=60), st.integers(0, 3))
def test_the_threshold_is_the_best_of_all_tried_one_by_one(values: list[int], seed: int) -> None:
    text, inside = quoted(120, seed)
    column = np.array(values + [0] * 60, float)
    found = correlate(made(column[:, None], text), '"b*("|$)', ["cell"], 1).units[0]
    first, labels = column[:60], inside[:60]

    def fit(threshold: float) -> float:
        above = first > threshold
        score = (above[labels].mean() + (~above)[~labels].mean()) / 2
        return float(max(score, 1 - score))

    assert found.fit == pytest.approx(max(fit(t + 0.5) for t in range(-1, 5)))
    assert fit(found.threshold) == pytest.approx(found.fit)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    ours = [v for v, inside in pairs if inside]
    theirs = [v for v, inside in pairs if not inside]
    if ours and theirs:
        won = sum((a > b) + (a == b) / 2 for a in ours for b in theirs)
        values, inside = zip(*pairs, strict=True)
        found = auc(np.array(values, float), np.array(inside))
        assert found == pytest.approx(won / len(ours) / len(theirs))


@pytest.mark.parametrize("regex", ["z", "x", "^x{15}"])
def test_too_few_tokens_inside_or_outside_is_a_text_error(regex: str) -> None:
    with pytest.raises(TextError, match="half of the text") as caught:
        correlate(made(np.zeros((100, 1))), regex, ["cell"], 1)
    assert "longer text" in caught.value.hint


def test_what_is_no_regular_expression_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        within(made(np.zeros((3, 1))), "[")
