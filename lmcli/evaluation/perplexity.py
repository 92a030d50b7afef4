"""A text longer than the memory -> its Score, some tokens at a time.

**In:** a model, a tokenizer, pieces of text that are read when they are asked for.
**Out:** the `Score` that `score_documents` and `Score.of` would give, each token scored once;
only sums are kept. The state at the end of one segment is that at the beginning of the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.log_likelihood import LONGEST_CHUNK, ROWS, Reset, carried_nats, stream_nats
from lmcli.evaluation.score import Score, block_width
from lmcli.models.base import LOGITS, LanguageModel, State
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import Tokenizer, chunks_of

SEGMENT = 1 << 20  # tokens scored together

Integers = npt.NDArray[np.integer[Any]]
Tokens = tuple[Integers, Integers]
"""ids, and where in the text each ends, in characters"""


def score_long(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    reset: Reset = "document",
    rows: int = ROWS,
    segment: int = SEGMENT,
    meter: ProgressCounter | None = None,
) -> Score:
    """Score pieces of text; with reset="never" the state is carried from piece to piece.

    The meter counts tokens; how many there are is guessed from those that were read so far.
    """
    chunk = max(8, min(LONGEST_CHUNK, LOGITS // (rows * model.scoring_width)))
    size = rows * chunk * max(1, segment // (rows * chunk))  # without padding, which forgets
    tally, meter = _Tally(pieces, tokenizer), meter or ProgressCounter()
    meter.begin("scoring", 0, "M tokens")
    before, state = np.array([tokenizer.start]), None
    for ids, ends in _of_size(_tokens(tokenizer, tally.watched(), reset), size):
        read = np.concatenate([before, ids])
        meter.total = max(meter.done + len(ids), tally.guess(meter.done + len(ids), int(ends[-1])))
        nats, state = _nats(model, read, state, rows, chunk if len(ids) == size else 0, meter)
        before = ids[-1:]
        tally.add(ids, ends, nats)
    return tally.score()


def _nats(
    model: LanguageModel,
    ids: Integers,
    state: State | None,
    rows: int,
    chunk: int,
    meter: ProgressCounter,
) -> tuple[npt.NDArray[np.float32], State | None]:
    if chunk:
        return carried_nats(model, ids, state, rows, chunk, meter)
    return stream_nats(model, ids, rows, state=state, meter=meter), None


def _tokens(
    tokenizer: Tokenizer, fragments: Iterable[tuple[str, bool]], reset: Reset
) -> Iterator[Tokens]:
    """Ids with start ids among them, but for the first, which nobody predicts."""
    offset, begun, whole, previous = 0, False, True, tokenizer.start
    for fragment, goes_on in fragments:
        lines = fragment.splitlines(keepends=True) if reset == "line" else [fragment]
        for number, text in enumerate(lines):
            is_start = number > 0 or not goes_on or (reset == "line" and whole)
            if is_start and begun and reset != "never":
                yield np.array([tokenizer.start]), np.array([offset])
            if is_start:
                encoded = tokenizer.encode_with_ends(text)
            else:
                encoded = tokenizer.encode_rest_with_ends(text, previous)
            yield encoded.ids, encoded.ends + offset
            begun, offset = True, offset + len(text)
            whole = bool(text) and text.splitlines()[-1] != text.splitlines(keepends=True)[-1]
            previous = int(encoded.ids[-1]) if len(encoded.ids) else tokenizer.start


def _of_size(tokens: Iterable[Tokens], size: int) -> Iterator[Tokens]:
    """The same, so many at a time; the last may be fewer."""
    held: list[Tokens] = []
    count = 0
    for some in tokens:
        held.append(some)
        count += len(some[0])
        while count >= size:
            ids, ends = (np.concatenate(parts) for parts in zip(*held, strict=True))
            yield ids[:size], ends[:size]
            held, count = [(ids[size:], ends[size:])], count - size
    if count:
        ids, ends = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield ids, ends


class _Tally:
    """Sums over a text, as it is scored."""

    def __init__(self, pieces: Sequence[str], tokenizer: Tokenizer) -> None:
        self._pieces, self._tokenizer = pieces, tokenizer
        chunks = chunks_of(pieces)
        chars = pieces.chars if hasattr(pieces, "chars") else sum(len(s.text) for s in chunks)
        self._chars = int(chars)
        self._width = block_width(self._chars)
        self._blocks = max(1, self._chars // self._width)
        self._block_nats = np.zeros(self._blocks)
        self._nats: list[float] = []
        self._unknown_nats: list[float] = []
        self._tokens = self._unknown = self._bytes = self._words = 0

    def watched(self) -> Iterator[tuple[str, bool]]:
        """The text in fragments, and whether each goes on with the piece before it."""
        inside = False  # whether the piece so far ends within a word
        for stretch in chunks_of(self._pieces):
            for number, text in enumerate(stretch.texts()):
                if number == 0 and not text:
                    continue
                self._bytes += len(text.encode("utf-8", "surrogatepass"))
                goes_on = number == 0 and inside and text[:1].strip() != ""
                self._words += len(text.split()) - goes_on
                inside = text[-1:].strip() != ""
                yield text, number == 0

    def add(self, ids: Integers, ends: Integers, nats: npt.NDArray[np.float32]) -> None:
        real = ids != self._tokenizer.start
        ids, ends, exact = ids[real], ends[real], nats[real].astype(np.float64)
        block = np.minimum(np.maximum(ends - 1, 0) // self._width, self._blocks - 1)
        self._block_nats += np.bincount(block, weights=exact, minlength=self._blocks)
        unknown = self._tokenizer.unknown
        strange = exact[ids == (-1 if unknown is None else unknown)]
        self._nats.append(math.fsum(exact))
        self._unknown_nats.append(math.fsum(strange))
        self._tokens += len(ids)
        self._unknown += len(strange)

    def guess(self, tokens: int, chars: int) -> int:
        """How many tokens all of it has, if so many characters have so many."""
        return tokens * self._chars // max(1, chars)

    def score(self) -> Score:
        sizes = np.full(self._blocks, float(self._width))
        sizes[-1] = self._chars - self._width * (self._blocks - 1)
        return Score(
            nats=math.fsum(self._nats),
            tokens=self._tokens,
            chars=self._chars,
            bytes=self._bytes,
            words=self._words,
            unknown_tokens=self._unknown,
            unknown_nats=math.fsum(self._unknown_nats),
            block_nats=self._block_nats,
            block_chars=sizes,
        )
