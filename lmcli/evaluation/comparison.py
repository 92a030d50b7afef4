"""Trainings on one text under one protocol -> a ranking with paired differences.

**In:** a `TrialResult` for each training, or for runs that exist.
**Out:** a `Comparison`: a row for each architecture over its seeds, and for the optimum of a
grammar; the `Difference` of each to the best; how far back each remembers.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmcli.data.dataset import Dataset
from lmcli.evaluation.comparison_memory import measure_memory, reach_text, recall_tables
from lmcli.evaluation.optimum import optimum_row
from lmcli.evaluation.probes.base import ProbeData, ProbeResult
from lmcli.evaluation.probes.suite import ProbeReport
from lmcli.evaluation.score import Score, warn_of_unknown
from lmcli.evaluation.statistics import limits, paired_rates
from lmcli.evaluation.trial_result import TrialResult
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.report.result import (
    BITS_PER_CHAR,
    PARAMETERS,
    PERPLEXITY,
    Block,
    Column,
    Metric,
    Result,
    Table,
    text,
)

# ------------------------------------------------------------------ ranking


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the ranking: an architecture over its seeds."""

    name: str
    arch: str
    outcomes: Sequence[TrialResult]

    def mean(self, value: Callable[[TrialResult], float]) -> float:
        """A value averaged over seeds."""
        return sum(map(value, self.outcomes)) / len(self.outcomes)

    @property
    def bits_per_char(self) -> float:
        """On the held-out part; what rows are sorted by."""
        return self.mean(lambda o: o.held_out.bits_per_char)

    def to_json(self) -> dict[str, Any]:
        """A row of ``compare --json``."""
        first, count = self.outcomes[0], len(self.outcomes)
        tested = all(o.test for o in self.outcomes)
        return {
            "name": self.name,
            "arch": self.arch,
            "parameters": first.parameters,
            "body_parameters": first.body_parameters,
            "tokens_seen": self.mean(lambda o: o.tokens_seen),
            "seconds": self.mean(lambda o: o.seconds),
            "tokens_per_second": self.mean(lambda o: o.tokens_seen / max(o.seconds, 1e-9)),
            "flops_per_token": first.flops_per_token,
            "learning_rate": first.learning_rate,
            "valid": summary([o.valid for o in self.outcomes]),
            "test": summary([o.held_out for o in self.outcomes]) if tested else None,
            "seeds": [
                {"seed": o.seed, "run": o.run, "bits_per_char": o.held_out.bits_per_char}
                for o in self.outcomes
            ],
            "run": first.run if count == 1 else None,
        }


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Means over seeds; the standard error holds both the text's and the seeds' share."""
    bits = [s.bits_per_char for s in scores]
    text_error = float(np.mean([s.standard_error for s in scores]))
    seed_error = float(np.std(bits, ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else 0.0
    nats = float(np.mean([s.nats_per_token for s in scores]))
    return {
        "nats_per_token": nats,
        "perplexity": math.exp(nats) if nats < 700 else math.inf,
        "bits_per_char": float(np.mean(bits)),
        "standard_error": math.hypot(text_error, seed_error),
    }


@dataclass(frozen=True)
class Difference:
    """bits_per_char of a minus that of b on the same blocks, with a 95 % interval."""

    a: str
    b: str
    bits_per_char: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of a."""
        if self.low > 0:
            return "worse"
        return "better" if self.high < 0 else "no detectable difference"

    def to_json(self) -> dict[str, Any]:
        """An entry of ``differences``."""
        return {**vars(self), "verdict": self.verdict}


def paired_difference(
    a: str, a_scores: Sequence[Score], b: str, b_scores: Sequence[Score]
) -> Difference:
    """Paired bootstrap over blocks of text, and over seeds where there are several."""
    a_nats, b_nats = (np.stack([s.block_nats for s in some]) for some in (a_scores, b_scores))
    a_rates, b_rates = paired_rates(a_nats, b_nats, a_scores[0].block_chars)
    low, high = limits(a_rates / math.log(2) - b_rates / math.log(2))
    mean = np.mean([s.bits_per_char for s in a_scores]) - np.mean(
        [s.bits_per_char for s in b_scores]
    )
    return Difference(a, b, float(mean), low, high)


@dataclass(frozen=True)
class Ranking:
    """Rows, best first, and each one's difference to the best."""

    rows: Sequence[ComparisonRow]
    differences: Sequence[Difference]

    @classmethod
    def of(cls, results: Sequence[TrialResult]) -> Ranking:
        """Rank results; those of one name are seeds of one row, whichever was done first."""
        groups: dict[str, list[TrialResult]] = {}
        for result in sorted(results, key=lambda o: (o.seed, o.run)):
            groups.setdefault(result.name, []).append(result)
        rows = [ComparisonRow(name, g[0].arch, g) for name, g in groups.items()]
        rows.sort(key=lambda row: row.bits_per_char)
        return cls(rows, [_against(row, rows[0]) for row in rows[1:]])


