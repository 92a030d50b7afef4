"""Model + batches -> a stream of Progress.

**In:** a model, the ids of the training and validation part, `TrainingSettings`, a `Budget`.
**Out:** `Trainer.run` yields one Progress a step; leaving the loop stops the training. `state_dict`
is everything that another Trainer needs to continue exactly.

Truncated back-propagation through time (Williams and Peng 1990) over parallel streams that carry
their state from chunk to chunk; AdamW (Loshchilov and Hutter 2019) with warm-up and cosine decay
by the share of the budget that is used; the gradient's norm is clipped (Pascanu, Mikolov and
Bengio 2013).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmcli.data.batches import ContiguousBatches
from lmcli.data.curriculum import LengthCurriculum
from lmcli.data.token_cache import count_targets
from lmcli.errors import TrainingError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.models.base import LanguageModel, State
from lmcli.system import has_bfloat16, hold_freed_memory, move, pick_precision, torch_threads
from lmcli.tokenizers.base import Ids
from lmcli.training.distributed import SingleProcess
from lmcli.training.optimizer import BETA2, AdamW
from lmcli.training.training_settings import BATCH, TRUNCATION, Budget, TrainingSettings

LOG_EVERY = 50
"""steps between two lines of the log"""
SYNC_EVERY = 10
"""steps after which losses are read: on a GPU each reading waits for all work under way"""
EXPLODED = 3.0
"""a loss this many times that of guessing at random has exploded"""
COUNTED = 1 << 22
"""tokens of the training part whose frequencies a network begins with"""
PATIENT_ABOVE = 0.5
"""of the peak rate: no training ends by patience before its rate has fallen to this"""
MOST_VALIDATION = 0.25
"""share of a budget in minutes that is kept for the last validation, at the most"""
READING_SPEED = 3.0
"""how many times faster a validation reads than a training: an estimate before the first one"""
CLOCKS = ("seconds", "counting_seconds", "validation_seconds")
"""the attributes of a Trainer that differ between equal trainings"""
VALUES = ("step", "tokens", "validated", "validated_step", "loss_sum", "loss_steps", *CLOCKS)
"""the attributes of a Trainer that are plain values of its state"""


@dataclass(frozen=True)
class Progress:
    """Where a training stands after a step. Losses in nats per token."""

    step: int
    fraction: float
    """share of the budget used, 0 to 1"""
    tokens: int
    seconds: float
    loss: float
    """mean over the steps since the last logged one"""
    learning_rate: float
    valid: float | None = None
    """validation loss, where it was measured at this step"""
    best: bool = False
    """the validation loss is the best so far"""
    logged: bool = False
    """one of the steps that go into log.jsonl"""
    done: str | None = None
    """why the training is over: "budget", "epochs", "patience", "memory" """

    def entry(self) -> dict[str, Any]:
        """A line of log.jsonl: only what an unbroken run would have, so no clock times."""
        logged = ("step", "tokens", "loss", "learning_rate", "valid")
        return {name: getattr(self, name) for name in logged}


@dataclass
class EarlyStopping:
    """Stops a training after `patience` validations without a better loss; 0 = never."""

    patience: int
    best: float = math.inf
    """the least validation loss so far"""
    best_step: int = 0
    bad_validations: int = 0
    """since the best one"""

    @property
    def out_of_patience(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.bad_validations

    def is_best(self, loss: float, step: int) -> bool:
        """Count a validation."""
        if loss < self.best:
            self.best, self.best_step, self.bad_validations = loss, step, 0
            return True
        self.bad_validations += 1
        return False


class Trainer:
    """One training: owns the model's weights, the optimiser and the carried state."""

    def __init__(
        self,
        model: LanguageModel,
        train: Ids,
        valid: Ids,
        settings: TrainingSettings,
        budget: Budget,
        seed: int = 0,
        device: str = "cpu",
        group: SingleProcess | None = None,
        counted: LanguageModel | None = None,
    ) -> None:
        """`counted` is a model whose counts of the same text are shared, where it has some."""
        hold_freed_memory()
        self.group = group or SingleProcess()
        self.model = model.to(device)
        self.group.broadcast_weights(self.model, seed)
        self.valid, self.settings, self.budget, self.device = valid, settings, budget, device
        start_id = model.start_id
        self.valid_targets = max(1, count_targets(valid, start_id))
        self.precision = self._precision_of_all(lambda: pick_precision(settings.precision, device))
        self.streams = ContiguousBatches(
            train,
            start_id,
            settings.batch or BATCH,
            settings.truncation or TRUNCATION,
            settings.reset_probability,
            seed,
            np.arange(len(train)) if model.counts_first else None,
        )
        self.batches = LengthCurriculum(self.streams, settings.curriculum or 0.0)
        self.total_steps = budget.total_steps(self.streams.steps_per_epoch)
        self.parameters = list(model.parameters())
        tables = model.token_tables() if settings.second_moment == "table" else ()
        decays = settings.decay, settings.recurrent_decay
        self.optimizer = AdamW.of(model, *decays, device, settings.beta2 or BETA2, tables)
        self.state: State = self.model.initial_state(self.streams.batch // self.group.size)
        self.early_stopping = EarlyStopping(settings.patience)
        # the main process's, for all: the share of the budget that is used follows from it
        self.counting_seconds = self.group.sync_clock(self._count(train, counted))
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.validated, self.validated_step = 0.0, 0  # fraction of the budget, step
        self.validation_seconds = 0.0  # of the last validation
        self.rate_factor = 1.0
        """what the learning rate is multiplied by, beside its schedule"""
        self.goal: Callable[[LanguageModel], bool] | None = None
        self.goal_reached = False
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last logged step
        self.unread: list[Tensor] = []  # losses that are still on the device
        self.sync_every = SYNC_EVERY

    def _count(self, train: Ids, counted: LanguageModel | None) -> float:
        """Count the training part, where the model begins with that; the seconds it took.

        Every network begins with how often each token occurs.
        """
        began, start_id = time.perf_counter(), self.model.start_id
        frequencies = np.bincount(train[:COUNTED], minlength=start_id + 1)[:start_id]
        self.model.begin_with_frequencies(torch.from_numpy(frequencies).to(self.device))
        if counted is not None:
            self.model.share_counts(counted)
        elif self.model.counts_first:
            self.model.fit_counts(train)
        return time.perf_counter() - began

    # -------------------------------------------------------------- the loop

    def run(self, until: float = 1.0) -> Iterator[Progress]:
        """Train until that share of the budget is used; may be called again to go on."""
        with torch_threads(self.settings.threads):
            clock = time.perf_counter()
            if self.model.counts_first and not self.step and until == 1.0:
                yield self._before_the_first_step()
                clock = time.perf_counter()
            while self.fraction < until and not self._ends_early():
                rate = self._learning_rate()
                self._step(rate)
                clock = self._lap(clock)
                due = self._validation_due()
                logged = due or self.step % LOG_EVERY == 0
                if logged or not self.loss_steps or len(self.unread) >= self.sync_every:
                    self.sync_losses()
                valid, best = self._validate_and_compare() if due else (None, False)
                if due:  # else no time has passed, and the budget must not end without a validation
                    self.goal_reached = self.goal is not None and self.goal(self.model) and best
                    before, clock = self.seconds, self._lap(clock)
                    self.validation_seconds = self.seconds - before
                mean = self.loss_sum / self.loss_steps
                if logged:
                    self.loss_sum, self.loss_steps = 0.0, 0
                yield Progress(
                    step=self.step,
                    fraction=self.fraction,
                    tokens=self.tokens,
                    seconds=self.seconds,
                    loss=mean,
                    learning_rate=rate,
                    valid=valid,
                    best=best,
                    logged=logged,
                    done=self.reason_to_stop(),
                )
                clock = time.perf_counter()  # what the caller does in between is not training time

    def _before_the_first_step(self) -> Progress:
        """What the counts alone are worth, which is the loss to beat."""
        loss, best = self._validate_and_compare()
        rate, spent = self._learning_rate(), (self.fraction, self.tokens, self.seconds)
        return Progress(self.step, *spent, loss, rate, valid=loss, best=best)

    def validate(self) -> float:
        """Validation loss as it is now, in nats per token; leaves no trace in the training.

        Every token once, in the training's own precision and with approximate states at the
        boundaries of chunks: it only chooses weights. What is reported is scored exactly.
        """
        self.sync_losses()  # a loss that exploded is an error and not a result
        with self._precision():
            nats = stream_nats(self.model, self.valid, approximate=True)
        return float(nats.sum(dtype=np.float64)) / self.valid_targets

    def shorten(self, seconds: float, share: float) -> None:
        """Take what was spent elsewhere off the budget: seconds, or a share of the steps."""
        if self.total_steps is not None:
            self.total_steps = max(self.step + 1, round(self.total_steps * (1 - share)))
        else:
            minutes = self.budget.total_minutes() - seconds / 60
            used = (self.seconds / (1 - MOST_VALIDATION) + self.counting_seconds) / 60
            least = used + 1e-3  # so that there is a step left, and its validation
            self.budget = replace(self.budget, minutes=max(minutes, least))

    def _lap(self, clock: float) -> float:
        """Add the time since `clock`; the time now."""
        now = time.perf_counter()
        self.seconds = self.group.sync_clock(self.seconds + now - clock)
        return now

    @property
    def fraction(self) -> float:
        """The share of the budget that is used."""
        if self.total_steps is not None:
            return self.step / self.total_steps
        left = max(1e-3, 60 * self.budget.total_minutes() - self.counting_seconds)
        used = self.seconds / (left * (1 - self._validation_share()))
        if last := self._last_step():
            used = max(used, self.step / last)
        return min(1.0, used)

    def _last_step(self) -> float:
        """The step at which a budget in minutes ends because the text has been read often enough.

        0 where there is none.
        """
        if self.total_steps is not None or not self.settings.most_epochs:
            return 0.0
        return self.settings.most_epochs * self.streams.steps_per_epoch

    def _validation_share(self) -> float:
        """The share of a budget in minutes that a validation takes; the last belongs to it."""
        reading = self.seconds / max(1, self.tokens) / READING_SPEED
        seconds = self.validation_seconds or reading * len(self.valid)
        return min(MOST_VALIDATION, seconds / (60 * self.budget.total_minutes()))

    def _learning_rate(self) -> float:
        """The peak rate, as the schedule has it."""
        return self.settings.peak_rate * self._schedule() * self.rate_factor

    def _schedule(self) -> float:
        """Linear warm-up to 1, then a cosine to 0 at the end of the budget."""
        warmup, used = self.settings.warmup, self.fraction
        rise = 1.0
        if used < warmup:
            ahead = 1 / self.total_steps if self.total_steps else 1e-3
            rise = min(1.0, (used + ahead) / warmup)
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, used - warmup) / (1 - warmup + 1e-9)))
        return rise * fall

    def _step(self, rate: float) -> None:
        """One update; the mean loss of its tokens, in nats, stays on the device."""
        batch = self.group.shard_batch(self.batches.batch(self.step, self.fraction))
        inputs, targets = move(batch.inputs, self.device), move(batch.targets, self.device)
        if batch.reset_mask.any():
            reset_mask = move(batch.reset_mask, self.device)
            self.state = reset_state(self.state, self.model.initial_state(len(inputs)), reset_mask)
        self.model.train()
        with self._precision():
            if batch.places is None:
                loss, state = self.model.loss(inputs, targets, self.state)
            else:
                read = inputs, targets, self.state, batch.places
                loss, state = self.model.training_loss(*read)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        self.unread.append(self.group.all_reduce_gradients(self.model, loss, batch.targets))
        self.optimizer.step(rate, self.settings.clip)
        self.state = tuple(part.detach() for part in state)
        self.step += 1
        self.tokens += targets.numel() * self.group.size

    def sync_losses(self) -> None:
        """Read the losses of the steps since the last call, and check each."""
        losses = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for step, loss in enumerate(losses, self.step - len(losses) + 1):
            self._check_loss(loss, step)
            self.loss_sum += loss
        self.loss_steps += len(losses)

    def _precision_of_all(self, pick: Callable[[], str]) -> str:
        """The precision that the main process picks."""
        is_low = self.group.broadcast(lambda: pick() == "bfloat16")
        return "bfloat16" if is_low else "float32"

    def _precision(self) -> torch.autocast:
        low = self.precision == "bfloat16"
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=low)

    def _check_loss(self, loss: float, step: int) -> None:
        """A TrainingError for a loss that is NaN or far above that of guessing."""
        limit = EXPLODED * math.log(self.model.vocabulary + 1) + 5
        if math.isfinite(loss) and loss < limit:
            return
        what = "exploded" if math.isfinite(loss) else "became NaN"
        rate = self.settings.peak_rate
        has_best = math.isfinite(self.early_stopping.best)
        saved = "the best weights so far are kept; " if has_best else ""
        raise TrainingError(
            f"the loss {what} at step {step} (learning rate {rate:g})",
            f"{saved}lower it: --set learning_rate={rate / 4:g}",
        )

    # -------------------------------------------------------------- exact resume

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that is needed to continue exactly: tensors by name, and plain values.

        What differs from process to process (rows of the state, random states) is concatenated.
        """
        self.sync_losses()
        tensors = {f"model.{k}": v for k, v in self.model.tensors().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.tensors().items()}
        sharded = {f"state.{i}": part for i, part in enumerate(self.state)}
        sharded["random.torch"] = torch.get_rng_state()
        if (kind := self.device.partition(":")[0]) != "cpu":
            sharded[f"random.{kind}"] = getattr(torch, kind).get_rng_state()
        values = {name: getattr(self, name) for name in VALUES} | vars(self.early_stopping)
        values["best"] = None if math.isinf(values["best"]) else values["best"]
        del values["patience"]  # a setting
        values["precision"] = self.precision
        return tensors | self.group.gather(sharded), values

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue from a `state_dict`, whichever device it was made on.

        In its precision, which a new measurement might choose otherwise; not where that is
        bfloat16 and this machine has none.
        """
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups.setdefault(group, {})[rest] = tensor
        self.model.load_tensors(groups["model"])
        self.optimizer.load_tensors(groups.get("optimizer", {}))
        shard, parts = self.group.shard, groups.get("state", {})
        state = tuple(shard(parts[str(i)]).to(self.device) for i in range(len(parts)))
        if [part.shape for part in state] != [part.shape for part in self.state]:
            raise ValueError("its state is of another size")
        self.state = state
        torch.set_rng_state(shard(groups["random"]["torch"]).clone())
        kind = self.device.partition(":")[0]
        if kind in groups["random"]:
            getattr(torch, kind).set_rng_state(shard(groups["random"][kind]).clone())
        values = {name: getattr(self, name) for name in CLOCKS} | values  # earlier runs lack some
        for name in VALUES:
            setattr(self, name, values[name])
        saved = values.get("precision", self.precision)  # earlier runs lack it
        if self.settings.precision == "auto" and saved != self.precision:
            is_there = saved == "float32" or has_bfloat16(self.device)
            self.precision = self._precision_of_all(lambda: saved if is_there else self.precision)
        best = math.inf if values["best"] is None else values["best"]
        name = "worse" if "worse" in values else "bad_validations"  # as earlier versions named it
        counts = values["best_step"], values[name]
        self.early_stopping = EarlyStopping(self.settings.patience, best, *counts)

    # -------------------------------------------------------------- validation

    def _validation_due(self) -> bool:
        """At even shares of the budget, for a small text every other epoch, and at the end.

        A big validation part is read less often, lest it take more than a seventh of the time:
        reading is three to four times as fast as learning. The rule counts tokens, not seconds, so
        that a resumed run keeps to it.
        """
        if self.fraction >= 1.0:
            return True
        if self.total_steps is None and self.fraction + self._validation_share() >= 1.0:
            return False  # the one at the end comes soon
        steps, streams = self.step - self.validated_step, self.streams
        learnt = steps * streams.batch * streams.truncation
        share = self.fraction - self.validated >= 1 / self.settings.validations - 1e-9
        return (share or steps >= 2 * streams.steps_per_epoch) and learnt >= 2 * len(self.valid)

    def _validate_and_compare(self) -> tuple[float, bool]:
        """Validation loss over every token once, and whether it is the best.

        While short documents alone are trained on, it rises; while the learning rate is high, it
        may rise and fall again: neither tries the patience.
        """
        loss = self.group.broadcast(self.validate)
        self.validated, self.validated_step = self.fraction, self.step
        best = self.early_stopping.is_best(loss, self.step)
        if self.fraction < max(self.batches.ends, default=0.0) or self._schedule() > PATIENT_ABOVE:
            self.early_stopping.bad_validations = 0
        return loss, best

    def reason_to_stop(self) -> str | None:
        """Why the training is over, None if it is not."""
        over = None
        if self.fraction >= 1.0:
            over = "epochs" if self._last_step() and self.step >= self._last_step() else "budget"
        return self._ends_early() or over

    def _ends_early(self) -> str | None:
        """Why the training ends before its budget is used, if it does.

        A `goal` is asked at every validation; it is reached with weights that are the best so far.
        """
        if self.goal_reached:
            return "memory"
        return "patience" if self.early_stopping.out_of_patience else None


def reset_state(state: State, start: State, reset_mask: Tensor) -> State:
    """The start state where `reset_mask`, the carried one elsewhere. Shapes: (B, ...), (B,)."""
    rows = [reset_mask.to(part.device).view(-1, *[1] * (part.dim() - 1)) for part in state]
    return tuple(torch.where(r, a, b) for r, a, b in zip(rows, start, state, strict=True))
