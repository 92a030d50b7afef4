"""A text scored segment by segment has the score that it has when it is scored at once."""

import dataclasses
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmcli.data.documents import DocumentOffsets, Documents
from lmcli.data.text import Limits, Text
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.perplexity import score_documents, score_long
from lmcli.evaluation.score import Score
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.report.progress import ProgressCounter
from lmcli.settings import names
from lmcli.tokenizers.base import Tokenizer

WORDS = np.random.default_rng(3).choice(["one ", "two, ", "trés\n", "\n", "Ωmega ", "  x\r\n"], 700)
LONG = "".join(WORDS.tolist()) + "end of it."
PIECES = (LONG, "short one.\n", LONG[:100], "x")


def text_of(content: bytes, window: int) -> Text:
    """A text that is held in memory."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return Text("a.txt", Path(file.name), Limits(window), decoded=True)


def lying(texts: tuple[str, ...], window: int) -> Documents:
    """The same pieces, read some bytes at a time."""
    text = text_of("".join(texts).encode(), window)
    lengths, chars = np.array([len(t.encode()) for t in texts]), np.array([*map(len, texts)])
    begins = np.cumsum(lengths) - lengths
    return Documents([DocumentOffsets(text, begins, lengths, chars)])


def speaker(arch: str, name: str) -> tuple[LanguageModel, Tokenizer]:
    """A tokenizer that knows most of the text, and an untrained model of its size."""
    cls = TOKENIZERS.load(name)
    settings = cls.Settings(**({"vocabulary": 270} if name == "bpe" else {}))
    tokenizer = cls.train([LONG.replace("Ωmega", "two")], settings)
    torch.manual_seed(0)
    models = MODELS.load(arch)
    small = {"hidden": 16, "embedding": 8}
    known = {k: v for k, v in small.items() if k in names(models.Settings)}
    model = models(tokenizer.size, models.Settings(**known))
    if arch == "ngram":
        model.fit_counts(tokenizer.encode(LONG))
    return model, tokenizer


def same(one: Score, other: Score) -> None:
    for field in dataclasses.fields(Score):
        found, expected = getattr(one, field.name), getattr(other, field.name)
        assert found == pytest.approx(expected, rel=2e-6, abs=1e-4), field.name


@pytest.mark.parametrize("name", TOKENIZERS.names())
@pytest.mark.parametrize("reset", ["document", "line", "never"])
def test_the_score_is_that_of_all_pieces_at_once(name: str, reset: Any) -> None:
    model, tokenizer = speaker("gru", name)
    expected = Score.of(score_documents(model, tokenizer, PIECES, reset))
    assert expected.unknown_tokens > 0 or tokenizer.unknown is None
    for window, segment, rows in ((64, 1, 1), (200, 1, 2), (4096, 5000, 1)):
        found = score_long(model, tokenizer, lying(PIECES, window), reset, rows, segment)
        same(found, expected)
    same(score_long(model, tokenizer, PIECES, reset), expected)


def test_the_memory_of_a_summary_does_not_grow_with_the_text() -> None:
    """NumPy's, which holds ids, ends and nats; a score by tokens needs it all."""
    model, tokenizer = speaker("gru", "byte")

    def peak(score: Callable[[Documents], object], times: int) -> int:
        documents = lying((LONG * times,), 300)
        tracemalloc.start()
        score(documents)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    def in_segments(documents: Documents) -> Score:
        return score_long(model, tokenizer, documents, "never", 2, 500)

    def at_once(documents: Documents) -> object:
        return score_documents(model, tokenizer, documents, "never")

    peak(in_segments, 1)  # what is loaded once
    assert peak(in_segments, 12) < 1.5 * peak(in_segments, 3)
    assert peak(at_once, 12) > 2.5 * peak(at_once, 3)


@pytest.mark.parametrize("arch", ["attention", "lstm", "ngram", "window"])
def test_the_state_goes_from_segment_to_segment(arch: str) -> None:
    model, tokenizer = speaker(arch, "byte")
    expected = Score.of(score_documents(model, tokenizer, PIECES))
    same(score_long(model, tokenizer, lying(PIECES, 300), "document", 1, 1), expected)


def test_a_stream_may_go_on_from_a_state() -> None:
    model, tokenizer = speaker("gru", "byte")
    ids = np.concatenate([[tokenizer.start], tokenizer.encode(LONG)])
    whole = stream_nats(model, ids)
    state = model.initial_state(1)
    with torch.inference_mode():
        _, state = model(torch.from_numpy(ids[None, :100]), state)
    rest = stream_nats(model, ids[100:], state=state)
    assert rest == pytest.approx(whole[100:], abs=1e-4)


@pytest.mark.parametrize("segment", [200, 1 << 20])
def test_a_counter_is_told_of_every_token_and_of_those_read_again(segment: int) -> None:
    seen: list[tuple[int, int]] = []

    class Noted(ProgressCounter):
        def add(self, amount: int) -> None:
            super().add(amount)
            seen.append((self.done, self.total))

    model, tokenizer = speaker("gru", "char")
    tokens = sum(len(tokenizer.encode(piece)) for piece in PIECES) + len(PIECES) - 1  # start ids
    counter = Noted()
    score_long(model, tokenizer, PIECES, "document", rows=2, segment=segment, counter=counter)
    assert (counter.stage, counter.unit) == ("scoring", "M tokens")
    assert counter.done == counter.total > tokens
    assert all(done <= total for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    score_documents(model, tokenizer, PIECES, "document", rows=2, counter=counter)
    assert counter.done == counter.total >= tokens


@pytest.mark.parametrize("arch", ["gru", "ngram"])
def test_what_is_read_again_is_counted_and_the_end_is_the_end(build, stream, arch) -> None:
    model, seen = build(arch, vocabulary=7), list[tuple[int, int]]()
    counter = ProgressCounter(lambda event: None)
    read = model.log_probabilities

    def watched(tokens, *more):
        seen.append((tokens.numel(), counter.done))
        return read(tokens, *more)

    model.log_probabilities = watched
    ids = stream(6000, 7)
    counter.begin("scoring", len(ids) - 1, "M tokens")
    stream_nats(model, ids, rows=8, counter=counter)
    assert counter.done == counter.total
    work = sum(tokens for tokens, _ in seen)
    assert abs(counter.done - work) <= 0.1 * work
    assert (counter.done > len(ids)) == (work > len(ids) + 8 * 128)
