"""A text -> the nats of its tokens and the distribution of the next one, a keystroke at a time.

**In:** a NumPy model (or a torch model behind the same interface), its tokenizer, a text.
**Out:** a `Reading`. The model's state after the latest texts is kept, so that one more character
or word costs one token, not the whole text.

The numbers are those of ``lmcli eval`` and ``lmcli inspect``: where the tokenizer has an unknown
rate, an unknown token has that chance, and the known ones share the rest (see `unknown_words`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.evaluation.score import ScoredText
from lmcli.evaluation.unknown_words import UnknownWords
from lmcli.generation.numpy_models.base import Floats, NumpyModel
from lmcli.tokenizers.base import Ids, Tokenizer

KEPT_BYTES = 1 << 25
"""of states of one model, at most"""
KEPT_PREFIXES = 48
NEAR_END = 3
"""the states after a text's last tokens are kept: the next keystroke may change the last token"""
CONTEXT = 8
"""tokens before a token that decide how it is written"""


@dataclass(frozen=True)
class Reading:
    """A text as a model has read it."""

    scored: ScoredText
    after: Floats
    """ln q of every token that may come next. Shapes: (V,)"""


@dataclass(frozen=True)
class Token:
    """A token that may come next, or has come."""

    text: str
    """what it adds to the text; empty for a byte within a character"""
    symbol: str
    """a printable name"""
    log_probability: float
    unknown: bool


@dataclass(frozen=True, eq=False)
class _Prefix:
    ids: Ids
    nats: Sequence[float]
    state: Sequence[Any]

    @property
    def size(self) -> int:
        states = sum(int(part.nbytes) for part in self.state)
        return states + self.ids.nbytes + 32 * len(self.nats)


class PrefixReader:
    """Reads texts with one model; only one thread may use it, and the model, at a time."""

    def __init__(self, model: NumpyModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.unknown = UnknownWords(tokenizer)
        self._prefixes: list[_Prefix] = []  # the one used last is the last

    def read(self, text: str, seconds: float) -> Reading | None:
        """The whole text, or None where the time was too short; the next call goes on there."""
        end = time.perf_counter() + seconds
        encoded = self.tokenizer.encode_with_ends(text)
        ids, count = encoded.ids.astype(np.int64), len(encoded.ids)
        nats, begin = self._resume(ids)
        for place in range(begin, count):
            token = int(ids[place])
            nats.append(-float(self.log_probabilities(self.model.logits()[0])[token]))
            self.model.read([token])
            late = time.perf_counter() > end and place + 1 < count
            if late or place + 1 + NEAR_END > count:
                self._keep(ids[: place + 1], nats)
            if late:
                return None
        scored = ScoredText(
            text, encoded.ids, encoded.ends, np.array(nats, np.float32), self.tokenizer.unknown,
            self.unknown.spelling_nats(text, encoded), self.unknown.known_nats,
        )  # fmt: skip
        return Reading(scored, self.log_probabilities(self.model.logits()[0]))

    def log_probabilities(self, logits: Floats) -> Floats:
        """ln q of every token, from logits, which are overwritten. Shapes: (V,) -> (V,)."""
        excluded = self.unknown.excluded
        if excluded is not None:
            logits[excluded] = -np.inf
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        every = np.arange(len(logits))
        found: Floats = -self.unknown.token_nats(every, -logits)
        return found

    def typed(self, text: str) -> str:
        """The part of a text that is being typed which can be read already.

        Not yet: a blank at the end where it will be part of the next token, and a last word that
        is unknown, as it may be the beginning of one that is not.
        """
        if text[-1:].isalnum() and not self.tokenizer.spells:
            encoded = self.tokenizer.encode_with_ends(text)
            if encoded.ids[-1] == self.tokenizer.unknown:
                return text[: int(encoded.ends[-2])] if len(encoded.ends) > 1 else ""
        if text.endswith(" ") and not text.endswith("  "):
            before, after = (self.tokenizer.encode(t) for t in (text[:-1], f"{text}a"))
            if len(after) == len(before) + 1:  # the blank and the next word are one token
                return text[:-1]
        return text

    def likeliest(self, log_probabilities: Floats, before: Sequence[int], top: int) -> list[Token]:
        """The `top` likeliest tokens after the ids `before`."""
        top = min(top, len(log_probabilities))
        some = np.argpartition(-log_probabilities, top - 1)[:top]
        order = some[np.argsort(-log_probabilities[some], kind="stable")].tolist()
        return [self.token(i, before, float(log_probabilities[i])) for i in order]

    def token(self, token: int, before: Sequence[int], log_probability: float) -> Token:
        """One token as a reader sees it."""
        context = list(before[-CONTEXT:])
        written = self.tokenizer.decode(context)
        whole = self.tokenizer.decode([*context, token])
        text = whole[len(written) :] if whole.startswith(written) else ""
        is_unknown = token == self.tokenizer.unknown
        return Token(text, self.tokenizer.symbol(token), log_probability, is_unknown)

    def _resume(self, ids: Ids) -> tuple[list[float], int]:
        """Set the model to the longest prefix that is kept; its nats and its length."""
        fits = [p for p in self._prefixes if self._begins(p.ids, ids)]
        if not fits:
            self.model.reset(1)
            self.model.read([self.tokenizer.start])
            return [], 0
        best = max(fits, key=lambda p: len(p.ids))
        self._prefixes.append(self._prefixes.pop(self._prefixes.index(best)))
        self.model.restore(best.state)
        return list(best.nats), len(best.ids)

    @staticmethod
    def _begins(prefix: Ids, ids: Ids) -> bool:
        size = len(prefix)
        return size <= len(ids) and np.array_equal(prefix, ids[:size])

    def _keep(self, ids: Ids, nats: Sequence[float]) -> None:
        self._prefixes.append(_Prefix(ids.copy(), tuple(nats), self.model.snapshot()))
        held = sum(p.size for p in self._prefixes)
        while len(self._prefixes) > KEPT_PREFIXES or (held > KEPT_BYTES and self._prefixes[1:]):
            held -= self._prefixes.pop(0).size
