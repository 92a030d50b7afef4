"""What can go wrong that a user can put right.

**In:** what is wrong, with value and place, and one next step.
**Out:** two lines, ``error: ...`` and ``hint: ...``, and an exit code.

The tree of all kinds::

    LmcliError             exit 1: something the user can fix
    ├── TextError          a text that is missing, empty, unreadable or too short
    ├── UnknownNameError   no member of that name in a family (with "did you mean")
    ├── RunError           a run folder that is missing, damaged, newer or in the way
    ├── TrainingError      training that blew up or cannot go on
    │   └── LostWorkerError    another process of the training is gone
    ├── StorageError       a full disk, a read-only folder
    └── UsageError         exit 2: an option, setting or key that does not exist or does not fit
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LmcliError(Exception):
    """A problem and a hint, both lower case and without a full stop.

    >>> str(LmcliError("no file named 'a.txt'", "check the spelling"))
    "no file named 'a.txt'"
    """

    exit_code = 1

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[type[LmcliError], tuple[str, str]]:
        """What another process needs to make it again."""
        return type(self), (self.problem, self.hint)


class TextError(LmcliError):
    """A text that is missing, empty, unreadable or too short."""


class UnknownNameError(LmcliError):
    """No member of that name in a family."""


class RunError(LmcliError):
    """A run folder that is missing, damaged, from a newer lmcli or in the way."""


class TrainingError(LmcliError):
    """Training that blew up or cannot go on."""


class LostWorkerError(TrainingError):
    """Another process of the training is gone."""


class StorageError(LmcliError):
    """A disk that is full or a folder that cannot be written."""


class UsageError(LmcliError):
    """An option, setting or key that does not exist or does not fit."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a hint, or all of them.

    >>> did_you_mean("gruu", ["gru", "lstm"])
    "did you mean 'gru'?"
    >>> did_you_mean("transformer", ["gru", "lstm"])
    'known: gru, lstm'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
