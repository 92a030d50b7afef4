"""What every probe does: runs + a text -> how far back each remembers, with intervals and chance.

**In:** `ProbedModel`s (trained models), `ProbeData` (a text none was trained on), settings, a seed.
**Out:** `ProbeResult`: rows of numbers, one row a run for the summary, one sentence; of one probe
or all of them a `ProbeReport`, which is what ``lmcli probe`` says.

A probe asks nothing of an architecture but what `models.base.LanguageModel` promises. A model to
which a probe does not apply (a table of counts has no gradient) is left out, with a note.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lmcli.data.corpus import Corpus, CorpusSpec, read_documents, reopen_corpus
from lmcli.data.split import Split
from lmcli.errors import LmcliError, TextError
from lmcli.evaluation.statistics import Floats
from lmcli.grammars.base import find_companions
from lmcli.models.base import LanguageModel
from lmcli.registry import PROBES
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import (
    Block,
    Column,
    Figure,
    Metric,
    Passage,
    Point,
    Result,
    Series,
    Table,
    text,
)
from lmcli.run import Run
from lmcli.settings import Settings, check_known, update
from lmcli.tokenizers.base import Tokenizer

Row = Mapping[str, Any]
Rows = Sequence[Row]
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
    run: Run | None = None  # with the record of its training

    @classmethod
    def of(cls, run: Run) -> ProbedModel:
        """A run with its best weights."""

        def untrained() -> LanguageModel:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.record.seed)
                return run.new_model().eval()

        return cls(str(run.path), run.record.arch, run.model(), run.tokenizer, untrained, run)

    def row(self, **values: Any) -> dict[str, Any]:
        """A row of this run."""
        return {"run": self.name, "arch": self.arch, **values}


Subjects = Sequence[ProbedModel]


@dataclass(frozen=True)
class ProbeData:
    """What the runs are tested on; each document begins from the start state."""

    held_out: tuple[str, ...]
    train: tuple[str, ...] = ()
    """what they were trained on, for controls that count words; empty if it is not at hand"""
    items: Path | None = None
    """held-out items of a grammar that belong to the text"""
    optimum: Mapping[str, float] = field(default_factory=dict)
    """the grammar's best possible figures per word, such as "perplexity" """
    texts: tuple[str, ...] = ()  # their names
    about: Mapping[str, Any] = field(default_factory=dict)
    """what the grammar says of its text"""

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        held_out: Sequence[str],
        train: Split | None = None,
        on_progress: OnProgress = warnings_only,
    ) -> ProbeData:
        """Documents of `texts`, with what a grammar has put beside these."""
        beside = find_companions(texts, on_progress)
        about = (beside.items and beside.about) or {}
        optimum = about.get("optimum") if about.get("tokenizer", "word") == "word" else None
        best = optimum if isinstance(optimum, dict) else {}
        return cls(tuple(held_out), _sample(train), beside.items, best, tuple(texts), about)

    @classmethod
    def of_corpus(cls, corpus: Corpus, on_progress: OnProgress = warnings_only) -> ProbeData:
        """What a corpus holds out: the validation and the test part."""
        held_out = [*_sample(corpus.valid), *_sample(corpus.test)]
        return cls.of(corpus.spec.texts, held_out, corpus.train, on_progress)

    @classmethod
    def of_runs(
        cls, runs: Sequence[Run], texts: Sequence[str], on_progress: OnProgress = warnings_only
    ) -> ProbeData:
        """The given texts, or the held-out parts of the text that all runs were trained on."""
        first = CorpusSpec.from_json(runs[0].record.corpus)
        if texts:
            train = None
            with suppress(LmcliError):
                train = reopen_corpus(runs[0].record.corpus, runs[0].path).train
            return cls.of(texts, read_documents(texts, first.options), train, on_progress)
        for run in runs[1:]:
            same = run.record.corpus["sha256"] == runs[0].record.corpus["sha256"]
            if not same or CorpusSpec.from_json(run.record.corpus) != first:
                raise TextError(
                    f"'{run.path}' and '{runs[0].path}' were trained on different texts",
                    "name a text that both are to be tested on",
                )
        corpus = reopen_corpus(runs[0].record.corpus, runs[0].path, (), on_progress)
        return cls.of_corpus(corpus, on_progress)

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
    """What a probe has measured."""

    probe: str
    rows: Rows
    verdict: str
    summary: Rows = ()
    """one row a run, `figure` in it being the probe's one number in words"""
    columns: Sequence[Column] = ()
    table: Rows = ()
    """the rows, or those of the summary, under these columns"""
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    differences: Rows = ()
    too_little: str = ""  # of what the text has too little to show memory; one of the notes

    def to_json(self) -> dict[str, Any]:
        """The keys of ``lmcli probe NAME --json``."""
        values = {"probe": self.probe, "rows": list(self.rows), "verdict": self.verdict}
        values |= {"summary": list(self.summary), "notes": list(self.notes)}
        return values | ({"differences": list(self.differences)} if self.differences else {})

    def pictures(self) -> list[Block]:
        """The figures, none where nothing was measured."""
        return list(self.figures) if self.rows else []


