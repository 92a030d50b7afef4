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
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from lmcli.data.corpus import Corpus, find_documents, reopen_corpus
from lmcli.data.split import Split
from lmcli.data.text import TextOptions
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.ensemble import Ensemble, open_ensemble, stream_of
from lmcli.evaluation.log_likelihood import (
    LONGEST_CHUNK,
    Integers,
    carried_nats,
    stream_nats,
)
from lmcli.evaluation.score import Score, ScoreAccumulator, ScoredText, warn_of_unknown
from lmcli.evaluation.unknown_words import Nats, UnknownWords
from lmcli.models.base import LOGITS, LanguageModel
from lmcli.report.progress import Message, OnProgress, ProgressCounter, warnings_only
from lmcli.report.result import (
    BITS_PER_CHAR,
    COUNT,
    PERPLEXITY,
    Block,
    Column,
    Facts,
    Metric,
    Passages,
    Reportable,
    Result,
    Table,
)
from lmcli.report.result import text as text_column
from lmcli.run import Run
from lmcli.settings import one_of, update
from lmcli.tokenizers.base import Tokenizer, chunks_of

Reset = Literal["never", "line", "document"]
BEGIN_CACHE = {"test": ("train", "valid"), "valid": ("train",)}
"""what a cache reads before a part of a run's own text; any other text may hold all of it"""
LEVELS = ("summary", "line", "token")
RESETS = ("never", "line", "document")

SEGMENT = 1 << 20  # tokens scored together

Tokens = tuple[Integers, Integers, Nats]
"""ids, where in the text each ends, in characters, and the nats of their spelling"""


def score_documents(
    model: LanguageModel,
    tokenizer: Tokenizer,
    documents: Sequence[str],
    reset: Reset = "document",
    rows: int | None = None,
    counter: ProgressCounter | None = None,
    ensemble: Ensemble | None = None,
) -> list[ScoredText]:
    """Score documents; with reset="never" the state is carried from one to the next.

    With an `ensemble` it is that which is scored, in one pass over the text from its beginning.
    """
    if reset == "line":
        documents = [line for text in documents for line in text.splitlines(keepends=True)]
    encoded = [tokenizer.encode_with_ends(text) for text in documents]
    stream = stream_of(tokenizer, [e.ids for e in encoded], reset == "never")
    counter = counter or ProgressCounter()
    counter.begin("scoring", len(stream) - 1, "M tokens")
    unknown, real = UnknownWords(tokenizer), stream[1:] != tokenizer.start
    cuts = np.cumsum([len(e.ids) for e in encoded])[:-1]
    if ensemble is not None and ensemble.cache is not None:
        texts = ensemble.new_unknown_texts()
        each = [texts.ids(text, e) for text, e in zip(documents, encoded, strict=True)]
        counted = stream_of(tokenizer, each, reset == "never")
        found = ensemble.cached_nats(stream, counted, texts, unknown.excluded, counter)[:, real]
        nats, spelling = (np.split(part.astype(np.float32), cuts) for part in found[:2])
        known = np.split(found[2], cuts)
    else:
        how: Any = {"counter": counter, "excluded": unknown.excluded}
        if ensemble is None:
            all_nats = stream_nats(model, stream, rows, **how)
        else:
            all_nats = ensemble.nats(stream, **how)
        nats = np.split(unknown.token_nats(stream[1:][real], all_nats[real]), cuts)
        pairs = zip(documents, encoded, strict=True)
        spelling = [unknown.spelling_nats(text, e) for text, e in pairs]
        known = [np.full(len(e.ids), unknown.known_nats) for e in encoded]
    columns = zip(documents, encoded, nats, spelling, known, strict=True)
    return [ScoredText(t, e.ids, e.ends, n, tokenizer.unknown, s, k) for t, e, n, s, k in columns]


# ------------------------------------------------------------------ a long text, by segments


