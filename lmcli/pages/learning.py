"""Learning curves: how the validation loss fell.

**In:** runs with their logs.
**Out:** a `Section` with a line a training; None where nothing was logged.
"""

from __future__ import annotations

from lmcli.pages.subject import Subject
from lmcli.registry import MODELS
from lmcli.report.result import NATS, Figure, Point, Section, Series

READ = (
    "Each line is one training. It shows the loss on the validation part, which was not trained "
    "on; 1 nat less means that a token is expected 2.7 times as strongly. Where a line ends, the "
    "training ended."
)
CAUTION = (
    "A model whose line still falls at its end has not shown what it can: compare models at the "
    "end of a training that was long enough. A model that counts (ngram) has no curve."
)


def learning_section(subject: Subject) -> Section | None:
    """The validations of every training, by the tokens that it had read."""
    series = []
    for name, seeds in subject.runs.items():
        if MODELS.load(seeds[0].record.arch).is_count_based:
            continue
        for number, run in enumerate(seeds):
            entries = [e for e in run.log() if e.get("valid") is not None]
            points = [Point(entry["valid"]) for entry in entries]
            title = name if len(seeds) == 1 else f"{name}, seed {number + 1}"
            if points:
                series.append(Series(title, points, [e["tokens"] / 1e6 for e in entries]))
    if not series:
        return None
    title, x_label = "loss on the validation part", "million tokens read"
    figure = Figure(title, (), series, NATS, x_label, read=READ, caution=CAUTION)
    return Section("How they learnt", [figure])