class Probe(abc.ABC):
    """A test of memory. `result` puts in words what `run` has measured."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    x: ClassVar[str]
    """the value of a row that its curve is drawn over, such as a gap"""
    picture: ClassVar[Figure]
    """the curve without ticks and series"""
    columns: ClassVar[Sequence[Column]]
    """of the table, after that of the run; `bucket` is the range from `x`_from to `x`"""
    one_row_a_run: ClassVar[bool] = False
    """whether the table has the rows of the summary"""
    note: ClassVar[str] = ""

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Why a run cannot be probed, in one line; None where it can."""
        return None

    @abc.abstractmethod
    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Measure; the same seed gives the same numbers."""

    def verdict(self, row: Row) -> str:
        """What a row of the summary says of its run, whose short name is row["model"]."""
        return f"{row['model']}: {row['figure']}"

    def curve(self, subjects: Subjects, rows: Rows, **changes: Any) -> Figure:
        """The picture of some rows: a series for each run, a tick for each `x`."""
        names = labels(subjects)
        ticks = sorted({row[self.x] for row in rows if row["run"] in names})
        at: dict[tuple[str, Any], Row] = {(row["run"], row[self.x]): row for row in rows}
        series = []
        for run, name in names.items():
            cells = [at.get((run, tick), {}) for tick in ticks]
            points = [Point(c.get("value"), c.get("low"), c.get("high")) for c in cells]
            series.append(Series(name, points))
        return replace(self.picture, ticks=[*map(str, ticks)], series=series, **changes)

    def result(
        self,
        subjects: Subjects,
        rows: Rows,
        summary: Rows,
        figures: Sequence[Figure] | None = None,
        **changes: Any,
    ) -> ProbeResult:
        """The rows as a table and a curve, the verdicts on all runs as a sentence."""
        names = labels(subjects)

        def named(row: Row) -> dict[str, Any]:
            own = {**row, "model": names.get(row["run"], row["run"])}
            low = row.get(f"{self.x}_from")
            return own if low is None else {**own, "bucket": bucket_name(low, row[self.x])}

        summaries = [named(row) for row in summary]
        return ProbeResult(
            self.name,
            rows,
            "; ".join(map(self.verdict, summaries)),
            summary,
            [Column("model", text("model")), *self.columns],
            summaries if self.one_row_a_run else [named(row) for row in rows],
            [self.curve(subjects, rows)] if figures is None else figures,
            **{"notes": [self.note], **changes},
        )


def zero_noise(values: Floats) -> Floats:
    """The same with 0 for differences that come from rounding."""
    exact: Floats = np.where(np.abs(values) < NOISE, 0.0, values)
    return exact


def interval_columns(heading: str, metric: Metric) -> list[Column]:
    """The columns of a measured value and of its 95 % limits."""
    headings = {"value": heading, "low": "from", "high": "to"}
    return [Column(path, metric, title) for path, title in headings.items()]


def labels(subjects: Subjects) -> dict[str, str]:
    """Short names: the architecture, where two are alike the folder, or else the whole path."""
    archs = [s.arch for s in subjects]
    folders = [Path(s.name).name for s in subjects]
    names = {}
    for s, folder in zip(subjects, folders, strict=True):
        short = folder if folders.count(folder) == 1 else s.name
        names[s.name] = s.arch if archs.count(s.arch) == 1 else short
    return names


def reach_words(reach: Mapping[str, Any]) -> str:
    """A distance in words.

    >>> reach_words({"tokens": 1024, "at_least": True})
    'at least 1,024 tokens'
    """
    return f"{'at least ' if reach['at_least'] else ''}{reach['tokens']:,} tokens"


def leading_run(rows: Rows, shows: Callable[[Row], bool]) -> tuple[Rows, bool]:
    """The rows before the first in which memory does not show; whether these are all.

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


