"""A training kept in its run's folder, so that it can stop at any moment and go on exactly.

**In:** a run and a trainer, or a model that counts.
**Out:** the trainer's Progress, after it has been written down: weights when they are the best, the
log, a checkpoint at every validation and every minute, and once more when the caller leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import replace

import numpy as np

from lmcli.errors import RunError
from lmcli.models.base import LanguageModel
from lmcli.run import Run
from lmcli.scoring import stream_nats
from lmcli.training import Progress, Stream, Trainer, count_targets


def train_into(
    run: Run, trainer: Trainer, log_lines: int = 0, every_seconds: float = 60.0
) -> Generator[Progress, None, None]:
    """Train and keep everything in the run's folder; leaving the loop saves where it stands.

    `log_lines` lines of the log are kept: those that were written before the trainer's checkpoint.
    """
    lines = log_lines
    run.cut_log(lines)
    save(run, trainer, lines)
    saved = time.monotonic()
    try:
        for progress in trainer.run():
            if progress.logged:
                run.append_log(progress.entry())
                lines += 1
            if progress.best:
                run.save_weights(trainer.model.tensors(), trainer.step)
            if progress.valid is not None or time.monotonic() - saved > every_seconds:
                save(run, trainer, lines)
                saved = time.monotonic()
            yield progress
    except GeneratorExit:
        if not trainer.best_step:
            run.save_weights(trainer.model.tensors(), trainer.step)
        save(run, trainer, lines)
        raise


def save(run: Run, trainer: Trainer, log_lines: int) -> None:
    """A checkpoint of the trainer, and how long the log was at it."""
    tensors, values = trainer.checkpoint()
    clock = {}
    if trainer.total_steps is not None:  # then it decides nothing
        clock["seconds"] = values.pop("seconds")
    run.save_training(tensors, values | {"log_lines": log_lines}, clock)


def resume(run: Run, trainer: Trainer) -> int:
    """Bring a fresh trainer to where the run stopped; how long the log was then."""
    tensors, values = run.load_training()
    try:
        lines = int(values.pop("log_lines"))
        trainer.restore(tensors, values)
        return lines
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"'{run.path}' cannot be resumed: {error}", "train it again with --force"
        ) from None


def count_into(run: Run, model: LanguageModel, train: Stream, valid: Stream) -> Progress:
    """Train a model that learns by counting, and keep it."""
    began = time.perf_counter()
    model.count(train)
    seconds = time.perf_counter() - began
    nats = stream_nats(model, valid)
    loss = float(nats.sum(dtype=np.float64)) / max(1, count_targets(valid, model))
    tokens = count_targets(train, model)
    progress = Progress(1, 1.0, tokens, seconds, math.nan, 0.0, loss, True, True, "counted")
    run.save_weights(model.tensors(), 1)
    run.cut_log(0)
    run.append_log(replace(progress, loss=0.0).entry() | {"loss": None})
    return progress
