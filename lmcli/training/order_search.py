"""A search for the order of an n-gram model.

**In:** a job whose model counts.
**Out:** the job with the order that does best on validation, and the loss of each that was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lmcli.training.checkpoint import count_and_validate
from lmcli.training.job import Job

ORDERS = range(3, 9)
"""upwards, until one is worse than the one before it"""
MOST_TOKENS = 20_000_000
"""of a text on which orders are tried: counting takes 0.3 s a million tokens and order"""


def order_search(job: Job) -> tuple[Job, tuple[Mapping[str, Any], ...]]:
    """The job with the best order; as it was where the text is too large."""
    ids, valid = job.dataset.tokenized.train, job.dataset.valid.stream
    if len(ids) > MOST_TOKENS:
        return job, ()
    race: list[dict[str, Any]] = []
    for order in ORDERS:
        model = replace(job, settings=replace(job.settings, order=order)).model()
        race.append({"order": order, "loss": count_and_validate(model, ids, valid)})
        if len(race) > 1 and race[-1]["loss"] >= race[-2]["loss"]:
            break
    best = min(race, key=lambda entry: float(entry["loss"]))
    return replace(job, settings=replace(job.settings, order=best["order"])), tuple(race)
