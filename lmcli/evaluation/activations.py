"""A text through a model -> what its gates, cells and hidden units do at every token.

**In:** a model and a tokenizer, documents, each read from the start state; a regular expression.
**Out:** `Activations`: the nats of every token and the value of every unit while it was read; from
it averages, the units that vary most, the difference between two models, and the units that tell
whether a token lies inside a match of the expression, beside what such a search finds by chance.

The nats come from the fast kernels (`log_likelihood`), the values from the same cells written out
step by step (`ActivationRecorder`); the laws of `models/` hold that both are one function.

Karpathy, Johnson and Li (2015), "Visualizing and understanding recurrent networks", saw cells
that count quotes by looking; `correlate` looks for them by number: units are chosen on one half of
a text and scored on the other.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lmcli.errors import LmcliError, TextError, UsageError, did_you_mean
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import ActivationRecorder, LanguageModel
from lmcli.tokenizers.base import Tokenizer

Values = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

CHUNK = 256
LEAST = 10
"""tokens inside and outside the matches that each half of a text needs"""
SHIFTS = 19
"""the best of 19 chance scores is beaten by chance once in 20 times"""


@dataclass(frozen=True)
class Activations:
    """A text as a model read it. Shapes: spans and nats (T,), each of the values (T, H)."""

    text: str
    spans: list[tuple[int, int]]
    """where each token begins and ends in the text"""
    nats: Floats
    unknown: int
    """tokens that the model does not know"""
    values: dict[str, Values]

    @property
    def tokens(self) -> list[str]:
        """What each token adds to the text; empty for a byte within a character."""
        return [self.text[begin:end] for begin, end in self.spans]

    def matching(self, gate: str | None) -> list[str]:
        """The names of all values, or of `gate` in each layer that has it."""
        names = [n for n in self.values if gate is None or gate in (n, n.partition(".")[2])]
        if not names:
            raise UsageError(f"--gate {gate}: no such gate", did_you_mean(gate or "", self.values))
        return names

    def average(self, gate: str) -> Values:
        """The mean over units; of values with a sign the mean size, as signs cancel."""
        mean: Values = np.abs(self.values[gate]).mean(1)
        return mean

    def most_varying(self, gate: str, count: int) -> list[int]:
        """The units whose value varies most over the text (largest variance first)."""
        order = np.argsort(-self.values[gate].var(0), kind="stable")
        return [int(unit) for unit in order[:count]]

    def unit(self, gate: str, unit: int) -> Values:
        """One unit along the text."""
        width = self.values[gate].shape[1]
        if unit not in range(width):
            raise UsageError(f"no unit {unit}: {gate} has {width}", f"from 0 to {width - 1}")
        values: Values = self.values[gate][:, unit]
        return values


def read_only(model: LanguageModel, tokenizer: Tokenizer, documents: Sequence[str]) -> Activations:
    """The nats of every token without a look inside: this works for every architecture."""
    if not all(documents) or not documents:
        raise TextError("no text to look at", "give a few words, or a file")
    scored = score_documents(model, tokenizer, documents)
    spans, offset = [], 0
    for part in scored:
        spans += [(offset + begin, offset + end) for begin, end in part.spans()]
        offset += len(part.text)
    nats = np.concatenate([part.nats for part in scored]).astype(np.float64)
    return Activations("".join(documents), spans, nats, Score.of(scored).unknown_tokens, {})


def read_inside(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str]) -> Activations:
    """The same with all units; an LmcliError for an architecture that has nothing to show."""
    read = read_only(model, tokenizer, texts)
    values = record(model, [tokenizer.encode(text).tolist() for text in texts])
    if not values:
        raise LmcliError(
            f"{model.name} has neither gates nor units to show",
            "--versus compares its losses with those of another run",
        )
    return dataclasses.replace(read, values=values)


@torch.inference_mode()
def record(model: LanguageModel, documents: Sequence[Sequence[int]]) -> dict[str, Values]:
    """The values after every token but start ids. Shapes: -> (T, H) for each name."""
    stream = torch.tensor([[i for ids in documents for i in (model.start_id, *ids)]])  # (1, T')
    state, parts = model.initial_state(1), dict[str, list[Values]]()
    for begin in range(0, stream.shape[1], CHUNK):
        recorder, chunk = ActivationRecorder(), stream[:, begin : begin + CHUNK]
        _, state = model(chunk, state, recorder)
        real = chunk[0] != model.start_id
        for name in recorder.values:
            parts.setdefault(name, []).append(recorder[name][0, real].float().numpy())
    return {name: np.concatenate(some) for name, some in parts.items()}


# ------------------------------------------------------------------ two models


@dataclass(frozen=True)
class TokenSpan:
    """The shortest span of text that is whole tokens for both models, with the loss of each."""

    text: str
    nats: float
    versus: float

    @property
    def difference(self) -> float:
        """Loss of the first less loss of the second: below 0 the first expected it more."""
        return self.nats - self.versus


def loss_difference(first: Activations, second: Activations) -> list[TokenSpan]:
    """The same text through two models; their tokenizers may differ."""
    losses = [_nats_by_end(read) for read in (first, second)]
    ends = sorted(losses[0].keys() & losses[1].keys())
    nats = [np.diff([loss[end] for end in ends], prepend=0.0).tolist() for loss in losses]
    places = zip([0, *ends[:-1]], ends, *nats, strict=True)
    return [TokenSpan(first.text[begin:end], a, b) for begin, end, a, b in places]


def _nats_by_end(read: Activations) -> dict[int, float]:
    """All nats up to each place where a token ends."""
    ends = [end for _, end in read.spans]
    return dict(zip(ends, np.cumsum(read.nats).tolist(), strict=True))


# ------------------------------------------------------------------ units that match a pattern


@dataclass(frozen=True)
class UnitClassifier:
    """A unit that tells inside from outside by a threshold chosen on the first half of the text.

    Scores are balanced accuracies, the mean of the shares right inside and right outside.
    """

    gate: str
    unit: int
    above: bool
    """whether inside means above the threshold, or below"""
    threshold: float
    fit: float
    """on the first half, where unit and threshold were chosen: never to be reported alone"""
    score: float
    """on the second half"""
    auc: float
    """on the second half: how often a token inside ranks before one outside, ties count half"""


@dataclass(frozen=True)
class Correlation:
    """The best units for a pattern, and what such a search finds by chance."""

    regex: str
    tokens: int
    """in the second half, on which all are scored"""
    inside: int
    candidates: int
    """units searched"""
    units: list[UnitClassifier]
    shifted: float
    """permutation baseline: the highest score of the best unit over 19 searches with the matches
    shifted along the text"""
    chance: float = 0.5


def correlate(
    read: Activations, regex: str, gates: Sequence[str], count: int, seed: int = 0
) -> Correlation:
    """The units that best tell whether a token ends inside a match, best first.

    Unit, side and threshold are chosen on the first half of the text alone, by balanced accuracy.
    """
    inside = within(read, regex)
    half = len(inside) // 2
    for name, part in (("first", inside[:half]), ("second", inside[half:])):
        matched = int(part.sum())
        if min(matched, len(part) - matched) < LEAST:
            raise TextError(
                f"'{regex}' matches {matched} of {len(part)} tokens in the {name} half of the text",
                f"{LEAST} inside and {LEAST} outside are needed: give a longer text",
            )
    rng, best = np.random.default_rng(seed), list[UnitClassifier]()
    moves = [rng.integers(half // 10, half - half // 10, 2).tolist() for _ in range(SHIFTS)]
    baseline = [(0.0, 0.0)] * SHIFTS  # fit and score of the best unit for shifted matches
    for gate in gates:
        search = _Search(gate, read.values[gate], half)
        best += search.best(inside, count)
        for i, (a, b) in enumerate(moves):
            shifted = np.concatenate([np.roll(inside[:half], a), np.roll(inside[half:], b)])
            chance = search.best(shifted, 1)[0]
            baseline[i] = max(baseline[i], (chance.fit, chance.score))
    best = sorted(best, key=lambda t: -t.fit)[:count]
    searched = sum(read.values[gate].shape[1] for gate in gates)
    rest, highest = inside[half:], max(score for _, score in baseline)
    return Correlation(regex, len(rest), int(rest.sum()), searched, best, highest)


def within(read: Activations, regex: str) -> Flags:
    """Whether the last character of each token lies inside a match. Shapes: -> (T,)."""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        problem = f"--correlate {regex}: no regular expression ({error})"
        raise UsageError(problem, 'for example --correlate \'"[^"]*"\'') from None
    covered = np.zeros(len(read.text), np.bool_)
    for match in pattern.finditer(read.text):
        covered[match.start() : match.end()] = True
    begins, ends = np.array(read.spans).T
    # a byte within a character adds nothing to the text: it counts to the character it spells
    inside: Flags = covered[np.minimum(np.maximum(begins, ends - 1), len(covered) - 1)]
    return inside


class _Search:
    """All units of a gate, sorted once, to be searched with many labellings."""

    def __init__(self, gate: str, values: Values, half: int) -> None:
        self.gate = gate
        self.first, self.second = values[:half], values[half:]
        self.order = self.first.argsort(0)  # (half, H)
        self.sorted = np.take_along_axis(self.first, self.order, 0)
        self.tied = self.sorted[:-1] == self.sorted[1:]

    def best(self, inside: Flags, count: int) -> list[UnitClassifier]:
        """The units with the best fit on the first half, scored on the second."""
        half = len(self.first)
        labels, total = inside[:half], int(inside[:half].sum())
        below = np.cumsum(labels[self.order], axis=0, dtype=np.int32)[:-1]  # inside, at or below
        outside = np.arange(1, half)[:, None] - below
        gain = outside / (half - total) - below / total  # (half - 1, H): 1 if above is inside
        gain[self.tied] = 0.0
        cut, fits = np.abs(gain).argmax(0), (1 + np.abs(gain).max(0)) / 2
        chosen, inside = np.argsort(-fits, kind="stable")[:count].tolist(), inside[half:]
        classifiers = []
        for u in chosen:
            above = bool(gain[cut[u], u] > 0)
            low, high = self.sorted[cut[u] : cut[u] + 2, u].astype(np.float64).tolist()
            threshold, values = (low + high) / 2, self.second[:, u].astype(np.float64)
            right = ((values > threshold) == above) == inside
            score = float((right[inside].mean() + right[~inside].mean()) / 2)
            area = auc(values if above else -values, inside)
            fit = float(fits[u])
            classifiers.append(UnitClassifier(self.gate, u, above, threshold, fit, score, area))
        return classifiers


def auc(values: Floats, inside: Flags) -> float:
    """The share of pairs, one inside and one outside, in which the inside has the larger value.

    >>> auc(np.array([1.0, 2.0, 3.0, 3.0]), np.array([False, True, False, True]))
    0.625
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places.reshape(-1)]
    ours = int(inside.sum())
    won = ranks[inside].sum() - ours * (ours + 1) / 2
    return float(won / (ours * (len(values) - ours)))
