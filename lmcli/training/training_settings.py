"""Settings of a training, and its budget: what a user may say, with None for what is left open.

**In:** ``--set`` pairs, ``--minutes``, ``--steps``, ``--epochs``.
**Out:** `TrainingSettings` and `Budget`. What is left open is chosen in defaults.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lmcli.errors import UsageError
from lmcli.settings import setting

BATCH, TRUNCATION, PEAK_RATE, WEIGHT_DECAY, MINUTES = 16, 64, 2e-3, 0.01, 3.0
"""used where a setting or the budget is left open: by a Trainer without `resolve_defaults`"""
BUDGETS = ("minutes", "steps", "epochs")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; None is chosen from text, budget and architecture."""

    batch: int | None = setting(None, "parallel streams B", least=1, most=1 << 20)
    truncation: int | None = setting(
        None, "steps T through which gradients flow", least=1, most=1 << 20
    )
    learning_rate: float | None = setting(None, "peak learning rate", least=0)
    weight_decay: float | None = setting(
        None, "AdamW's decay of all matrices except recurrent weights", least=0
    )
    recurrent_weight_decay: float | None = setting(
        None, "AdamW's decay of recurrent weights", least=0
    )
    beta2: float | None = setting(
        None, "AdamW's decay of mean squared gradients", least=0, most=0.99999
    )
    second_moment: Literal["entry", "table"] | None = setting(
        None, "AdamW's mean squared gradients in tables of tokens: one an entry, or one a table"
    )
    clip: float = setting(1.0, "largest norm of the gradient", least=0)
    warmup: float = setting(0.02, "share of the budget spent warming up", least=0, most=1)
    reset_probability: float = setting(
        0.02, "probability that a stream's state is reset at a chunk", least=0, most=1
    )
    curriculum: float | None = setting(
        None, "share of the budget for short documents first, then longer ones", least=0, most=1
    )
    validations: int = setting(12, "how often to validate within the budget", least=1, most=10**6)
    most_epochs: float | None = setting(
        None, "a budget in minutes ends after this many passes; 0 = never", least=0
    )
    patience: int = setting(
        5, "validations without progress, below half the rate, to stop after; 0 = never", least=0
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "arithmetic of the matrix products"
    )
    threads: int | None = setting(
        None, "threads on the CPU", least=1, most=1024, unset="1 for a small model, else one a core"
    )

    @property
    def peak_rate(self) -> float:
        """The learning rate, or the default if there is none; 0 is a rate."""
        return PEAK_RATE if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay, or the default if there is none; 0 is one."""
        return WEIGHT_DECAY if self.weight_decay is None else self.weight_decay

    @property
    def recurrent_decay(self) -> float:
        """The decay of recurrent weights; none in runs that have no such setting."""
        return self.recurrent_weight_decay or 0.0


@dataclass(frozen=True)
class Budget:
    """How long to train: one of minutes, steps, epochs."""

    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], default: float = MINUTES) -> Budget:
        """The option that is given, or `default` minutes; several are a UsageError."""
        given = {n: options[n] for n in BUDGETS if options[n] is not None}
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} {value}: not a budget", f"for example --{name} 5")
        if len(given) > 1:
            problem = "--{} and --{} at once".format(*given)
            raise UsageError(problem, "give one budget, the other follows from it")
        return cls(**given) if given else cls(default)

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """The last step, None for a budget in minutes."""
        if self.steps is not None:
            return self.steps
        return None if self.epochs is None else max(1, round(self.epochs * steps_per_epoch))

    def total_minutes(self) -> float:
        """How long a budget in minutes lasts."""
        return self.minutes or MINUTES
