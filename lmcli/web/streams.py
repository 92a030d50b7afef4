"""Texts that are made a slice at a time, on models that other requests use in between.

**In:** a model that is served, a prompt, how to sample.
**Out:** chunks of text after each slice: those of ``lmcli sample`` with the same seed. Between two
slices the state is kept apart from the model, so no text ever goes on from another's state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from lmcli.generation.generate import DOCUMENT_ENDS
from lmcli.generation.sampling import GenerationStats, SamplingSettings, TextChunk, sample_batch
from lmcli.web.models import Model
from lmcli.web.workers import SLICE


class TextStream:
    """Texts with one prompt, one a seed; only the thread of the model may call `slice`."""

    def __init__(
        self,
        model: Model,
        prompt: str,
        length: int,
        settings: SamplingSettings,
        seeds: Sequence[int],
        stops: Sequence[str],
        stats: Sequence[GenerationStats],
    ) -> None:
        self.model, self.prompt, self.length, self.settings = model, prompt, length, settings
        self.seeds, self.stops, self.stats = seeds, tuple(stops), stats
        self.ended = False
        self._saved: list[Any] = []
        self._chunks: Iterator[TextChunk] | None = None

    def slice(self) -> list[TextChunk]:
        """The chunks of the next hundredth of a second; none are left once it has `ended`."""
        reader, end, chunks = self.model.reader, time.perf_counter() + SLICE, []
        if self._chunks is None:
            documents = self.model.run.record.corpus["options"]["documents"]
            self._chunks = sample_batch(
                reader.model, reader.tokenizer, self.prompt, self.length, self.settings,
                self.seeds, self.stops, DOCUMENT_ENDS.get(documents, ""), self.stats,
            )  # fmt: skip
        else:
            reader.model.restore(self._saved)
        for chunk in self._chunks:
            chunks.append(chunk)
            if time.perf_counter() > end:
                self._saved = reader.model.snapshot()
                return chunks
        self.ended = True
        return chunks
