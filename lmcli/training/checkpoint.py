"""A training saved in its run's folder, so that it can stop at any moment and resume exactly.

**In:** a run and a trainer, or a model that counts.
**Out:** the trainer's Progress, after it is saved: weights when they are the best, the log, a
checkpoint at every validation and every minute, and once more when the caller leaves. At the end
results/train.json, which is what ``lmcli train --json`` prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lmcli.data.dataset import Dataset
from lmcli.data.token_cache import count_targets
from lmcli.errors import RunError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.evaluation.score import Score
from lmcli.models.base import LanguageModel
from lmcli.report.result import Result
from lmcli.run import RESULTS, TRAINING, Run
from lmcli.run_record import check_checkpoint
from lmcli.tokenizers.base import Ids
from lmcli.training.trainer import CLOCKS, Progress, Trainer
from lmcli.write_lock import sweep


def train_into(
    run: Run,
    trainer: Trainer,
    log_lines: int = 0,
    every_seconds: float = 60.0,
    counted: tuple[float, Mapping[str, Tensor]] | None = None,
) -> Generator[Progress, None, None]:
    """Train and save everything in the run's folder; leaving the loop saves the current state.

    The first `log_lines` lines of the log stay: those written before the trainer's checkpoint.
    Checkpoints go by the trainer's seconds, which are the same in all processes of the training.
    `counted` are the weights of step 0 of a training that goes on from a later step, and their
    validation loss: the best so far.
    """
    lines = log_lines
    save(run, trainer, lines)  # first: it takes the place of a run that is replaced
    if counted is not None:  # in this order, a process that is killed leaves what can be resumed
        loss, weights = counted
        run.save_weights(weights, 0)
        trainer.early_stopping.is_best(loss, 0)
        save(run, trainer, lines)
        del counted, weights
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
        if math.isinf(trainer.early_stopping.best):
            run.save_weights(trainer.model.tensors(), trainer.step)
        save(run, trainer, lines)
        raise


@contextmanager
def saving(steps: Generator[Progress, None, None]) -> Iterator[None]:
    """Close the `steps` of `train_into` at the end, which saves the current state.

    An error inside is raised as it is, also where saving fails after it: then that is its note.
    """
    try:
        yield
    except Exception as error:
        try:
            steps.close()
        except Exception as failure:
            error.add_note(f"the training could not be saved: {failure}")
        raise
    finally:
        steps.close()


def save(run: Run, trainer: Trainer, log_lines: int) -> None:
    """A checkpoint of the trainer, with the length of the log."""
    tensors, values = trainer.state_dict()
    decides = trainer.total_steps is None
    clock = {} if decides else {name: values.pop(name) for name in CLOCKS}
    run.save_training(tensors, values | {"log_lines": log_lines}, clock)


def check_sizes(run: Run) -> None:
    """A RunError if the checkpoint does not fit the run's settings; no model is made for it."""
    file = run.path / TRAINING
    if file.is_file():
        run.check_sizes(file, "model.")


