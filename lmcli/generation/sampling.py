"""A run + a prompt -> text, piece by piece.

**In:** a stepper or a torch model, its tokenizer, a prompt, `SamplingSettings`.
**Out:** `sample` yields pieces of text as they are made, `sample_batch` those of several texts
at once; leaving the loop stops it.

The n-th token of a text is drawn with the n-th number of its seed's own generator, whether the text
is made alone or together with others. So a text depends on model, settings and seed only, but for
rounding: logits differ in the seventh digit when a text is made together with other texts, on
another machine or by torch, because sums are taken in another order. A draw that falls that close
to the border between two tokens may then give the other one, and the text goes on differently from
there. The same texts made together on the same machine are always the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lmcli.generation.numpy_models.base import NumpyModel
from lmcli.generation.numpy_models.torch_adapter import TorchAdapter
from lmcli.generation.stop_strings import StopStrings
from lmcli.tokenizers.base import Decoder, Tokenizer

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

Probabilities = npt.NDArray[np.float64]
TextChunk = tuple[int, str, bool]
"""The number of a text, what it goes on with, and whether it ends there."""

TOGETHER = 64
"""Texts made at once, at the most: more make no text cheaper."""
LOGITS = 1 << 23
"""Numbers in the logits of texts made at once, at the most (64 MiB)."""
ROLLED = 256
"""Random numbers drawn at once from a generator."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn; filters apply in the order they stand here."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @property
    def cuts(self) -> bool:
        """Whether any filter is on."""
        return not (self.top_k is None and self.top_p is None and self.min_p is None)


@dataclass
class GenerationStats:
    """What has been sampled so far: counted while the text streams."""

    tokens: int = 0
    nats: float = 0.0
    """-ln p of the sampled tokens under the model itself (temperature 1, nothing filtered)"""


def choose(logits: Probabilities, settings: SamplingSettings, numbers: Probabilities) -> list[int]:
    """One token a row: where the row's number from 0 to 1 falls; at temperature 0 the likeliest.

    `logits` are written over. Shapes: logits (K, V), numbers (K,) -> K tokens.
    """
    if settings.temperature == 0:
        likeliest: list[int] = logits.argmax(1).tolist()
        return likeliest
    if len(logits) == 1:  # with arrays of one axis, which is faster
        row = logits[0]
        np.subtract(row, row.item(row.argmax()), out=row)
        below = np.add.accumulate(_weights(row, settings), out=row)
        return [int(below.searchsorted(numbers.item(0) * below.item(-1), "right"))]
    logits -= logits.max(1, keepdims=True)
    below = np.add.accumulate(_weights(logits, settings), axis=1, out=logits)
    chosen: list[int] = (below > (numbers * below[:, -1])[:, None]).argmax(1).tolist()
    return chosen


def _weights(logits: Probabilities, settings: SamplingSettings) -> Probabilities:
    """What tokens weigh in a draw, in place; the likeliest has the logit 0.

    Shapes: (V,) or (K, V), the same back.
    """
    if settings.temperature != 1:
        logits /= settings.temperature
    if not settings.cuts:
        return np.exp(logits, out=logits)
    for row in logits.reshape(-1, logits.shape[-1]):
        row[:] = filtered(softmax(row), settings)
    return logits


def softmax(logits: Probabilities) -> Probabilities:
    """Probabilities of logits. Shapes: (V,) -> (V,)."""
    p: Probabilities = np.exp(logits - logits.max())
    p /= p.sum()
    return p


def filtered(p: Probabilities, settings: SamplingSettings) -> Probabilities:
    """Zero what top-k, top-p (Holtzman et al. 2020) and min-p leave out.

    Each keeps at least the likeliest token.
    """
    keep = np.ones(len(p), bool)
    sorting = settings.top_k is not None or settings.top_p is not None
    order = np.argsort(-p, kind="stable") if sorting else np.empty(0, np.intp)
    if settings.top_k is not None:
        keep[order[max(1, settings.top_k) :]] = False
    if settings.top_p is not None:
        before = np.cumsum(np.where(keep, p, 0)[order]) - np.where(keep, p, 0)[order]
        keep[order[before >= settings.top_p * p[keep].sum()]] = False
        keep[order[0]] = True
    if settings.min_p is not None:
        keep &= p >= settings.min_p * p.max()
    return np.where(keep, p, 0.0)


def sample(
    model: NumpyModel | LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stops: tuple[str, ...] = (),
    document_end: str = "",
    sampled: GenerationStats | None = None,
) -> Iterator[str]:
    """Text that goes on from the prompt, `length` tokens of it, or without end if that is 0.

    The unknown symbol is never drawn. Where documents end with `document_end` (a line end, where
    each line is a document), the model begins a new one behind it.
    """
    counted = None if sampled is None else [sampled]
    pieces = sample_batch(
        model, tokenizer, prompt, length, settings, [seed], stops, document_end, counted
    )
    for _, text, _ in pieces:
        if text:
            yield text


