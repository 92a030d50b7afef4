"""A training kept in its run's folder, so that it can stop at any moment and resume exactly.

**In:** a run and a trainer, or a model that counts.
**Out:** the trainer's Progress, after it is saved: weights when they are the best, the log, a
checkpoint at every validation and every minute, and once more when the caller leaves. At the end
results/train.json, which is what ``lmcli train --json`` prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from lmcli.data.dataset import Dataset
from lmcli.data.token_cache import count_targets
from lmcli.errors import RunError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.score import Score
from lmcli.models.base import LanguageModel
from lmcli.report.result import Result
from lmcli.run import Run
from lmcli.system import pick_precision
from lmcli.tokenizers.base import Ids
from lmcli.training.trainer import Progress, Trainer


def train_into(
    run: Run, trainer: Trainer, log_lines: int = 0, every_seconds: float = 60.0
) -> Generator[Progress, None, None]:
    """Train and save everything in the run's folder; leaving the loop saves the current state.

    `log_lines` lines of the log are kept: those that were written before the trainer's checkpoint.
    Checkpoints go by the trainer's seconds, which are the same in all processes of the training.
    """
    lines = log_lines
    save(run, trainer, lines)  # first: it takes the place of a run that is replaced
    run.cut_log(lines)
    saved = trainer.seconds
    try:
        for progress in trainer.run():
            if progress.logged:
                run.append_log(progress.entry())
                lines += 1
            if progress.best:
                run.save_weights(trainer.model.tensors(), trainer.step)
            if progress.valid is not None or trainer.seconds - saved > every_seconds:
                save(run, trainer, lines)
                saved = trainer.seconds
            yield progress
    except GeneratorExit:
        if not trainer.best_step:
            run.save_weights(trainer.model.tensors(), trainer.step)
        save(run, trainer, lines)
        raise


def save(run: Run, trainer: Trainer, log_lines: int) -> None:
    """A checkpoint of the trainer, with the length of the log."""
    tensors, values = trainer.state_dict()
    clock = {}
    if trainer.total_steps is not None:  # then it decides nothing
        clock["seconds"] = values.pop("seconds")
    run.save_training(tensors, values | {"log_lines": log_lines}, clock)


def resume(run: Run, trainer: Trainer) -> int:
    """Bring a new trainer to the run's checkpoint; the length that the log had then."""
    tensors, values = run.load_training()
    try:
        trainer.load_state_dict(tensors, values)
        return int(values["log_lines"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"'{run.path}' cannot be resumed: {error}", "train it again with --force"
        ) from None


def count_into(run: Run, model: LanguageModel, train: Ids, valid: Ids) -> Progress:
    """Train a model that learns by counting, and save it."""
    began = time.perf_counter()
    model.fit_counts(train)
    seconds = time.perf_counter() - began
    nats = stream_nats(model, valid)
    loss = float(nats.sum(dtype=np.float64)) / max(1, count_targets(valid, model.start_id))
    tokens = count_targets(train, model.start_id)
    progress = Progress(1, 1.0, tokens, seconds, math.nan, 0.0, loss, True, True, "counted")
    run.save_weights(model.tensors(), 1)
    run.cut_log(0)
    run.append_log(progress.entry() | {"loss": None})
    return progress


# ------------------------------------------------------------------ the result


@dataclass(frozen=True)
class Trained:
    """What a training took, a search for its learning rate included."""

    steps: int
    tokens: int
    seconds: float
    best_step: int
    epochs: float
    stopped: str | None
    """why it ended: "budget", "patience", "counted" """

    @classmethod
    def by(cls, trainer: Trainer, search_tokens: int = 0, search_seconds: float = 0.0) -> Trained:
        """What a trainer has done, after a search."""
        return cls(
            steps=trainer.step,
            tokens=trainer.tokens + search_tokens,
            seconds=trainer.seconds + search_seconds,
            best_step=trainer.best_step,
            epochs=trainer.step / trainer.streams.steps_per_epoch,
            stopped=trainer.reason_to_stop(),
        )

    @classmethod
    def by_counting(cls, last: Progress) -> Trained:
        """What a model that counts has done."""
        return cls(1, last.tokens, last.seconds, 1, 1.0, last.done)


def save_result(
    run: Run, model: LanguageModel, dataset: Dataset, trained: Trained, valid: Score
) -> None:
    """Save the keys of ``lmcli train --json`` in the run; `valid` is the exact validation score."""
    record = run.record
    precision = pick_precision(record.training["precision"], record.device)
    values = {
        "run": str(run.path),
        "arch": record.arch,
        "tokenizer": record.tokenizer,
        "parameters": model.parameter_count(),
        "vocabulary": record.vocabulary,
        "train_tokens": dataset.targets(),
        "tokens_seen": trained.tokens,
        "epochs": trained.epochs,
        "steps": trained.steps,
        "seconds": trained.seconds,
        "tokens_per_second": trained.tokens / max(trained.seconds, 1e-9),
        "valid": {
            "nats_per_token": valid.nats_per_token,
            "bits_per_char": valid.bits_per_char,
            "perplexity": valid.perplexity,
            "standard_error": valid.standard_error,
            "tokens": valid.tokens,
            "share": dataset.valid.share,
        },
        "best_step": trained.best_step,
        "stopped": trained.stopped,
        "device": record.device,
        "precision": "float64" if model.is_count_based else precision,
        "workers": record.workers,
    }
    run.save_result("train", Result("train", values).to_json())
