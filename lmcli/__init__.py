"""Train small language models on your own text and measure how far back each one remembers.

The commands as functions: `demo`, `train`, `load`, `sample`, `evaluate`, `compare`, `cloze`,
`probe`, `inspect`, `make`, `export`. They are loaded with the first use; importing lmcli loads
neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmcli.system import limit_spinning as _limit_spinning

if TYPE_CHECKING:
    from lmcli.api import (
        cloze,
        compare,
        demo,
        evaluate,
        export,
        inspect,
        load,
        make,
        probe,
        resume,
        sample,
        train,
    )
    from lmcli.errors import LmcliError
    from lmcli.run import Run

__version__ = "0.1.0"
__all__ = [
    "LmcliError",
    "Run",
    "cloze",
    "compare",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "load",
    "make",
    "probe",
    "resume",
    "sample",
    "train",
]

_limit_spinning()  # before torch is loaded


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lmcli' has no attribute '{name}'")
    import importlib

    home = {"LmcliError": "errors", "Run": "run"}.get(name, "api")
    return getattr(importlib.import_module(f"lmcli.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
