"""What a long piece of work says while it goes on.

**In:** stages of reading, of training, remarks.
**Out:** events for a callback. Nothing is printed here: a command line draws bars, a notebook may
keep the events, the default is to say warnings by Python's own `warnings` and drop the rest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

OnProgress = Callable[[Any], object]
"""called with each event; while a model is trained, a true answer asks to stop at the next step"""


@dataclass(frozen=True)
class Message:
    """A remark for the user, lower case and without a full stop."""

    text: str
    level: Literal["note", "warning"] = "note"


@dataclass(frozen=True)
class Stage:
    """How far a long stage is: `done` of `total` of a unit; a total of 0 is not known."""

    name: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Training:
    """How far a training is."""

    name: str
    """of the architecture, or of the row of a comparison"""
    fraction: float
    """of the budget, 0 to 1"""
    loss: float
    """nats a token, on the training part, lately"""
    bits_per_char: float | None
    """on the validation part, None between validations"""
    tokens: int
    seconds: float


def warnings_only(event: object) -> None:
    """The default callback: warnings by `warnings.warn`, all else dropped."""
    if isinstance(event, Message) and event.level == "warning":
        warnings.warn(event.text, stacklevel=3)
