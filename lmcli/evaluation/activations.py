"""A text through a model -> what its gates, cells and hidden units do at every token.

**In:** a model and a tokenizer, documents, each read from the start state.
**Out:** `Activations`: the nats of every token and the value of every unit while it was read; from
it averages, the units that vary most, and the difference between two models.

The nats come from the fast kernels (`log_likelihood`), the values from the same cells written out
step by step (`ActivationRecorder`); the laws of `models/` hold that both are one function.
"""

from __future__ import annotations

import dataclasses
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

CHUNK = 256


@dataclass(frozen=True)
class Activations:
    """A text as a model read it. Shapes: spans and nats (T,), each of the values (T, H)."""

    text: str
    spans: list[tuple[int, int]]
    """where each token begins and ends in the text"""
    nats: Floats
    unknown: int
    """how many tokens the model has never seen"""
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


def read_only(model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[str]) -> Activations:
    """The nats of every token without a look inside: this works for every architecture."""
    if not all(pieces) or not pieces:
        raise TextError("no text to look at", "give a few words, or a file")
    scored = score_documents(model, tokenizer, pieces)
    spans, offset = [], 0
    for part in scored:
        spans += [(offset + begin, offset + end) for begin, end in part.spans()]
        offset += len(part.text)
    nats = np.concatenate([part.nats for part in scored]).astype(np.float64)
    return Activations("".join(pieces), spans, nats, Score.of(scored).unknown_tokens, {})


def read_inside(model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[str]) -> Activations:
    """The nats of every token, and all units while it is read.

    Raises LmcliError for an architecture that has nothing to show.
    """
    read = read_only(model, tokenizer, pieces)
    values = record(model, [tokenizer.encode(piece).tolist() for piece in pieces])
    if not values:
        raise LmcliError(
            f"{model.name} has neither gates nor units to show",
            "--versus compares its losses with those of another run",
        )
    return dataclasses.replace(read, values=values)


@torch.inference_mode()
def record(model: LanguageModel, pieces: Sequence[Sequence[int]]) -> dict[str, Values]:
    """The values after every token of all documents; those after start ids are left out.

    Shapes: -> (T, H) for each name.
    """
    stream = torch.tensor([[i for ids in pieces for i in (model.start_id, *ids)]])  # (1, T')
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
    begins = [0, *ends[:-1]]
    sums = [[loss[end] for end in ends] for loss in losses]
    nats = [np.diff(total, prepend=0.0).tolist() for total in sums]
    places = zip(begins, ends, *nats, strict=True)
    return [TokenSpan(first.text[begin:end], a, b) for begin, end, a, b in places]


def _nats_by_end(read: Activations) -> dict[int, float]:
    """All nats up to each place where a token ends."""
    ends = [end for _, end in read.spans]
    return dict(zip(ends, np.cumsum(read.nats).tolist(), strict=True))