# ------------------------------------------------------------------ one probe or all of them

UNITS = {
    "recall": "(reaches back)",
    "context": "(of use)",
    "echo": "(copies)",
    "gradient": "(1/1000 at lag)",
    "halflife": "(of units)",
    "ceiling": "(the text rewards)",
    "influence": "(of one token)",
}
"""what the one number of a probe counts"""


@dataclass(frozen=True)
class ProbeReport:
    """The results of one probe, or of `all` that apply."""

    results: Sequence[ProbeResult]
    all: bool = True

    def to_json(self) -> dict[str, Any]:
        """The object of ``lmcli probe --json``."""
        return self.result().to_json()

    def result(self) -> Result:
        """Pictures, verdicts; a table of one probe, or a summary: a row a run, a column a probe."""
        return self._all() if self.all else self._one()

    def _one(self) -> Result:
        (result,) = self.results
        blocks = result.pictures()
        if result.table:
            blocks.append(Table("", result.columns, result.table, "\n".join(result.notes)))
        return Result("probe", result.to_json(), [*blocks, Passage(result.verdict)])

    def _all(self) -> Result:
        blocks: list[Block] = []
        rows: dict[str, dict[str, Any]] = {}
        for result in self.results:
            blocks += [*result.pictures(), *map(Passage, result.notes)]
            blocks.append(Passage(f"{result.probe}: {result.verdict}\n"))
            for row in result.summary:
                mine = rows.setdefault(row["run"], {"run": row["run"], "arch": row["arch"]})
                mine[result.probe] = row["figure"]
        names = [r.probe for r in self.results]
        columns = [Column("name", text("run"))]
        columns += [Column(name, text(f"{name} {UNITS.get(name, '')}")) for name in names]
        summary = [row | {"name": Path(row["run"]).name} for row in rows.values()]
        blocks.append(Table("summary", columns, summary))
        values = {
            "probe": "all",
            "rows": list(rows.values()),
            "verdict": ". ".join(f"{r.probe}: {r.verdict}" for r in self.results),
            "probes": [r.to_json() for r in self.results],
        }
        return Result("probe", values, blocks)


def load_probes(names: Sequence[str], pairs: Mapping[str, Any]) -> dict[str, tuple[Probe, Any]]:
    """Each probe with its settings; a pair that none of them has is a UsageError."""
    members = {name: PROBES.load(name) for name in names}
    check_known(pairs, *(m.Settings for m in members.values()))
    return {name: (m(), update(m.Settings(), pairs)) for name, m in members.items()}


def run_probes(
    probes: Mapping[str, tuple[Probe, Any]],
    subjects: Subjects,
    data: ProbeData,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> list[ProbeResult]:
    """Every probe over the runs that it applies to; a single probe must apply to some."""
    results = []
    for name, (probe, settings) in probes.items():
        reasons = {s.name: probe.applies(s, data, settings) for s in subjects}
        left_out = list(dict.fromkeys(r for r in reasons.values() if r))
        mine = [s for s in subjects if reasons[s.name] is None]
        archs = ", ".join(s.arch for s in mine)
        on_progress(Message(f"probe {name}: {archs or 'left out'}"))
        if mine:
            result = probe.run(mine, data, settings, seed)
            results.append(replace(result, notes=[*result.notes, *left_out]))
        elif len(probes) == 1:
            raise TextError(
                f"probe {name} does not apply: {left_out[0]}", "lmcli probe RUN runs what does"
            )
        else:
            on_progress(Message(f"  {'; '.join(left_out)}"))
    return results
