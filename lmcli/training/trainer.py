"""Model + batches -> a stream of Progress.

**In:** a model, the ids of the training and validation part, `TrainingSettings`, a `Budget`.
**Out:** `Trainer.run` yields one Progress a step; leaving the loop stops the training.

Truncated back-propagation through time (Williams and Peng 1990) over parallel streams that carry
their state from chunk to chunk; AdamW (Loshchilov and Hutter 2019) with warm-up and cosine decay
by the share of the budget that is used; the gradient's norm is clipped (Pascanu, Mikolov and
Bengio 2013).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lmcli.data.batches import ContiguousBatches
from lmcli.data.curriculum import LengthCurriculum
from lmcli.data.token_cache import count_targets
from lmcli.errors import TrainingError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.models.base import LanguageModel, State
from lmcli.settings import setting
from lmcli.system import hold_freed_memory, move, pick_precision
from lmcli.tokenizers.base import Ids
from lmcli.training.distributed import Workers
from lmcli.training.optimizer import AdamW

BATCH, TRUNCATION, PEAK_RATE, MINUTES = 16, 64, 2e-3, 3.0
"""used where a setting or the budget is left open: by a Trainer that no recipe has prepared"""
LOG_EVERY = 50
"""steps between two lines of the log"""
FETCH_EVERY = 10
"""steps after which losses are looked at: on a GPU each look waits for all that is under way"""
EXPLODED = 3.0
"""a loss this many times that of guessing at random has exploded"""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; None is chosen from text, budget and architecture."""

    batch: int | None = setting(None, "parallel streams B", least=1)
    truncation: int | None = setting(None, "steps T through which gradients flow", least=1)
    learning_rate: float | None = setting(None, "peak learning rate", least=0)
    weight_decay: float = setting(0.01, "AdamW's decay; never on recurrent weights", least=0)
    clip: float = setting(1.0, "largest norm of the gradient", least=0)
    warmup: float = setting(0.02, "share of the budget spent warming up", least=0, most=1)
    reset_probability: float = setting(
        0.02, "chance that a stream forgets its state at a chunk", least=0, most=1
    )
    curriculum: float | None = setting(
        None, "share of the budget for short documents first, then longer ones", least=0, most=1
    )
    validations: int = setting(12, "how often to validate within the budget", least=1)
    most_epochs: float | None = setting(
        None, "a budget in minutes ends after so many passes over the text; 0 = never", least=0
    )
    patience: int = setting(5, "validations without progress before stopping; 0 = never", least=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "arithmetic of the matrix products"
    )

    @property
    def peak_rate(self) -> float:
        """The learning rate, or the default if there is none; 0 is a rate."""
        return PEAK_RATE if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class Budget:
    """How long to train: one of minutes, steps, epochs."""

    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """The last step, None for a budget in minutes."""
        if self.steps is not None:
            return self.steps
        return None if self.epochs is None else max(1, round(self.epochs * steps_per_epoch))

    def total_minutes(self) -> float:
        """How long a budget in minutes lasts."""
        return self.minutes or MINUTES


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
    """why the training is over: "budget", "patience", "counted" """

    def entry(self) -> dict[str, Any]:
        """A line of log.jsonl: only what an unbroken run would have, so no clock times."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "valid": self.valid,
        }


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
        workers: Workers | None = None,
    ) -> None:
        hold_freed_memory()
        self.workers = workers or Workers()
        self.model = model.to(device)
        self.workers.begin(self.model, seed)
        self.valid = valid
        self.valid_targets = max(1, count_targets(valid, model.start_id))
        self.settings = settings
        self.budget = budget
        self.device = device
        self.precision = pick_precision(settings.precision, device)
        self.streams = ContiguousBatches(
            train,
            model.start_id,
            settings.batch or BATCH,
            settings.truncation or TRUNCATION,
            settings.reset_probability,
            seed,
        )
        self.batches = LengthCurriculum(self.streams, settings.curriculum or 0.0)
        self.total_steps = budget.total_steps(self.streams.steps_per_epoch)
        self.parameters = list(model.parameters())
        self.optimizer = AdamW.of(model, settings.weight_decay, device)
        self.state: State = self.model.initial_state(self.streams.batch // self.workers.size)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.best = math.inf
        self.best_step = 0
        self.worse = 0  # validations since the best one
        self.validated = 0.0  # fraction of the budget at the last validation
        self.validated_step = 0
        self.loss_sum = 0.0
        self.loss_steps = 0
        self.unread: list[Tensor] = []  # losses that are still where they were computed
        self.fetch_every = FETCH_EVERY

    # -------------------------------------------------------------- the loop

    def run(self, until: float = 1.0) -> Iterator[Progress]:
        """Train until that share of the budget is used; may be called again to go on."""
        clock = time.perf_counter()
        while self.fraction < until and not self._out_of_patience:
            rate = self._learning_rate()
            self._step(rate)
            self.seconds, clock = self._lap(clock)
            due = self._validation_due()
            logged = due or self.step % LOG_EVERY == 0
            if logged or not self.loss_steps or len(self.unread) >= self.fetch_every:
                self.fetch()
            valid, best = self._validate() if due else (None, False)
            if due:  # else no time has passed, and the budget must not end without a validation
                self.seconds, clock = self._lap(clock)
            mean = self.loss_sum / self.loss_steps
            if logged:
                self.loss_sum, self.loss_steps = 0.0, 0
            done = self._reason_to_stop()
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
                done=done,
            )
            clock = time.perf_counter()  # what the caller does in between is not training time

    def measure(self) -> float:
        """Validation loss as it is now, in nats per token; leaves no trace in the training.

        Every token once, in the training's own precision and with an approximate handing on of
        states: it only chooses weights. What is reported is scored exactly.
        """
        self.fetch()  # a loss that exploded is an error and not a result
        with self._precision():
            nats = stream_nats(self.model, self.valid, approximate=True)
        return float(nats.sum(dtype=np.float64)) / self.valid_targets

    def shorten(self, seconds: float, share: float) -> None:
        """Take what was spent elsewhere off the budget: seconds, or a share of the steps."""
        if self.total_steps is not None:
            self.total_steps = max(self.step + 1, round(self.total_steps * (1 - share)))
        else:
            minutes = self.budget.total_minutes() - seconds / 60
            least = self.seconds / 60 + 1e-3  # so that there is a step left, and its validation
            self.budget = replace(self.budget, minutes=max(minutes, least))

    def _lap(self, clock: float) -> tuple[float, float]:
        now = time.perf_counter()
        return self.workers.agree(self.seconds + now - clock), now

    @property
    def fraction(self) -> float:
        """The share of the budget that is used."""
        if self.total_steps is not None:
            return self.step / self.total_steps
        used = self.seconds / (60 * self.budget.total_minutes())
        if self.settings.most_epochs:
            last = self.settings.most_epochs * self.streams.steps_per_epoch
            used = max(used, self.step / last)
        return min(1.0, used)

    def _learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 0 at the end of the budget."""
        warmup, used = self.settings.warmup, self.fraction
        rise = 1.0
        if used < warmup:
            ahead = 1 / self.total_steps if self.total_steps else 1e-3
            rise = min(1.0, (used + ahead) / warmup)
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, used - warmup) / (1 - warmup + 1e-9)))
        return self.settings.peak_rate * rise * fall

    def _step(self, rate: float) -> None:
        """One update; the mean loss of its tokens, in nats, stays on the device."""
        batch = self.workers.share(self.batches.batch(self.step, self.fraction))
        inputs, targets = move(batch.inputs, self.device), move(batch.targets, self.device)
        if batch.reset_mask.any():
            reset_mask = move(batch.reset_mask, self.device)
            self.state = forget(self.state, self.model.initial_state(len(inputs)), reset_mask)
        self.model.train()
        with self._precision():
            loss, state = self.model.loss(inputs, targets, self.state)
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        self.unread.append(self.workers.average(self.model, loss, batch.targets))
        self.optimizer.step(rate, self.settings.clip)
        self.state = tuple(part.detach() for part in state)
        self.step += 1
        self.tokens += targets.numel() * self.workers.size

    def fetch(self) -> None:
        """Read the losses of the steps since the last fetch, and look at each."""
        losses = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for step, loss in enumerate(losses, self.step - len(losses) + 1):
            self.loss_sum += self._guarded(loss, step)
            self.loss_steps += 1

    def _precision(self) -> torch.autocast:
        low = self.precision == "bfloat16"
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=low)

    def _guarded(self, loss: float, step: int) -> float:
        """The loss itself, or a TrainingError if it is NaN or out of all proportion."""
        limit = EXPLODED * math.log(self.model.vocabulary + 1) + 5
        if math.isfinite(loss) and loss < limit:
            return loss
        what = "exploded" if math.isfinite(loss) else "became NaN"
        rate = self.settings.peak_rate
        kept = "the best weights so far are kept; " if self.best_step else ""
        raise TrainingError(
            f"the loss {what} at step {step} (learning rate {rate:g})",
            f"{kept}lower it: --set learning_rate={rate / 4:g}",
        )

    # -------------------------------------------------------------- validation

    def _validation_due(self) -> bool:
        """At even shares of the budget, for a small text every other epoch, and at the end.

        A big validation part is read less often, lest it take more than a seventh of the time:
        reading is three to four times as fast as learning. The rule counts tokens, not seconds, so
        that a resumed run keeps to it.
        """
        if self.fraction >= 1.0:
            return True
        steps = self.step - self.validated_step
        learnt = steps * self.streams.batch * self.streams.truncation
        share = self.fraction - self.validated >= 1 / self.settings.validations - 1e-9
        often = steps >= 2 * self.streams.steps_per_epoch
        return (share or often) and learnt >= 2 * len(self.valid)

    def _validate(self) -> tuple[float, bool]:
        """Validation loss over every token once, and whether it is the best."""
        loss = self.workers.from_first(self.measure)
        self.validated, self.validated_step = self.fraction, self.step
        best = loss < self.best
        if best:
            self.best, self.best_step, self.worse = loss, self.step, 0
        else:
            self.worse += 1
        return loss, best

    @property
    def _out_of_patience(self) -> bool:
        return 0 < self.settings.patience <= self.worse

    def _reason_to_stop(self) -> str | None:
        if self._out_of_patience:
            return "patience"
        return "budget" if self.fraction >= 1.0 else None


def forget(state: State, start: State, reset_mask: Tensor) -> State:
    """The start state where `reset_mask`, the carried one elsewhere. Shapes: (B, ...), (B,)."""
    rows = [reset_mask.to(part.device).view(-1, *[1] * (part.dim() - 1)) for part in state]
    return tuple(torch.where(r, a, b) for r, a, b in zip(rows, start, state, strict=True))
