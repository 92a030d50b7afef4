"""A training kept in its run's folder, so that it can stop at any moment and go on exactly.

**In:** a run and a trainer, or a model that counts.
**Out:** the trainer's Progress, after it has been written down: weights when they are the best, the
log, a checkpoint at every validation and every minute, and once more when the caller leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmcli.data.token_cache import count_targets
from lmcli.errors import RunError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.models.base import LanguageModel
from lmcli.run import Run
from lmcli.tokenizers.base import Ids
from lmcli.training.trainer import Progress, Trainer

KEPT = (
    "step",
    "tokens",
    "seconds",
    "best",
    "best_step",
    "worse",
    "validated",
    "validated_step",
    "loss_sum",
    "loss_steps",
)
"""what a checkpoint holds beside tensors"""


def train_into(
    run: Run, trainer: Trainer, log_lines: int = 0, every_seconds: float = 60.0
) -> Generator[Progress, None, None]:
    """Train and keep everything in the run's folder; leaving the loop saves where it stands.

    `log_lines` lines of the log are kept: those that were written before the trainer's checkpoint.
    Checkpoints go by the trainer's seconds, on which all of its workers agree.
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
    """A checkpoint of the trainer, and how long the log was at it."""
    tensors, values = checkpoint(trainer)
    clock = {}
    if trainer.total_steps is not None:  # then it decides nothing
        clock["seconds"] = values.pop("seconds")
    run.save_training(tensors, values | {"log_lines": log_lines}, clock)


def resume(run: Run, trainer: Trainer) -> int:
    """Bring a new trainer to where the run stopped; how long the log was then."""
    tensors, values = run.load_training()
    try:
        lines = int(values.pop("log_lines"))
        restore(trainer, tensors, values)
        return lines
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"'{run.path}' cannot be resumed: {error}", "train it again with --force"
        ) from None


def checkpoint(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that is needed to go on exactly: tensors, and plain values.

    What differs from worker to worker (rows of the state, random states) lies one behind the other.
    """
    trainer.fetch()
    workers = trainer.workers
    tensors = {f"model.{k}": v for k, v in trainer.model.tensors().items()}
    tensors |= {f"optimizer.{k}": v for k, v in trainer.optimizer.tensors().items()}
    own = {f"state.{i}": part for i, part in enumerate(trainer.state)}
    own["random.torch"] = torch.get_rng_state()
    kind = trainer.device.partition(":")[0]
    if kind != "cpu":
        own[f"random.{kind}"] = _generator(kind).get_rng_state()
    tensors |= {name: workers.gather(tensor) for name, tensor in own.items()}
    values = {name: getattr(trainer, name) for name in KEPT}
    return tensors, values | {"best": None if math.isinf(trainer.best) else trainer.best}


def restore(trainer: Trainer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Bring a trainer to a checkpoint, whichever device it was made on."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    trainer.model.load_tensors(groups["model"])
    trainer.optimizer.load_tensors(groups.get("optimizer", {}))
    own, parts = trainer.workers.own, groups.get("state", {})
    trainer.state = tuple(own(parts[str(i)]).to(trainer.device) for i in range(len(parts)))
    torch.set_rng_state(own(groups["random"]["torch"]).clone())
    kind = trainer.device.partition(":")[0]
    if kind in groups["random"]:
        _generator(kind).set_rng_state(own(groups["random"][kind]).clone())
    for name, value in values.items():
        setattr(trainer, name, value)
    trainer.best = math.inf if values["best"] is None else values["best"]


def _generator(kind: str) -> Any:
    """The module that keeps the random state of a GPU."""
    return {"cuda": torch.cuda, "mps": torch.mps}[kind]


def count_into(run: Run, model: LanguageModel, train: Ids, valid: Ids) -> Progress:
    """Train a model that learns by counting, and keep it."""
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