def _against(row: ComparisonRow, best: ComparisonRow) -> Difference:
    scores = [[o.held_out for o in r.outcomes] for r in (row, best)]
    return paired_difference(row.name, scores[0], best.name, scores[1])


# ------------------------------------------------------------------ what `lmcli compare` says


@dataclass(frozen=True)
class Comparison:
    """A ranking with all that was measured beside it."""

    ranking: Ranking
    rows: Sequence[Mapping[str, Any]]
    """of the ranking and of the optimum, as JSON, best first"""
    corpus: Mapping[str, Any]
    protocol: Mapping[str, Any]
    """the conditions that were the same for all trainings"""
    folder: Path
    """where the runs are"""
    probes: Sequence[ProbeResult] | None = None
    """results of all probes, where they were run"""

    def to_json(self) -> dict[str, Any]:
        """The object of ``lmcli compare --json``."""
        return self.result().to_json()

    def result(self) -> Result:
        """The ranking, right answers by gap, the pictures of all probes; the next command."""
        values = {
            "corpus": self.corpus,
            "protocol": self.protocol,
            "rows": self.rows,
            "differences": [d.to_json() for d in self.ranking.differences],
        }
        blocks: list[Block] = [self._table(), *recall_tables(self.rows)]
        if self.probes is not None:
            values["probes"] = [r.to_json() for r in self.probes]
        if self.probes:
            blocks += ProbeReport(self.probes).result().blocks
        again = f"lmcli sample {shlex.quote(self.ranking.rows[0].outcomes[0].run)}"
        if any(row["arch"] == "optimum" for row in self.rows):
            again = f"lmcli cloze {shlex.quote(str(self.folder))}/*"
        return Result("compare", values, blocks, [again])

    def _table(self) -> Table:
        part = "test" if all(row["test"] for row in self.rows) else "valid"
        differences = {d.a: d for d in self.ranking.differences}
        table = []
        for row in self.rows:
            verdict = "best" if row["name"] == self.ranking.rows[0].name else ""
            if row["name"] in differences:
                against = differences[row["name"]]
                verdict = f"{against.verdict} ({against.bits_per_char:+.3f})"
            tokens = row["tokens_seen"]
            millions = None if tokens is None else tokens / 1e6
            reach = reach_text(row["reach"])
            table.append({**row, "verdict": verdict, "million": millions, "reached": reach})
        columns = [
            Column("name", text("model")),
            Column("parameters", PARAMETERS),
            Column("million", Metric("M tokens", 1)),
            Column("seconds", Metric("s", 0)),
            Column(f"{part}.perplexity", PERPLEXITY),
            Column(f"{part}.bits_per_char", BITS_PER_CHAR),
            Column("reached", text("reach")),
            Column("verdict", text("against best")),
        ]
        held_out = {"test": "held-out text", "valid": "validation text (there is no test part)"}
        note = "± is one standard error; a verdict is a paired 95 % interval in bits/char"
        return Table(f"{held_out[part]}, best first", columns, table, note)


def compare_results(
    results: Sequence[TrialResult],
    dataset: Dataset,
    protocol: Mapping[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    probe: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Comparison:
    """Rank what was trained on a dataset, and measure how far back each row remembers.

    With `probe` all probes are run.
    """
    _warn_of_unknown(results, on_progress)
    ranking = Ranking.of(results)
    rows = [row.to_json() for row in ranking.rows]
    data = ProbeData.of_corpus(dataset.corpus, on_progress)
    optimum = optimum_row(dataset, lambda event: None)  # a warning has been given with the items
    if optimum:
        rows.append(optimum)
        rows.sort(key=lambda row: (row["test"] or row["valid"])["bits_per_char"])
    probes = measure_memory(rows, data, seed, probe, on_progress)
    corpus = _corpus(dataset)
    return Comparison(ranking, rows, corpus, protocol, folder, probes if probe else None)


def _corpus(dataset: Dataset) -> dict[str, Any]:
    corpus, tokenized = dataset.corpus, dataset.tokenized
    parts = [p for p in (corpus.train, corpus.valid, corpus.test) if p]
    streams = [s for s in (tokenized.train, tokenized.valid, tokenized.test) if s is not None]
    return {
        "sha256": corpus.sha256,
        "chars": sum(p.chars for p in parts),
        "tokens": sum(map(len, streams)) - sum(len(p.documents) for p in parts),
        "tokenizer": dataset.tokenizer,
    }


def _warn_of_unknown(results: Sequence[TrialResult], on_progress: OnProgress) -> None:
    """Warnings where some lack tokens that others have: their bits per character mean little."""
    scores = {r.name: r.held_out for r in results}
    if len({score.unknown_tokens for score in scores.values()}) > 1:
        for name, score in scores.items():
            warn_of_unknown(score, name, on_progress)
