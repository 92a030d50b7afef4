"""What every probe does: runs + a text -> how far back each remembers, with intervals and chance.

**In:** `ProbedModel`s (trained models), `ProbeData` (a text none was trained on), settings, a seed.
**Out:** `ProbeResult`: rows of numbers, one row a run for the summary, one sentence.

A probe asks nothing of an architecture but what `models.base.LanguageModel` promises. A model to
which a probe does not apply (a table of counts has no gradient) is left out, with a note.
"""

from __future__ import annotations

import abc
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects, labels
from lmcli.report.result import Block, Column, Figure, Metric, Point, Series, text
from lmcli.settings import Settings

Row = Mapping[str, Any]
Rows = Sequence[Row]


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
    middle: Rows = ()
    """of the summary one row a model: that of its only run, or of the median of its seeds"""

    def to_json(self) -> dict[str, Any]:
        """The keys of ``lmcli probe NAME --json``."""
        values = {"probe": self.probe, "rows": list(self.rows), "verdict": self.verdict}
        values |= {"summary": list(self.summary), "notes": list(self.notes)}
        values |= {"figures": [asdict(figure) for figure in self.figures] if self.rows else []}
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
    reach: ClassVar[str] = "reach"
    """the value of a summary that holds the probe's one number, {"tokens", "at_least"}"""
    is_of_text: ClassVar[bool] = False
    """whether the text is measured and not the models"""

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Why a run cannot be probed, in one line; None where it can."""
        return None

    @abc.abstractmethod
    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Measure; the same seed gives the same numbers."""

    def verdict(self, row: Row) -> str:
        """What a row of the summary says of its run, whose short name is row["model"]."""
        return f"{row['model']}: {row['figure']}"

    def size(self, row: Row) -> float:
        """By what rows of a summary are ordered: the probe's one number."""
        reach = row.get(self.reach) or {}
        return (reach.get("tokens") or 0) + 0.5 * bool(reach.get("at_least"))

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """The pictures of the rows of all runs."""
        return [self.curve(subjects, rows)]

    def curve(self, subjects: Subjects, rows: Rows, **changes: Any) -> Figure:
        """The picture of some rows: a series for each label, a tick for each `x`.

        Of several seeds the median is shown, and their range in place of the interval.
        """
        names = labels(subjects)
        ticks = sorted({row[self.x] for row in rows if row["run"] in names})
        at: dict[tuple[str, Any], list[Row]] = {}
        for row in (row for row in rows if row["run"] in names):
            at.setdefault((names[row["run"]], row[self.x]), []).append(row)
        series = []
        for name in dict.fromkeys(names.values()):
            points = [_point(at.get((name, tick), [])) for tick in ticks]
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
        if figures is None:
            figures = self.figures(subjects, rows)

        def named(row: Row) -> dict[str, Any]:
            own = {**row, "model": names.get(row["run"], row["run"])}
            low = row.get(f"{self.x}_from")
            return own if low is None else {**own, "bucket": bucket_name(low, row[self.x])}

        summaries = [named(row) for row in summary]
        middle = self.middle(subjects, summary)
        return ProbeResult(
            self.name,
            rows,
            "; ".join(map(self._said, middle)),
            summary,
            [Column("model", text("model")), *self.columns],
            summaries if self.one_row_a_run else [named(row) for row in rows],
            figures,
            **{"notes": [self.note], "middle": middle, **changes},
        )

    def middle(self, subjects: Subjects, summary: Rows) -> list[Row]:
        """Of each model, under its short name, the seed with the lower median of the sizes."""
        names, seeds = labels(subjects), dict[str, list[Row]]()
        for row in summary:
            seeds.setdefault(names[row["run"]], []).append(row)
        return [
            {**sorted(some, key=self.size)[(len(some) - 1) // 2], "model": name, "seeds": len(some)}
            for name, some in seeds.items()
        ]

    def _said(self, row: Row) -> str:
        seeds = f" (median of {row['seeds']} seeds)" if row["seeds"] > 1 else ""
        return self.verdict(row) + seeds

    def combine(self, subjects: Subjects, results: Sequence[ProbeResult]) -> ProbeResult:
        """The results of runs that were tested on different texts as one."""
        if len(results) == 1:
            return results[0]
        rows, summary, differences = (
            [row for result in results for row in getattr(result, part)]
            for part in ("rows", "summary", "differences")
        )
        if not rows:
            return replace(results[0], summary=summary)
        notes = list(dict.fromkeys(note for result in results for note in result.notes))
        little = results[0].too_little if all(r.too_little for r in results) else ""
        more: dict[str, Any] = {"differences": differences, "too_little": little}
        return self.result(subjects, rows, summary, notes=notes, **more)


def _point(rows: Rows) -> Point:
    """What is drawn of one run, or of several seeds."""
    values = [row["value"] for row in rows if row["value"] is not None]
    if len(rows) == 1:
        return Point(rows[0]["value"], rows[0]["low"], rows[0]["high"])
    return Point(statistics.median(values), min(values), max(values)) if values else Point(None)


class CurveProbe(Probe):
    """A probe that measures each run by itself: a curve of rows, and one row that sums it up."""

    too_short: ClassVar[str] = "the held-out text is too short"

    @abc.abstractmethod
    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """The rows of a run; none where the text is too short."""

    @abc.abstractmethod
    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The row of the summary, of the rows of a run, which are at least one."""

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """One curve a run; the same seed looks at the same places of the text."""
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for subject in subjects:
            if own := self.measure(subject, data, settings, seed):
                rows += own
                summary.append(self.summary(subject, own))
        return self.result(subjects, rows, summary) if rows else self.nothing()

    def nothing(self) -> ProbeResult:
        """The result of a text that is too short."""
        return ProbeResult(self.name, [], self.too_short)


def interval_columns(heading: str, metric: Metric, name: str = "") -> list[Column]:
    """The columns of a measured value, or of that of a `name`, and of its 95 % limits."""
    low, high = (f"{name}_{end}" if name else end for end in ("low", "high"))
    headings = {name or "value": heading, low: "from", high: "to"}
    return [Column(path, metric, title) for path, title in headings.items()]


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
