"""Learning curves: how the validation loss fell.

**In:** runs with their logs.
**Out:** a `Section` with a line a row, the mean of its seeds; None where nothing was logged.
"""

from __future__ import annotations

from statistics import fmean

from lmcli.pages.subject import Subject
from lmcli.registry import MODELS
from lmcli.report.result import NATS, Figure, Point, Section, Series

READ = (
    "Each line is one model, or the mean of its trainings. It shows the loss on the validation "
    "part, which was not trained on; 1 nat less means that a token is expected 2.7 times as "
    "strongly. Where a line ends, the training ended."
)
CAUTION = (
    "A model whose line still falls at its end has not shown what it can: compare models at the "
    "end of a training that was long enough. A model that counts (ngram) has no curve."
)


def learning_section(subject: Subject) -> Section | None:
    """The validations of every row, by the tokens that it had read."""
    series = []
    for name, seeds in subject.runs.items():
        if MODELS.load(seeds[0].record.arch).is_count_based:
            continue
        logs = [[e for e in run.log() if e.get("valid") is not None] for run in seeds]
        together = list(zip(*logs, strict=False))  # as far as all have come
        if together:
            points = [Point(fmean(e["valid"] for e in at)) for at in together]
            places = [fmean(e["tokens"] for e in at) / 1e6 for at in together]
            title = name if len(seeds) == 1 else f"{name}, mean of {len(seeds)} seeds"
            series.append(Series(title, points, places))
    if not series:
        return None
    title, x_label = "loss on the validation part", "million tokens read"
    figure = Figure(title, (), series, NATS, x_label, read=READ, caution=CAUTION)
    return Section("How they learnt", [figure])
