"""Model + text -> its score: perplexity, bits per character, every token exactly once.

**In:** a model, a tokenizer, documents.
**Out:** the nats of every token (`score_documents`); of a text that is longer than the memory the
`Score` alone (`score_long`), in which the state at the end of one segment is that at the beginning
of the next; an `Evaluation`, which is what ``lmcli eval`` says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmcli.data.split import Split
from lmcli.evaluation.log_likelihood import LONGEST_CHUNK, ROWS, carried_nats, stream_nats
from lmcli.evaluation.score import Score, ScoreAccumulator, ScoredText, warn_of_unknown
from lmcli.models.base import LOGITS, LanguageModel, State
from lmcli.report.progress import OnProgress, ProgressCounter, warnings_only
from lmcli.report.result import (
    BITS_PER_CHAR,
    COUNT,
    PERPLEXITY,
    Block,
    Column,
    Facts,
    Metric,
    Passages,
    Result,
    Table,
)
from lmcli.report.result import text as text_column
from lmcli.run import Run
from lmcli.settings import one_of
from lmcli.tokenizers.base import Ids, Tokenizer, chunks_of

Reset = Literal["never", "line", "document"]
LEVELS = ("summary", "line", "token")
RESETS = ("never", "line", "document")

SEGMENT = 1 << 20  # tokens scored together

Integers = npt.NDArray[np.integer[Any]]
Tokens = tuple[Integers, Integers]
"""ids, and where in the text each ends, in characters"""


def score_documents(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    reset: Reset = "document",
    rows: int = ROWS,
    meter: ProgressCounter | None = None,
) -> list[ScoredText]:
    """Score documents; with reset="never" the state is carried from one to the next.

    The meter counts tokens.
    """
    if reset == "line":
        pieces = [line for piece in pieces for line in piece.splitlines(keepends=True)]
    encoded = [tokenizer.encode_with_ends(piece) for piece in pieces]
    start = np.array([tokenizer.start], np.int32)
    parts: list[Ids] = []
    for i, e in enumerate(encoded):
        if i == 0 or reset != "never":
            parts.append(start)
        parts.append(e.ids)
    stream = np.concatenate(parts) if parts else start
    meter = meter or ProgressCounter()
    meter.begin("scoring", len(stream) - 1, "M tokens")
    nats = stream_nats(model, stream, rows, meter=meter)[stream[1:] != tokenizer.start]
    cuts = np.cumsum([len(e.ids) for e in encoded])[:-1]
    return [
        ScoredText(text, e.ids, e.ends, part, tokenizer.unknown)
        for text, e, part in zip(pieces, encoded, np.split(nats, cuts), strict=True)
    ]


# ------------------------------------------------------------------ a long text, by segments


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
    chars = Split(pieces).chars
    sums, meter = ScoreAccumulator(chars, tokenizer.unknown), meter or ProgressCounter()
    meter.begin("scoring", 0, "M tokens")
    before, state = np.array([tokenizer.start]), None
    for ids, ends in _of_size(_tokens(tokenizer, _fragments(pieces, sums), reset), size):
        read, done = np.concatenate([before, ids]), meter.done + len(ids)
        meter.total = max(done, done * chars // max(1, int(ends[-1])))
        nats, state = _nats(model, read, state, rows, chunk if len(ids) == size else 0, meter)
        before, real = ids[-1:], ids != tokenizer.start
        sums.add_tokens(ids[real], ends[real], nats[real])
    return sums.score()


def _fragments(pieces: Sequence[str], sums: ScoreAccumulator) -> Iterator[tuple[str, bool]]:
    """The text in fragments, counted, and whether each continues the document before it."""
    within_word = False  # whether the document so far ends within a word
    for chunk in chunks_of(pieces):
        for number, text in enumerate(chunk.texts()):
            if number == 0 and not text:
                continue
            sums.add_text(text, number == 0 and within_word and text[:1].strip() != "")
            within_word = text[-1:].strip() != ""
            yield text, number == 0


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
    """Ids with start ids among them, except the first, which is never predicted."""
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
    """The same, `size` at a time; the last may be fewer."""
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


# ------------------------------------------------------------------ what `lmcli eval` says


@dataclass(frozen=True)
class Evaluation:
    """A text under a run."""

    run: str
    texts: Sequence[str]
    """names of its files, the first 100"""
    score: Score
    tokenizer: str
    arch: str
    reset: str
    seconds: float
    level: str = "summary"
    items: Sequence[Mapping[str, Any]] = ()
    """one a line or token; their nats add up to the total"""

    def to_json(self) -> dict[str, Any]:
        """The object of ``lmcli eval --json``."""
        return self.result().to_json()

    def result(self) -> Result:
        """Lines or tokens, and the sums."""
        values: dict[str, Any] = {"run": self.run, "texts": self.texts, **self.score.to_json()}
        values |= {"tokenizer": self.tokenizer, "arch": self.arch, "reset": self.reset}
        values |= {"seconds": self.seconds}
        blocks: list[Block] = [Facts(SUMMARY, values)]
        if self.level != "summary":
            values["items"] = self.items
        if self.level == "line":
            blocks.insert(0, Table("", LINES, self.items))
        if self.level == "token":
            parts = [(i["text"], min(1.0, i["bits"] / 12)) for i in self.items]
            note = "yellow 5, red 7, bold red 10 bits or more a token"
            blocks.insert(0, Passages("", parts, note))
        return Result("eval", values, blocks)


SUMMARY = (
    Column("tokens", COUNT, "tokens"),
    Column("chars", COUNT, "characters"),
    Column("words", COUNT, "words"),
    Column("nats", Metric("nats", 2)),
    Column("perplexity", PERPLEXITY),
    Column("perplexity_without_unknown", PERPLEXITY, "without unknown"),
    Column("unknown_tokens", COUNT, "unknown tokens"),
    Column("word_perplexity", PERPLEXITY, "word perplexity"),
    Column("bits_per_byte", Metric("bits/byte", 4)),
    Column("bits_per_char", BITS_PER_CHAR),
)
LINES = (
    Column("nats", Metric("nats", 2)),
    Column("bits_per_char", Metric("bits/char", 3)),
    Column("unknown", COUNT, "unknown"),
    Column("text", text_column("line")),
)


def evaluate_documents(
    run: Run,
    model: LanguageModel,
    names: Sequence[str],
    documents: Sequence[str],
    level: str = "summary",
    reset: str = "document",
    rows: int = ROWS,
    on_progress: OnProgress = warnings_only,
) -> Evaluation:
    """Score documents under a run; warns where many tokens are unknown to it."""
    one_of("level", level, LEVELS)
    one_of("reset", reset, RESETS)
    began, items = time.perf_counter(), list[dict[str, Any]]()
    how: Any = {"reset": reset, "rows": rows, "meter": ProgressCounter(on_progress)}
    if level == "summary" and Split(documents).chars > SEGMENT:  # no need to keep every token
        score = score_long(model, run.tokenizer, documents, **how)
    else:
        scored = score_documents(model, run.tokenizer, documents, **how)
        score = Score.of(scored)
        items = {"summary": lambda _: [], "line": _lines, "token": _tokens_of}[level](scored)
    warn_of_unknown(score, run.path, on_progress)
    seconds, record = time.perf_counter() - began, run.record
    about = record.tokenizer, record.arch, reset, seconds
    return Evaluation(str(run.path), list(names), score, *about, level, items)


def _lines(scored: Sequence[ScoredText]) -> list[dict[str, Any]]:
    """One entry a line."""
    items = []
    for line in (line for text in scored for line in text.lines()):
        s = line.score()
        item = {"text": line.text.rstrip("\r\n"), "nats": s.nats, "unknown": s.unknown_tokens}
        item |= {"tokens": s.tokens, "chars": s.chars, "bits_per_char": s.bits_per_char}
        items.append(item)
    return items


def _tokens_of(scored: Sequence[ScoredText]) -> list[dict[str, Any]]:
    """One entry a token."""
    return [
        {
            "text": text.text[begin:end],
            "nats": nats,
            "unknown": token == text.unknown,
            "bits": nats / math.log(2),
        }
        for text in scored
        for token, (begin, end), nats in zip(
            text.ids.tolist(), text.spans(), text.nats.tolist(), strict=True
        )
    ]
