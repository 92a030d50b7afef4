"""A model + a prompt -> text, chunk by chunk.

**In:** a NumPy model or a torch model, its tokenizer, a prompt, `SamplingSettings`.
**Out:** `sample` yields chunks of text as they are made, `sample_batch` those of several texts
together; leaving the loop stops it.

The n-th token of a text is drawn with the n-th number of the generator of its seed, whether the
text is made alone or with others. So a text depends on model, settings and seed only, except for
rounding: logits differ in the seventh digit if a text is made together with others, on another
machine or by torch, because sums are taken in another order. A draw that close to the border
between two tokens may then give the other token, and the rest of the text differs. The same texts
made together on the same machine are always the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from lmcli.errors import UsageError
from lmcli.generation.numpy_models.base import Floats, NumpyModel, TorchAdapter
from lmcli.generation.stop_strings import StopStrings
from lmcli.tokenizers.base import Decoder, Tokenizer

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

TextChunk = tuple[int, str, bool]
"""The number of a text, its next characters, and whether it ends with them."""

MAX_BATCH = 64
"""Texts made together, at most: more make no text cheaper."""
MAX_LOGITS = 1 << 23
"""Numbers in the logits of texts made together, at most (64 MiB)."""
LEAST_TEMPERATURE = 1e-200
"""Below it logits divided by it would be too large for a float: the most likely token is taken."""
RANDOM_BLOCK = 256
"""Random numbers taken from a generator in one call."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn; filters apply in this order. Else: a UsageError."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("temperature", None), ("top_k", None), ("top_p", 1), ("min_p", 1)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= (most or value)):
                bounds = "a number from 0 on" if most is None else f"from 0 to {most}"
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} {value} is out of range", f"it must be {bounds}")

    @property
    def truncates(self) -> bool:
        """Whether any filter is on."""
        return not (self.top_k is None and self.top_p is None and self.min_p is None)


@dataclass
class GenerationStats:
    """Figures of one text, updated while it streams."""

    tokens: int = 0
    nats: float = 0.0
    """-ln p of the sampled tokens under the model itself (temperature 1, no filter)"""

    def add(self, token: int, nats: float, logits: Floats) -> None:
        """One more token; `logits` (V,) are the model's own before it was drawn."""
        self.tokens += 1
        self.nats += nats


def sample_tokens(logits: Floats, settings: SamplingSettings, numbers: Floats) -> list[int]:
    """One token per row by its number from 0 to 1; at a temperature of about 0 the most likely.

    `logits` are overwritten. Shapes: logits (K, V), numbers (K,) -> K tokens.
    """
    if settings.temperature < LEAST_TEMPERATURE:
        most_likely: list[int] = logits.argmax(1).tolist()
        return most_likely
    if len(logits) == 1:  # with arrays of one axis, which is faster
        row = logits[0]
        np.subtract(row, row.item(row.argmax()), out=row)
        cumulative = np.add.accumulate(_weights(row, settings), out=row)
        number = numbers.item(0) * cumulative.item(-1)
        return [int(cumulative.searchsorted(number, "right"))]
    logits -= logits.max(1, keepdims=True)
    cumulative = np.add.accumulate(_weights(logits, settings), axis=1, out=logits)
    bounds = numbers * cumulative[:, -1]
    tokens: list[int] = (cumulative > bounds[:, None]).argmax(1).tolist()
    return tokens


def _weights(logits: Floats, settings: SamplingSettings) -> Floats:
    """The weights of the tokens in a draw, in place; the most likely has the logit 0.

    Shapes: (V,) or (K, V), unchanged.
    """
    if settings.temperature != 1:
        logits /= settings.temperature
    if not settings.truncates:
        return np.exp(logits, out=logits)
    for row in logits.reshape(-1, logits.shape[-1]):
        p = np.exp(row)
        row[:] = truncate_distribution(p / p.sum(), settings)
    return logits


