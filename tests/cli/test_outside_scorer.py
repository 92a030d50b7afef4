"""Scores and samples beside forty lines of NumPy that share no code with lmcli."""

import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from safetensors.numpy import load_file

import lmcli

LINE = "the {} old cats see {} dogs, and {} birds.\n"
TEXT = "".join(LINE.format(n % 7, n * n % 97, n % 11) for n in range(400))
OTHER = "the 3 old birds see 12 cats.\nand 7 dogs see the old cat.\n\nbirds, and dogs, and cats\n"
START = "\0"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class OutsideLSTM:
    """A saved LSTM of one layer over characters, given that no character is unknown."""

    def __init__(self, run):
        saved = load_file(run / "weights.safetensors")
        self.w = {name: values.astype(np.float64) for name, values in saved.items()}
        tokenizer = json.loads((run / "tokenizer.json").read_text())
        known, self.known_nats = tokenizer["characters"], -math.log1p(-tokenizer["unknown_rate"])
        self.ids = {c: 1 + n for n, c in enumerate(known)} | {START: 1 + len(known)}

    def __call__(self, text):
        """p of every character of the vocabulary after each of a text: (characters, V)."""
        w, read = self.w, []
        h = c = np.zeros(w["layers.0.recurrent_weight"].shape[1])
        for character in text:
            x = w["embed.weight"][self.ids[character]]
            if character == START:
                h, c = 0 * h, 0 * c
            gates = w["layers.0.input_weight"] @ x + w["layers.0.bias"]
            i, f, g, o = np.split(gates + w["layers.0.recurrent_weight"] @ h, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            read.append(np.exp(w["output.weight"] @ h + w["output.bias"])[1:])  # 0 is the unknown
            if character == START:  # the state after it does not depend on the past
                h, c = 0 * h, 0 * c
        return np.array([p / p.sum() for p in read])

    def nats(self, text):
        """-ln p of each character of a document, that it is no unknown one included."""
        pairs = zip(self(START + text[:-1]), text, strict=True)
        return np.array([self.known_nats - math.log(p[self.ids[c] - 1]) for p, c in pairs])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An LSTM that has learnt a little."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my.txt").write_text(TEXT)
    settings = {"hidden": 24, "embedding": 8, "precision": "float32", "learning_rate": 0.02}
    lmcli.train(folder / "my.txt", steps=300, output=folder / "run", settings=settings)
    return folder / "run"


def test_every_token_is_scored_as_by_an_outside_scorer(run, tmp_path):
    (tmp_path / "other.txt").write_text(OTHER)
    result = lmcli.evaluate(run, tmp_path / "other.txt", level="token").to_json()
    expected = OutsideLSTM(run).nats(OTHER)
    found = np.array([t["nats"] for t in result["items"]])
    assert np.abs(found - expected).max() < 1e-5
    assert result["nats"] == pytest.approx(expected.sum(), rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(expected.mean()), rel=1e-6)


def test_characters_are_drawn_with_the_probabilities_of_an_outside_scorer(run):
    """Pearson's chi-square over the first characters after one prompt, 3,000 seeds."""
    outside, prompt = OutsideLSTM(run), "the 3 old birds see "
    expected = 3000 * outside(START + prompt)[-1]
    texts = lmcli.sample(run, prompt, length=1, count=3000, temperature=1.0, seed=0).texts()
    drawn = Counter(text.text for text in texts)
    observed = np.array([drawn[c] for c in outside.ids if c != START])
    common = expected >= 5  # Cochran's rule; the rest is one class
    pairs = [*zip(observed[common], expected[common], strict=True)]
    pairs.append((observed[~common].sum(), expected[~common].sum()))
    chi_square, freedom = sum((o - e) ** 2 / e for o, e in pairs), len(pairs) - 1
    assert freedom >= 5
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_a_long_text_too(run):
    """The same of all characters of one long sample, classed by their probability."""
    outside = OutsideLSTM(run)
    text = "".join(lmcli.sample(run, length=4000, temperature=1.0, seed=1))
    after = outside(START + text[:-1])
    counts = defaultdict(lambda: [0.0, 0.0, 0.0])
    for p, character in zip(after, text, strict=True):
        for other, share in enumerate(p):
            place = counts[min(9, int(10 * share))]
            place[0] += other == outside.ids[character] - 1
            place[1] += share
            place[2] += share * (1 - share)
    for observed, expected, variance in counts.values():
        assert abs(observed - expected) < 4.5 * math.sqrt(variance)
