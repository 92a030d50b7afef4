"""One look an architecture: seen on both papers, told apart by everybody, the same everywhere."""

import itertools

import numpy as np
import pytest

from lmcli.registry import MODELS
from lmcli.report.colors import COLORS, DASHES, INK, MUTED, PAPER, arch_of, looks

CAN_BE_SEEN, CAN_BE_READ = 3.0, 4.5  # contrasts of WCAG 2.2, of graphics and of text
DEFICIENT = {  # Machado, Oliveira and Fernandes 2009, at full strength, for linear RGB
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip
STANDARD = ("ngram", "window", "rnn", "gru", "lstm")


def linear(color):
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(color):
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    f = np.cbrt(np.clip(to_xyz @ rgb / [0.9505, 1.0, 1.089], 1e-4, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("dark", [0, 1])
def test_every_colour_is_seen_on_its_paper_and_words_are_read(dark):
    for pair in COLORS.values():
        assert contrast(pair[dark], PAPER[dark]) >= CAN_BE_SEEN, pair
    for words in (INK, MUTED):
        assert contrast(words[dark], PAPER[dark]) >= CAN_BE_READ


@pytest.mark.parametrize("dark", [0, 1])
@pytest.mark.parametrize("kind", DEFICIENT)
def test_the_models_of_a_comparison_differ_to_the_colour_blind(kind, dark):
    seen = {a: lab(np.clip(DEFICIENT[kind] @ linear(COLORS[a][dark]), 0, 1)) for a in STANDARD}
    for a, b in itertools.combinations(STANDARD, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 10, (a, b)


def test_every_architecture_has_a_colour_and_a_marker_of_its_own():
    assert set(MODELS.names()) <= set(COLORS)
    found = looks(list(COLORS))
    assert [look.arch for look in found] == list(COLORS)
    assert len({look.marker for look in found}) == len(COLORS)


def test_a_name_has_the_colour_of_its_architecture_wherever_it_stands():
    names = ["runs/gru-2", "lstm-seed0", "rnn:activation=relu", "rnn"]
    assert [look.arch for look in looks(names)] == ["gru", "lstm", "rnn", "rnn"]
    assert arch_of("mine") is None


def test_variants_of_one_architecture_differ_by_dash_and_filling():
    first, second, third = looks(["rnn", "rnn:activation=relu", "rnn:hidden=8"])
    assert (first.dash, second.dash, third.dash) == DASHES[:3]
    assert (first.filled, second.filled) == (True, False)


def test_a_name_of_no_architecture_takes_a_free_colour():
    assert {look.arch for look in looks(["lstm", "mine", "yours"])} >= {"lstm"}
    assert len({look.arch for look in looks(["lstm", "mine", "yours"])}) == 3
