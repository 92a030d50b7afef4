"""How fast this machine trains, measured in a second, and how long a memory takes to learn.

**In:** a `Job` whose text is documents with a question at the end.
**Out:** tokens a second, as a training would read them now, beside whatever else is running; the
minutes that the task needs.
"""

from __future__ import annotations

from dataclasses import replace

from lmcli.training.job import Job
from lmcli.training.machine_speed import tokens_per_second
from lmcli.training.training_settings import Budget

MEASURED = 1.5
"""seconds of training that are timed"""
DOCUMENTS = 30_000
"""documents that an LSTM is given: 27,000 gave 100 % after 200 words, 16,000 gave 94 %"""


def training_speed(job: Job) -> float:
    """Tokens a second of this training; it is begun and dropped."""
    budget, training = Budget(steps=10**6), replace(job.training, validations=1)
    trainer = replace(job, budget=budget, training=training).trainer()
    return tokens_per_second(trainer, MEASURED)


def minutes_to_read(job: Job, speed: float) -> float:
    """Minutes in which a training of this speed reads `DOCUMENTS`."""
    corpus = job.dataset.corpus
    share = DOCUMENTS / max(1, len(corpus.train.documents))
    return share * len(job.dataset.tokenized.train) / speed / 60