def score_long(
    model: LanguageModel,
    tokenizer: Tokenizer,
    documents: Sequence[str],
    reset: Reset = "document",
    rows: int | None = None,
    segment: int = SEGMENT,
    counter: ProgressCounter | None = None,
) -> Score:
    """The same for a text of any length; the total of the counter is an estimate at first."""
    rows = rows or model.scoring_rows
    chunk = max(8, min(LONGEST_CHUNK, LOGITS // (rows * model.scoring_width)))
    size = rows * chunk * max(1, segment // (rows * chunk))  # without padding, which forgets
    chars = Split(documents).chars
    unknown, counter = UnknownWords(tokenizer), counter or ProgressCounter()
    sums = ScoreAccumulator(chars, tokenizer.unknown)
    counter.begin("scoring", 0, "M tokens")
    before, state, tokens = np.array([tokenizer.start]), None, 0
    segments = _tokens(tokenizer, _fragments(documents, sums), reset, unknown)
    how: Any = {"counter": counter, "excluded": unknown.excluded}
    for ids, ends, spelling in _of_size(segments, size):
        read, left = np.concatenate([before, ids]), chars - int(ends[-1])
        tokens += len(ids)
        again = max(1.0, counter.done / max(1, tokens - len(ids)))  # with what is read again
        rest = tokens * left / max(1, int(ends[-1]))  # of the text, after these
        counter.total = counter.done + len(ids) + round(again * rest)
        if len(ids) == size:
            nats, state = carried_nats(model, read, state, rows, chunk, **how)
        else:
            nats = stream_nats(model, read, rows, state=state, **how)
        before, real = ids[-1:], ids != tokenizer.start
        nats = unknown.token_nats(ids, nats)
        sums.add_tokens(ids[real], ends[real], nats[real], spelling[real], unknown.known_nats)
    return sums.score()


def _fragments(documents: Sequence[str], sums: ScoreAccumulator) -> Iterator[tuple[str, bool]]:
    """The text in fragments, counted, and whether each continues the document before it."""
    within_word = False  # whether the document so far ends within a word
    for chunk in chunks_of(documents):
        for number, text in enumerate(chunk.texts()):
            if number == 0 and not text:
                continue
            sums.add_text(text, number == 0 and within_word and text[:1].strip() != "")
            within_word = text[-1:].strip() != ""
            yield text, number == 0


def _tokens(
    tokenizer: Tokenizer,
    fragments: Iterable[tuple[str, bool]],
    reset: Reset,
    unknown: UnknownWords,
) -> Iterator[Tokens]:
    """Ids with start ids among them, except the first, which is never predicted."""
    offset, is_first, whole, previous = 0, True, True, tokenizer.start
    for fragment, goes_on in fragments:
        lines = fragment.splitlines(keepends=True) if reset == "line" else [fragment]
        for number, text in enumerate(lines):
            is_start = number > 0 or not goes_on or (reset == "line" and whole)
            if is_start and not is_first and reset != "never":
                yield np.array([tokenizer.start]), np.array([offset]), np.zeros(1, np.float32)
            if is_start:
                encoded = tokenizer.encode_with_ends(text)
            else:
                encoded = tokenizer.encode_rest_with_ends(text, previous)
            yield encoded.ids, encoded.ends + offset, unknown.spelling_nats(text, encoded)
            is_first, offset = False, offset + len(text)
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
            ids, ends, spelling = _joined(held)
            yield ids[:size], ends[:size], spelling[:size]
            held, count = [(ids[size:], ends[size:], spelling[size:])], count - size
    if count:
        yield _joined(held)


def _joined(held: Sequence[Tokens]) -> Tokens:
    ids, ends, spelling = (np.concatenate(parts) for parts in zip(*held, strict=True))
    return ids, ends, spelling


# ------------------------------------------------------------------ what `lmcli eval` says


@dataclass(frozen=True)
class Evaluation(Reportable):
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
    """one a line or token; their nats, and nats of spelling, add up to the total"""
    method: Mapping[str, Any] = field(default_factory=dict)
    """with what it was mixed, what it learnt from the text while it was scored"""

    def result(self) -> Result:
        """Lines or tokens, and the sums."""
        values: dict[str, Any] = {"run": self.run, "texts": self.texts, **self.score.to_json()}
        values |= {"tokenizer": self.tokenizer, "arch": self.arch, "reset": self.reset}
        values |= {"seconds": self.seconds, "adaptive": [], **self.method}
        blocks: list[Block] = [Facts((*METHOD, *SUMMARY) if self.method else SUMMARY, values)]
        if self.level != "summary":
            values["items"] = self.items
        if self.level == "line":
            blocks.insert(0, Table("", LINES, self.items))
        if self.level == "token":
            parts = [(i["text"], min(1.0, i["bits"] / 12)) for i in self.items]
            note = "orange 5, red 7, bold red 10 bits or more a token"
            blocks.insert(0, Passages("", parts, note))
        return Result("eval", values, blocks)


METHOD = (Column("method", text_column("scored")),)
SUMMARY = (
    Column("tokens", COUNT, "tokens"),
    Column("chars", COUNT, "characters"),
    Column("words", COUNT, "words"),
    Column("nats", Metric("nats", 2)),
    Column("perplexity", PERPLEXITY),
    Column("perplexity_without_unknown", PERPLEXITY, "without unknown"),
    Column("unknown_tokens", COUNT, "unknown tokens"),
    Column("spelling_nats", Metric("spelling", 2), "nats of their spelling"),
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


def evaluate_run(
    run: Run,
    texts: Sequence[str],
    split: str | None,
    level: str,
    reset: str,
    rows: int | None,
    reading: Mapping[str, str | None],
    device: str = "cpu",
    on_progress: OnProgress = warnings_only,
    *,
    mix: Sequence[Run] = (),
    cache: bool = False,
    adapt: bool = False,
) -> Evaluation:
    """Score texts, or the `split` of the run's own; warns where many tokens are unknown.

    `reading` are fields of TextOptions; documents are what they were in training by default.
    """
    one_of("level", level, LEVELS)
    one_of("reset", reset, RESETS)
    chosen = choose_text(run, texts, split, reading, on_progress)
    ensemble = None
    if mix or cache or adapt:
        begin = BEGIN_CACHE.get(chosen.part or "", ())
        if mix and chosen.part == "valid":
            on_progress(Message("the weights of the mixture are fitted on this part", "warning"))
        own: Any = {"corpus": chosen.corpus, "scored": chosen.part}
        ensemble = open_ensemble(run, mix, cache, adapt, device, rows, on_progress, begin, **own)
    model = ensemble.models[0] if ensemble else run.model(device)
    if chosen.remark is not None:
        on_progress(chosen.remark)
    documents = chosen.documents
    began, items = time.perf_counter(), list[dict[str, Any]]()
    how: Any = {"reset": reset, "rows": rows, "counter": ProgressCounter(on_progress)}
    long = level == "summary" and Split(documents).chars > SEGMENT
    if long and ensemble is None:  # no need to keep every token
        score = score_long(model, run.tokenizer, documents, **how)
    else:
        scored = score_documents(model, run.tokenizer, documents, **how, ensemble=ensemble)
        score = Score.of(scored)
        items = {"summary": lambda _: [], "line": _lines, "token": _tokens_of}[level](scored)
    warn_of_unknown(score, run.path, on_progress)
    seconds, record = time.perf_counter() - began, run.record
    about = record.tokenizer, record.arch, reset, seconds
    method = {} if ensemble is None else ensemble.to_json()
    return Evaluation(str(run.path), chosen.names, score, *about, level, items, method)


@dataclass(frozen=True)
class ChosenText:
    """What is scored."""

    names: Sequence[str]
    """of its files, the first 100"""
    documents: Sequence[str]
    part: str | None = None
    """train, valid or test, if it is a part of the run's own text"""
    corpus: Corpus | None = None
    """that text"""
    remark: Message | None = None
    """which part it is, where the user named none"""


def choose_text(
    run: Run,
    texts: Sequence[str],
    part: str | None,
    reading: Mapping[str, str | None],
    on_progress: OnProgress,
) -> ChosenText:
    """The texts, or a part of the run's own text.

    Where neither is given its test part, or its validation part if that is a file and there is no
    test part.
    """
    if part is None and texts:
        unit = reading["documents"] or run.record.corpus["options"]["documents"]
        options = update(TextOptions(), {**reading, "documents": unit})
        names, documents = find_documents(texts, options, on_progress)
        return ChosenText(list(islice(names, 100)), documents)
    remark = None
    if part is None:
        held_apart = run.record.corpus["valid"] and not run.record.corpus["test"]
        part, what = ("valid", "validation") if held_apart else ("test", "held-out test")
        said = f"no text given: scoring the {what} part of the run's own text (--split {part})"
        remark = Message(said)
    one_of("split", part, ("train", "valid", "test"))
    for name, value in reading.items():
        if value != getattr(TextOptions(), name) and not (name == "documents" and not value):
            problem = f"--{name} {value}: the run's own text is read as it was in training"
            raise UsageError(problem, "name a text, or leave it out")
    corpus = reopen_corpus(run.record.corpus, run.path, texts, on_progress)
    return ChosenText(list(corpus.names[:100]), part_of(run, corpus, part), part, corpus, remark)


def part_of(run: Run, corpus: Corpus, split: str) -> Sequence[str]:
    """The documents of the training, validation or test part of a run's own text."""
    parts = {name: part.documents for name, part in corpus.parts().items() if part.documents}
    if split not in parts:
        other = "--split valid, or " if "valid" in parts else ""
        raise TextError(f"'{run.path}' was trained without a {split} part", f"{other}give a text")
    return parts[split]


def _lines(scored: Sequence[ScoredText]) -> list[dict[str, Any]]:
    """One entry a line."""
    items = []
    for line in (line for text in scored for line in text.lines()):
        score = Score.of([line])
        item = {"text": line.text.rstrip("\r\n"), "nats": score.nats}
        item |= {"spelling_nats": score.spelling_nats}
        item |= {"unknown": score.unknown_tokens, "tokens": score.tokens}
        items.append(item | {"chars": score.chars, "bits_per_char": score.bits_per_char})
    return items


def _tokens_of(scored: Sequence[ScoredText]) -> list[dict[str, Any]]:
    """One entry a token."""
    items = []
    for text in scored:
        spelling = np.zeros(len(text.ids)) if text.spelling is None else text.spelling
        columns = text.ids.tolist(), text.spans(), text.nats.tolist(), spelling.tolist()
        for token, (begin, end), nats, spelt in zip(*columns, strict=True):
            item = {"text": text.text[begin:end], "nats": nats, "unknown": token == text.unknown}
            items.append(item | {"bits": nats / math.log(2), "spelling_nats": spelt})
    return items
