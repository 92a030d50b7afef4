"""How fast this machine trains, measured in ten updates.

**In:** a device, and the threads that a training will have.
**Out:** `relative_speed`: how much more, or less, a minute of training is worth here than on the
machines on which the rules of defaults.py were found.
"""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np
import torch

from lmcli.models.lstm import LSTM, LSTMSettings
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings

ONE_THREAD, SEVERAL_THREADS = 1.02e5, 1.75e5
"""tokens a second of an LSTM of width 256 where the rules were found: two cores with bf16"""
VOCABULARY, UPDATES, SECONDS = 64, 10, 0.5
"""of what is measured; a slow machine makes fewer updates"""


@cache
def relative_speed(device: str, threads: int | None = None) -> float:
    """The speed of this machine over that of the rules' with as many threads, rounded.

    Measured once a process.
    """
    settings = TrainingSettings(batch=16, truncation=64, validations=1, threads=threads)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 50_000).astype(np.int64)
    with torch.random.fork_rng(devices=[]):
        model = LSTM(VOCABULARY, LSTMSettings(hidden=256, embedding=64, dropout=0.0))
        trainer = Trainer(model, ids, ids[:2], settings, Budget(steps=10**6), device=device)
        measured = tokens_per_second(trainer, SECONDS, UPDATES)
    is_alone = device == "cpu" and (threads or torch.get_num_threads()) == 1
    return nearest_power_of_four(measured / (ONE_THREAD if is_alone else SEVERAL_THREADS))


def nearest_power_of_four(ratio: float) -> float:
    """So that the noise of a measurement hardly ever changes what a training is given.

    >>> nearest_power_of_four(1.3), nearest_power_of_four(0.45), nearest_power_of_four(7.0)
    (1.0, 0.25, 4.0)
    """
    return float(4.0 ** round(math.log(ratio, 4)))


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
