"""A run + a prompt -> text, piece by piece.

**In:** a model, its tokenizer, a prompt, `SamplingSettings`.
**Out:** `sample` yields pieces of text as they are made; leaving the loop stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmcli.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn; filters apply in the order they stand here."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None


@dataclass
class Sampled:
    """What has been sampled so far: counted while the text streams."""

    tokens: int = 0
    nats: float = 0.0
    """-ln p of the sampled tokens under the model itself (temperature 1, nothing filtered)"""


def draw(logits: Probabilities, settings: SamplingSettings, rng: np.random.Generator) -> int:
    """One token. Temperature 0 is the likeliest one. Shapes: logits (V,)."""
    if settings.temperature == 0:
        return int(logits.argmax())
    p = softmax((logits - logits.max()) / settings.temperature)
    below = filtered(p, settings).cumsum()
    return int(np.searchsorted(below, rng.random() * below[-1], side="right"))


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
    order = np.argsort(-p, kind="stable")
    if settings.top_k is not None:
        keep[order[max(1, settings.top_k) :]] = False
    if settings.top_p is not None:
        before = np.cumsum(np.where(keep, p, 0)[order]) - np.where(keep, p, 0)[order]
        keep[order[before >= settings.top_p * p[keep].sum()]] = False
        keep[order[0]] = True
    if settings.min_p is not None:
        keep &= p >= settings.min_p * p.max()
    return np.where(keep, p, 0.0)


class StopStrings:
    """Lets text through up to the stop string that ends first, holding back what may become one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = tuple(s for s in stops if s)
        self.held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text that is certain not to belong to a stop string."""
        self.held += text
        found = [(i + len(s), i) for s in self.stops if (i := self.held.find(s)) >= 0]
        if found:
            self.stopped = True
            _, begin = min(found)
            text, self.held = self.held[:begin], ""
            return text
        keep = max((_overlap(self.held, s) for s in self.stops), default=0)
        cut = len(self.held) - keep
        text, self.held = self.held[:cut], self.held[cut:]
        return text

    def finish(self) -> str:
        """What was held back for nothing."""
        text, self.held = self.held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`.

    >>> _overlap("a fine En", "End"), _overlap("no", "End")
    (2, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def sample(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stops: tuple[str, ...] = (),
    document_end: str = "",
    sampled: Sampled | None = None,
) -> Iterator[str]:
    """Text that goes on from the prompt, `length` tokens of it, or without end if that is 0.

    The unknown symbol is never drawn. Where documents end with `document_end` (a line end, where
    each line is a document), the model begins a new one behind it.
    """
    import torch

    sampled = sampled if sampled is not None else Sampled()
    rng = np.random.default_rng(seed)
    decoder, gate = tokenizer.decoder(), StopStrings(stops)
    with torch.inference_mode():
        prompt_ids = tokenizer.encode(prompt).tolist()
        for token in prompt_ids:
            decoder.push(token)  # so that what follows is joined to the prompt as it should be
        state = model.start(1)
        logits, state = _read(model, [tokenizer.start, *prompt_ids], state)
        tail = prompt
        while not gate.stopped and (length == 0 or sampled.tokens < length):
            token = _next(logits, tokenizer, settings, rng, sampled)
            piece = decoder.push(token)
            tail = (tail + piece)[-8:]
            out = gate.push(piece)
            if out:
                yield out
            ended = bool(document_end) and bool(piece) and tail.endswith(document_end)
            reading = [token, tokenizer.start] if ended else [token]
            logits, state = _read(model, reading, state)
    if not gate.stopped:
        rest = gate.push(decoder.finish()) + gate.finish()
        if rest:
            yield rest


def _next(
    logits: Probabilities,
    tokenizer: Tokenizer,
    settings: SamplingSettings,
    rng: np.random.Generator,
    sampled: Sampled,
) -> int:
    own = softmax(logits)
    if tokenizer.unknown is not None and tokenizer.size > 1:
        logits = logits.copy()
        logits[tokenizer.unknown] = -np.inf
    token = draw(logits, settings, rng)
    sampled.tokens += 1
    sampled.nats -= float(np.log(max(own[token], 1e-300)))
    return token


def _read(model: LanguageModel, ids: list[int], state: Any) -> tuple[Probabilities, Any]:
    """Read ids; the logits behind the last. Shapes: -> (V,)."""
    import torch

    for begin in range(0, max(0, len(ids) - 1), 512):  # a long prompt, in chunks
        chunk = ids[begin : min(begin + 512, len(ids) - 1)]
        _, state = model(torch.tensor([chunk]), state)
    logits, state = model(torch.tensor([ids[-1:]]), state)
    return logits[0, -1].double().numpy(), state