def load_checkpoint(run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The run's checkpoint; values that it cannot have are a RunError."""
    tensors, values = run.load_training()
    try:
        check_checkpoint(values)
    except ValueError as error:
        problem = f"'{run.path}' cannot be resumed: {error}"
        raise RunError(problem, "train it again with --force") from None
    return tensors, values


def resume(run: Run, trainer: Trainer) -> int:
    """Bring a new trainer to the run's checkpoint; the number of lines that the log had then."""
    tensors, values = load_checkpoint(run)
    try:
        trainer.load_state_dict(tensors, values)
        lines, best = int(values["log_lines"]), trainer.early_stopping.best_step
        validated = not math.isinf(trainer.early_stopping.best)
    except MemoryError:
        raise
    except Exception as error:  # a checkpoint from elsewhere can hold anything
        problem = f"'{run.path}' cannot be resumed: {error}".partition("\n")[0]
        raise RunError(problem, "train it again with --force") from None
    saved = run.weights_step()
    if validated and (saved is None or saved < best):  # they are saved first: the file was lost
        if trainer.step != best:
            found = "none" if saved is None else saved
            problem = f"the weights of step {best} are missing ({found} found)"
            hint = "train it again with --force"
            raise RunError(f"'{run.path}' cannot be resumed: {problem}", hint)
        run.save_weights(trainer.model.tensors(), best)
    return lines


def count_and_validate(model: LanguageModel, train: Ids, valid: Ids) -> float:
    """Train a model that learns by counting; its validation loss in nats per token."""
    model.fit_counts(train)
    nats = stream_nats(model, valid)
    return float(nats.sum(dtype=np.float64)) / max(1, count_targets(valid, model.start_id))


def count_into(run: Run, model: LanguageModel, train: Ids, valid: Ids) -> Trained:
    """Train a model that learns by counting, and save it."""
    began = time.perf_counter()
    loss = count_and_validate(model, train, valid)
    seconds, tokens = time.perf_counter() - began, count_targets(train, model.start_id)
    run.save_weights(model.tensors(), 1)
    run.cut_log(0)
    entry = {"step": 1, "tokens": tokens, "loss": None, "learning_rate": 0.0, "valid": loss}
    run.append_log(entry)
    return Trained(
        tokens_seen=tokens,
        epochs=1.0,
        steps=1,
        seconds=seconds,
        best_step=1,
        stopped="counted",
        precision="float64",
    )


# ------------------------------------------------------------------ the result


@dataclass(frozen=True)
class Trained:
    """What a training took, a search for its learning rate included."""

    tokens_seen: int
    epochs: float
    steps: int
    seconds: float
    best_step: int
    stopped: str | None
    """why it ended: "budget", "epochs", "patience", "memory", "counted" """
    precision: str
    """what it computed in: "float32", "bfloat16"; "float64", in which counts are added"""
    race: Sequence[Mapping[str, Any]] = ()
    """the trials of a search, with the losses they were measured at"""

    @classmethod
    def by(
        cls,
        trainer: Trainer,
        search_tokens: int = 0,
        search_seconds: float = 0.0,
        race: Sequence[Mapping[str, Any]] = (),
    ) -> Trained:
        """What a trainer has done, after a search."""
        return cls(
            tokens_seen=trainer.tokens + search_tokens,
            epochs=trainer.step / trainer.streams.steps_per_epoch,
            steps=trainer.step,
            seconds=trainer.seconds + trainer.counting_seconds + search_seconds,
            best_step=trainer.early_stopping.best_step,
            stopped=trainer.reason_to_stop(),
            precision=trainer.precision,
            race=race,
        )


def save_result(
    run: Run,
    model: LanguageModel,
    dataset: Dataset,
    trained: Trained,
    valid: Score,
    test: Score | None,
    ceiling: Mapping[str, Any] | None = None,
) -> None:
    """Save the keys of ``lmcli train --json`` in the run.

    `valid` and `test` are exact scores: validation has chosen the weights, the test part nothing.
    `ceiling` is what memory the text rewards.
    """
    record = run.record
    figures = ("nats_per_token", "bits_per_char", "perplexity", "standard_error", "tokens")
    values = {
        "run": str(run.path),
        "arch": record.arch,
        "tokenizer": record.tokenizer,
        "parameters": model.parameter_count(),
        "vocabulary": record.vocabulary,
        "train_tokens": dataset.targets(),
        "skipped": dataset.corpus.skipped,
        **vars(trained),
        "tokens_per_second": trained.tokens_seen / max(trained.seconds, 1e-9),
        "valid": {n: getattr(valid, n) for n in figures} | {"share": dataset.valid.share},
        "test": None,
        "device": record.device,
        "workers": record.workers,
        "ceiling": ceiling,
    }
    if test and dataset.test:
        values["test"] = {n: getattr(test, n) for n in figures} | {"share": dataset.test.share}
    with suppress(OSError):  # of a training that was killed at this point
        sweep(run.path / RESULTS, ["train.json"])
    run.save_result("train", Result("train", values).to_json())