def sample_batch(
    model: NumpyModel | LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    settings: SamplingSettings,
    seeds: Sequence[int],
    stops: tuple[str, ...] = (),
    document_end: str = "",
    sampled: Sequence[GenerationStats] | None = None,
) -> Iterator[TextChunk]:
    """As `sample`, a text for each seed, all made side by side; one that has ended is left out."""
    stepper = model if isinstance(model, NumpyModel) else TorchAdapter(model)
    prompt_ids = tokenizer.encode(prompt).tolist()
    texts = [
        _Text(i, tokenizer, prompt, prompt_ids, StopStrings(stops), document_end)
        for i in range(len(seeds))
    ]
    plain = not texts[0].gate.stops and not document_end
    stepper.begin(1)
    stepper.read_all([tokenizer.start, *prompt_ids])
    if len(texts) > 1:
        stepper.take([0] * len(texts))
    dice, made = SeededUniforms(seeds), 0
    while True:
        tokens = _next(stepper, tokenizer, settings, dice.roll(), texts, sampled)
        made += 1
        last = made == length
        for place, text in enumerate(texts):
            piece = text.decode(tokens[place])
            if not plain:
                piece, tokens[place] = text.pass_on(piece, tokens[place])
            if last or text.gate.stopped:
                yield text.number, piece + text.finish(), True
            elif piece:
                yield text.number, piece, False
        left = [place for place, text in enumerate(texts) if not text.gate.stopped]
        if last or not left:
            return
        if len(left) < len(texts):
            texts, tokens = [texts[i] for i in left], [tokens[i] for i in left]
            stepper.take(left)
            dice.take(left)
        stepper.read(tokens)


def at_once(count: int, length: int, vocabulary: int) -> int:
    """How many of `count` texts are best made together; texts without end, one after another."""
    return min(count, TOGETHER, max(1, LOGITS // vocabulary)) if length else 1


def in_order(pieces: Iterable[TextChunk], texts: int) -> Iterator[tuple[str, bool]]:
    """The pieces of the first text as they come, then those of the second, and so on.

    With each goes whether the text ends behind it. Documents of later texts are held until then.
    """
    held, ended = [StringIO() for _ in range(texts)], [False] * texts
    turn = 0
    for number, text, last in pieces:
        if number != turn:
            held[number].write(text)
            ended[number] = last
            continue
        yield text, last
        while last and (turn := turn + 1) < texts:
            last = ended[turn]
            yield held[turn].getvalue(), last
            held[turn].close()


class _Text:
    """One text on its way: decoded, cut at a stop string, parted into documents."""

    def __init__(
        self,
        number: int,
        tokenizer: Tokenizer,
        prompt: str,
        prompt_ids: list[int],
        gate: StopStrings,
        document_end: str,
    ) -> None:
        self.number, self.gate, self.document_end = number, gate, document_end
        self.start, self.tail = tokenizer.start, prompt
        self.decoder: Decoder = tokenizer.decoder()
        for token in prompt_ids:
            self.decoder.push(token)  # so that what follows is joined to the prompt as it should be
        self.decode = self.decoder.push

    def pass_on(self, piece: str, token: int) -> tuple[str, int]:
        """What may be shown of the text, and the token to read: a document's end starts another.

        A start id leaves the same state behind whatever was read before it, so that it may stand
        in place of the token.
        """
        self.tail = (self.tail + piece)[-8:]
        ended = self.document_end and piece and self.tail.endswith(self.document_end)
        return self.gate.push(piece), self.start if ended else token

    def finish(self) -> str:
        """What is still held back at the end; nothing if a stop string has ended the text."""
        if self.gate.stopped:
            return ""
        return self.gate.push(self.decoder.finish()) + self.gate.finish()


class SeededUniforms:
    """Numbers from 0 to 1, for each text those of its own seed in their order."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.numbers = np.empty((0, len(seeds)))
        self.rolled = 0

    def roll(self) -> Probabilities:
        """One number a text. Shapes: -> (K,)."""
        if self.rolled == len(self.numbers):
            self.numbers = np.stack([g.random(ROLLED) for g in self.generators], axis=1)
            self.rolled = 0
        self.rolled += 1
        numbers: Probabilities = self.numbers[self.rolled - 1]
        return numbers

    def take(self, texts: list[int]) -> None:
        """Go on with these only."""
        self.generators = [self.generators[i] for i in texts]
        self.numbers = self.numbers[:, texts]


def _next(
    stepper: NumpyModel,
    tokenizer: Tokenizer,
    settings: SamplingSettings,
    numbers: Probabilities,
    texts: Sequence[_Text],
    sampled: Sequence[GenerationStats] | None,
) -> list[int]:
    """The next token of every text; counted where that is asked for."""
    logits = stepper.logits()
    own = None if sampled is None else logits - logits.max(1, keepdims=True)
    if tokenizer.unknown is not None and tokenizer.size > 1:
        logits[:, tokenizer.unknown] = -np.inf
    tokens = choose(logits, settings, numbers)
    if sampled is not None and own is not None:
        nats = np.log(np.exp(own).sum(1)) - own[np.arange(len(own)), tokens]
        for text, surprise in zip(texts, nats.tolist(), strict=True):
            sampled[text.number].tokens += 1
            sampled[text.number].nats += surprise
    return tokens
