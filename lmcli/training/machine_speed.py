"""How fast this machine trains, measured in ten updates.

**In:** a device, and the threads that a training will have.
**Out:** `machine_speed`: how much more, or less, a minute of training is worth here than on the
machines on which the rules of defaults.py were found, and how many tokens are read in a second.
"""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np
import torch

from lmcli.models.lstm import LSTM, LSTMSettings
from lmcli.training.problem_size import TOKENS_PER_SECOND, MachineSpeed
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings

ONE_THREAD, SEVERAL_THREADS = 1.02e5, 1.75e5
"""tokens a second of updates of an LSTM of width 256, on the fastest of the machines where the
rules were found: two cores with bf16"""
VOCABULARY, UPDATES, SECONDS = 64, 10, 0.5
"""of what is measured; a slow machine makes fewer updates"""
UPDATING = 0.85
"""of the time of a training, in updates: the rest is validating and saving"""


def machine_speed(device: str, threads: int | None = None) -> MachineSpeed:
    """The speed of this machine, with as many threads or torch's, measured once a process.

    Rounded, so that the noise of a measurement changes less often what a training is given:
    `relative`, on which widths and rates depend, to powers of 4, `tokens_per_second`, on which
    dropout and weight decay do, to those of the root of 2.
    """
    return _measured(device, threads or torch.get_num_threads())


@cache
def _measured(device: str, threads: int) -> MachineSpeed:
    settings = TrainingSettings(batch=16, truncation=64, validations=1, threads=threads)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 50_000).astype(np.int64)
    with torch.random.fork_rng(devices=[]):
        model = LSTM(VOCABULARY, LSTMSettings(hidden=256, embedding=64, dropout=0.0))
        trainer = Trainer(model, ids, ids[:2], settings, Budget(steps=10**6), device=device)
        measured = tokens_per_second(trainer, SECONDS, UPDATES)
    is_alone = device == "cpu" and threads == 1
    return MachineSpeed(
        nearest_power(measured / (ONE_THREAD if is_alone else SEVERAL_THREADS), 4),
        TOKENS_PER_SECOND * nearest_power(UPDATING * measured / TOKENS_PER_SECOND, math.sqrt(2)),
    )


def nearest_power(ratio: float, base: float) -> float:
    """The power of `base` that is nearest.

    >>> nearest_power(1.3, 4), nearest_power(0.45, 4), nearest_power(7.0, 4)
    (1.0, 0.25, 4.0)
    """
    return float(base ** round(math.log(ratio, base)))


def tokens_per_second(trainer: Trainer, seconds: float, updates: int | None = None) -> float:
    """The median speed of updates: until `updates` of them or `seconds` are over, at least one.

    The first is not counted: it loads the kernels.
    """
    speeds = list[float]()
    began = last = time.perf_counter()
    tokens = 0
    for number, _ in enumerate(trainer.run()):
        trainer.sync_losses()  # a GPU may still be computing
        now = time.perf_counter()
        if number:
            speeds.append((trainer.tokens - tokens) / (now - last))
        if speeds and (len(speeds) == updates or now - began >= seconds):
            break
        tokens, last = trainer.tokens, now
    return float(np.median(speeds))
