"""What every probe does: runs + a text -> how far back each remembers, with intervals and chance.

**In:** `ProbedModel`s (trained models), `ProbeData` (a text none was trained on), settings, a seed.
**Out:** `ProbeResult`: rows of numbers, one row a run for the summary, one sentence.

A probe asks nothing of an architecture but what `models.base.LanguageModel` promises. A model to
which a probe does not apply (a table of counts has no gradient) is left out, with a note.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from lmcli.data.corpus import Corpus
from lmcli.data.split import Split
from lmcli.evaluation.statistics import Floats
from lmcli.grammars.base import find_companions
from lmcli.models.base import LanguageModel
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.report.result import Column, Figure, Metric, Point, Series
from lmcli.run import Run
from lmcli.settings import Settings
from lmcli.tokenizers.base import Tokenizer

Row = Mapping[str, Any]
NOISE = 2e-5
"""nats; differences below are those of float32 sums taken in another order, and count as none"""


@dataclass(frozen=True)
class ProbedModel:
    """A model under test."""

    name: str
    arch: str
    model: LanguageModel
    tokenizer: Tokenizer
    untrained: Callable[[], LanguageModel]
    """the same architecture as it was before it was trained"""

    @classmethod
    def of(cls, run: Run) -> ProbedModel:
        """A run with its best weights."""

        def untrained() -> LanguageModel:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.record.seed)
                return run.new_model().eval()

        return cls(str(run.path), run.record.arch, run.model(), run.tokenizer, untrained)

    def row(self, **values: Any) -> dict[str, Any]:
        """A row of this run."""
        return {"run": self.name, "arch": self.arch, **values}


@dataclass(frozen=True)
class ProbeData:
    """What the runs are tested on; each piece begins from the start state."""

    held_out: tuple[str, ...]
    train: tuple[str, ...] = ()
    """what they were trained on, for controls that count words; empty if it is not at hand"""
    items: Path | None = None
    """held-out items of a grammar that belong to the text"""
    optimum: Mapping[str, float] = field(default_factory=dict)
    """the grammar's best possible figures per word, such as "perplexity" """

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        held_out: Sequence[str],
        train: Split | None = None,
        on_progress: OnProgress = warnings_only,
    ) -> ProbeData:
        """Documents of `texts`, with what a grammar has put beside these."""
        found = find_companions(texts, on_progress)
        about = found.about or {}
        per_word = found.items and about.get("tokenizer", "word") == "word"
        optimum = about.get("optimum") if per_word else None
        return cls(
            tuple(held_out),
            _sample(train),
            found.items,
            optimum if isinstance(optimum, dict) else {},
        )

    @classmethod
    def of_corpus(cls, corpus: Corpus, on_progress: OnProgress = warnings_only) -> ProbeData:
        """What a corpus holds out: the validation and the test part."""
        held_out = [*_sample(corpus.valid), *_sample(corpus.test)]
        return cls.of(corpus.spec.texts, held_out, corpus.train, on_progress)

    @property
    def chars(self) -> int:
        """Characters in all."""
        return sum(map(len, self.held_out)) + sum(map(len, self.train))


MOST_CHARACTERS = 1 << 25
"""of each part of a corpus; of a larger one an evenly spread sample is taken"""


def _sample(part: Split | None) -> tuple[str, ...]:
    return tuple(part.sample(MOST_CHARACTERS).documents) if part else ()


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found out."""

    probe: str
    rows: Sequence[Mapping[str, Any]]
    verdict: str
    summary: Sequence[Mapping[str, Any]] = ()
    """one row a run, `figure` in it being the probe's one number in words"""
    columns: Sequence[Column] = ()
    table: Sequence[Mapping[str, Any]] = ()
    """what is shown of the rows, or of the summary, under these columns"""
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    differences: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """The keys of ``lmcli probe NAME --json``."""
        values = {"probe": self.probe, "rows": list(self.rows), "verdict": self.verdict}
        values |= {"summary": list(self.summary), "notes": list(self.notes)}
        return values | ({"differences": list(self.differences)} if self.differences else {})


class Probe(abc.ABC):
    """A test of memory."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Why a run cannot be probed, in one line; None where it can."""
        return None

    @abc.abstractmethod
    def run(
        self, subjects: Sequence[ProbedModel], data: ProbeData, settings: Any, seed: int = 0
    ) -> ProbeResult:
        """Measure; the same seed gives the same numbers."""


def zero_noise(values: Floats) -> Floats:
    """The same with 0 for differences that come from rounding."""
    exact: Floats = np.where(np.abs(values) < NOISE, 0.0, values)
    return exact


def figure(
    names: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    x: str,
    title: str,
    x_label: str,
    metric: Metric,
    reference: float | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> Figure:
    """Rows as a picture: a series for each run of `names`, a tick for each `x`."""
    ticks = sorted({row[x] for row in rows if row["run"] in names})
    place = {(row["run"], row[x]): row for row in rows}
    series = []
    for run, name in names.items():
        found = [place.get((run, tick), {}) for tick in ticks]
        points = [Point(f.get("value"), f.get("low"), f.get("high")) for f in found]
        series.append(Series(name, points))
    shown = [str(tick) for tick in ticks]
    return Figure(title, shown, series, metric, x_label, reference, scale=scale)


def labels(subjects: Sequence[ProbedModel]) -> dict[str, str]:
    """A short name for each run: its architecture, or the folder's where two are alike.

    Folders that are alike, too, keep their whole path.
    """
    archs = [s.arch for s in subjects]
    folders = [Path(s.name).name for s in subjects]
    names = {}
    for s, folder in zip(subjects, folders, strict=True):
        short = folder if folders.count(folder) == 1 else s.name
        names[s.name] = s.arch if archs.count(s.arch) == 1 else short
    return names


def sentence(parts: Sequence[str]) -> str:
    """Findings as one sentence."""
    return "; ".join(parts)


def leading_run(rows: Sequence[Row], shows: Callable[[Row], bool]) -> tuple[Sequence[Row], bool]:
    """The rows in front of the first in which memory does not show; whether these are all.

    A run reaches as far as the last of them: what shows again further away is taken for chance.

    >>> leading_run([{"low": 0.3}, {"low": -0.1}, {"low": 0.2}], lambda row: row["low"] > 0)
    ([{'low': 0.3}], False)
    """
    held = list(itertools.takewhile(shows, rows))
    return held, len(held) == len(rows)


def bucket_bound(length: int) -> int:
    """The upper bound of the bucket 1, 2, 3-4, 5-8, 9-16, ... that a length is in.

    >>> [bucket_bound(n) for n in (1, 2, 3, 8, 9, 1000)]
    [1, 2, 4, 8, 16, 1024]
    """
    return 1 << (length - 1).bit_length()


def bucket_name(low: int, high: int) -> str:
    """A bucket as it is shown.

    >>> bucket_name(9, 16), bucket_name(1, 1)
    ('9-16', '1')
    """
    return str(low) if low == high else f"{low}-{high}"
