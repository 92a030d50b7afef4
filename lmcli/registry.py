"""Families: a folder of interchangeable files as a registry.

**In:** a package such as ``lmcli.models``. A file in it that has a line ``Member = Foo`` is a
member, and the file's name is the member's name.
**Out:** names and one-line summaries without importing anything; the class itself when asked for.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from lmcli.errors import UnknownNameError, did_you_mean


class Family:
    """A folder of members, looked up by name."""

    def __init__(self, package: str, noun: str) -> None:
        self.package = package
        self.noun = noun

    def _files(self) -> dict[str, Path]:
        folders = importlib.import_module(self.package).__path__
        files = (f for folder in folders for f in sorted(Path(folder).glob("*.py")))
        return {f.stem: f for f in files if _is_member(f)}

    def names(self) -> list[str]:
        """All names, sorted; imports no member."""
        return sorted(self._files())

    def summary(self, name: str) -> str:
        """The first line of the member's docstring; imports no member."""
        source = self._files()[self.check(name)].read_text(encoding="utf-8")
        return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]

    def check(self, name: str) -> str:
        """The name itself if it is a member's, else an UnknownNameError with the nearest name."""
        known = self.names()
        if name not in known:
            raise UnknownNameError(f"no {self.noun} named '{name}'", did_you_mean(name, known))
        return name

    def load(self, name: str) -> Any:
        """Import the member's file and return its class."""
        return importlib.import_module(f"{self.package}.{self.check(name)}").Member


def _is_member(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return text.startswith("Member = ") or "\nMember = " in text


MODELS = Family("lmcli.models", "architecture")
STEPPERS = Family("lmcli.steppers", "stepper")
TOKENIZERS = Family("lmcli.tokenizers", "tokenizer")
GRAMMARS = Family("lmcli.grammars", "grammar")
PROBES = Family("lmcli.probes", "probe")