def truncate_distribution(p: Floats, settings: SamplingSettings) -> Floats:
    """Zero outside top-k, top-p (Holtzman et al. 2020) and min-p.

    Each keeps at least the most likely token.
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
    """Continue the prompt once per seed by `length` tokens, or without end if that is 0.

    All texts are made in one batch; one that has ended leaves it. The unknown symbol is never
    drawn. After `document_end` (a line end, where each line is a document) the model begins a new
    document.
    """
    numpy_model = model if isinstance(model, NumpyModel) else TorchAdapter(model)
    prompt_ids = tokenizer.encode(prompt).tolist()
    texts = []
    for number in range(len(seeds)):
        decoder = tokenizer.decoder()
        for token in prompt_ids:
            decoder.push(token)  # so that the text is joined to the prompt correctly
        end = document_end, tokenizer.start, prompt
        texts.append(_Text(number, decoder, StopStrings(stops), *end))
    numpy_model.reset(1)
    numpy_model.read_all([tokenizer.start, *prompt_ids])
    if len(texts) > 1:
        numpy_model.select([0] * len(texts))
    generators = [np.random.default_rng(seed) for seed in seeds]
    for made in itertools.count():
        place = made % RANDOM_BLOCK
        if place == 0:
            uniforms = np.stack([g.random(RANDOM_BLOCK) for g in generators], axis=1)
        tokens = _next(numpy_model, tokenizer, settings, uniforms[place], texts, sampled)
        last = made + 1 == length
        for i, text in enumerate(texts):
            chunk, tokens[i] = text.push(tokens[i])
            if last or text.stop_filter.stopped:
                yield text.number, chunk + text.finish(), True
            elif chunk:
                yield text.number, chunk, False
        running = [i for i, text in enumerate(texts) if not text.stop_filter.stopped]
        if last or not running:
            return
        if len(running) < len(texts):
            texts, tokens = [texts[i] for i in running], [tokens[i] for i in running]
            generators, uniforms = [generators[i] for i in running], uniforms[:, running]
            numpy_model.select(running)
        numpy_model.read(tokens)


def batch_size(count: int, length: int, vocabulary: int) -> int:
    """How many of `count` texts are made together; texts without end are made one by one."""
    return min(count, MAX_BATCH, max(1, MAX_LOGITS // vocabulary)) if length else 1


def in_order(chunks: Iterable[TextChunk], texts: int) -> Iterator[tuple[str, bool]]:
    """The chunks of the first text as they come, then those of the second, and so on.

    With each: whether the text ends with it. Chunks of later texts are held until their turn.
    """
    held, ended = [StringIO() for _ in range(texts)], [False] * texts
    turn = 0
    for number, text, last in chunks:
        if number != turn:
            held[number].write(text)
            ended[number] = last
            continue
        yield text, last
        while last and (turn := turn + 1) < texts:
            last = ended[turn]
            yield held[turn].getvalue(), last
            held[turn].close()


@dataclass
class _Text:
    """The state of one text: decoder, stop strings, ends of documents."""

    number: int
    decoder: Decoder
    stop_filter: StopStrings
    document_end: str
    start: int
    tail: str

    def push(self, token: int) -> tuple[str, int]:
        """The text that may be shown after this token, and the token to read next.

        After the end of a document that is the start id, which resets the state, instead of the
        token itself.
        """
        chunk = self.decoder.push(token)
        if self.document_end:
            self.tail = (self.tail + chunk)[-8:]
            if chunk and self.tail.endswith(self.document_end):
                token = self.start
        return self.stop_filter.push(chunk), token

    def finish(self) -> str:
        """The text still held back at the end; none if a stop string has ended the text."""
        if self.stop_filter.stopped:
            return ""
        return self.stop_filter.push(self.decoder.finish()) + self.stop_filter.finish()


def _next(
    model: NumpyModel,
    tokenizer: Tokenizer,
    settings: SamplingSettings,
    numbers: Floats,
    texts: Sequence[_Text],
    sampled: Sequence[GenerationStats] | None,
) -> list[int]:
    """The next token of every text; `sampled` is updated if it is given."""
    logits = model.logits()
    own = None if sampled is None else logits - logits.max(1, keepdims=True)
    if tokenizer.unknown is not None and tokenizer.size > 1:
        logits[:, tokenizer.unknown] = -np.inf
    tokens = sample_tokens(logits, settings, numbers)
    if sampled is not None and own is not None:
        nats = np.log(np.exp(own).sum(1)) - own[np.arange(len(own)), tokens]
        for text, token, surprise, row in zip(texts, tokens, nats.tolist(), own, strict=True):
            sampled[text.number].add(token, surprise, row)
    return tokens
