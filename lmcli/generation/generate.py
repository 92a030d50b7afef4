"""A run + a prompt -> texts: what ``lmcli sample`` does.

**In:** a run, a prompt, how to sample, how many texts of which length.
**Out:** `Samples`: chunks of text as they are made, or whole texts with their figures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmcli.errors import UsageError
from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.generation.parallel import processes_for, spread
from lmcli.generation.sampling import (
    GenerationStats,
    SamplingSettings,
    TextChunk,
    batch_size,
    in_order,
    sample_batch,
)
from lmcli.report.progress import OnProgress
from lmcli.report.result import Passage, Reportable, Result
from lmcli.tokenizers.base import warn_unknown

if TYPE_CHECKING:
    from lmcli.generation.mixed_model import Mixed
    from lmcli.generation.novelty import Novelty
    from lmcli.run import Run

DOCUMENT_ENDS = {"line": "\n", "paragraph": "\n\n"}
"""what ends a document, by the `documents` option that the run was trained with"""


@dataclass(frozen=True)
class Sample(Reportable):
    """One text and its figures."""

    run: str
    prompt: str
    text: str
    """without the prompt"""
    tokens: int
    nats: float
    """-ln p of the sampled tokens under the model itself (temperature 1, no filter)"""
    seconds: float
    """since the first token of the texts that were made together with this one"""
    seed: int
    mix: Sequence[str] = ()
    """runs that the text was drawn from together with `run`"""
    novelty: Novelty | None = None
    """how much of the text stands in the training text, where that was looked for"""

    def result(self) -> Result:
        """The values, and the text after its prompt."""
        values = {name: getattr(self, name) for name in VALUES}
        if self.mix:
            values["mix"] = list(self.mix)
        if self.novelty is None:
            return Result("sample", values, [Passage(self.prompt + self.text)])
        values["novelty"] = self.novelty.to_json()
        return Result("sample", values, [self.novelty.passages(self.prompt, self.text)])


VALUES = ("run", "prompt", "text", "tokens", "nats", "seconds", "seed")


class Samples(Iterator[str]):
    """`count` texts, made while they are read: an iterator of chunks of text without the prompt.

    `chunks` also tells where a text ends; `texts` gives whole texts with their figures. Text i has
    the seed `seed` + i.
    """

    def __init__(
        self,
        run: Run,
        prompt: str,
        settings: SamplingSettings,
        *,
        length: int,
        stops: Sequence[str],
        count: int,
        seed: int | None,
        on_progress: OnProgress,
        mixed: Mixed | None = None,
        novelty: bool = False,
    ) -> None:
        for name, value, least in (("length", length, 0), ("count", count, 1)):
            if value < least:
                problem = f"--{name} {value} is out of range"
                raise UsageError(problem, f"it must be at least {least}")
        self.run, self.prompt, self.settings = run, prompt, settings
        self.length, self.stops, self.count = length, tuple(stops), count
        self.seed = time.time_ns() % 2**31 if seed is None else seed
        self.mix = tuple(str(other.path) for other in mixed.runs[1:]) if mixed else ()
        self.model = mixed.open() if mixed else open_numpy_model(run) or run.model()
        self.training = None
        if novelty:
            from lmcli.generation.novelty import TrainingTokens

            self.training = TrainingTokens.of(run, on_progress)
        warn_unknown(run.tokenizer, prompt, on_progress)
        documents = run.record.corpus["options"]["documents"]
        self.document_end = DOCUMENT_ENDS.get(documents, "")
        self._strings = (text for text, _ in self.chunks() if text)

    def __next__(self) -> str:
        return next(self._strings)

    def chunks(self) -> Iterator[tuple[str, bool]]:
        """Chunks of text after text; with each, whether the text ends with it."""
        for seeds in self._batches():
            yield from in_order(self._batch(seeds, None), len(seeds))

    def texts(self) -> Iterator[Sample]:
        """Whole texts in the order of their seeds."""
        for seeds in self._batches():
            began, text, stats = time.perf_counter(), "", [GenerationStats() for _ in seeds]
            ended = iter(zip(seeds, stats, strict=True))
            for chunk, last in in_order(self._batch(seeds, stats), len(seeds)):
                text += chunk
                if last:
                    seed, own = next(ended)
                    figures = own.tokens, own.nats, time.perf_counter() - began, seed
                    novelty = self.training.novelty(text) if self.training else None
                    about = self.mix, novelty
                    yield Sample(str(self.run.path), self.prompt, text, *figures, *about)
                    text = ""

    def _batches(self) -> Iterator[Sequence[int]]:
        """The seeds of texts that are made together."""
        together = batch_size(self.count, self.length, self.run.tokenizer.size)
        together *= processes_for(self.model, self.count, self.length)
        for begin in range(0, self.count, together):
            yield range(self.seed + begin, self.seed + min(begin + together, self.count))

    def _batch(
        self, seeds: Sequence[int], stats: Sequence[GenerationStats] | None
    ) -> Iterator[TextChunk]:
        def make(seeds: Sequence[int], stats: Sequence[GenerationStats] | None) -> Any:
            tokenizer, end = self.run.tokenizer, self.document_end
            options = self.length, self.settings, seeds, self.stops, end, stats
            return sample_batch(self.model, tokenizer, self.prompt, *options)

        return spread(make, seeds, processes_for(self.model, len(seeds), self.length), stats)
