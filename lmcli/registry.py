"""Families: a folder of interchangeable members as a registry.

**In:** a package such as ``lmcli.models``. A file in it, or the ``__init__.py`` of a folder in it,
that has a line ``Member = Foo`` is a member, and the name of the file or folder is the member's
name. A folder may say ``Member = "file:Foo"``, so that its other files can be imported alone. Other
distributions add members by entry points of the group that is named like the family:
``[project.entry-points."lmcli.models"]``, ``mine = "my_package.mine:Mine"``.
**Out:** names and one-line summaries without importing anything; the class itself on request.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Family:
    """A folder of members, looked up by name.

    `group` is the group of entry points by which other distributions add members. A member of the
    folder cannot be replaced by one from elsewhere.
    """

    def __init__(self, package: str, noun: str, group: str | None = None) -> None:
        self.package = package
        self.noun = noun
        self.group = group

    def _files(self) -> dict[str, Path]:
        folders = [Path(folder) for folder in importlib.import_module(self.package).__path__]
        files = {f.stem: f for folder in folders for f in folder.glob("*.py")}
        files |= {f.parent.name: f for folder in folders for f in folder.glob("*/__init__.py")}
        return {name: file for name, file in files.items() if _is_member(file)}

    def _entry_points(self) -> dict[str, EntryPoint]:
        return _entry_points(self.group) if self.group else {}

    def names(self) -> list[str]:
        """All names, sorted; imports no member."""
        return sorted({*self._files(), *self._entry_points()})

    def summary(self, name: str) -> str:
        """The first line of the member's docstring; imports no member."""
        file = self._files().get(self.check(name)) or _source(self._entry_points()[name])
        source = file.read_text(encoding="utf-8") if file else ""
        return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]

    def check(self, name: str) -> str:
        """The name itself if it is a member's, else an UnknownNameError with the nearest name."""
        known = self.names()
        if name not in known:
            raise UnknownNameError(f"no {self.noun} named '{name}'", did_you_mean(name, known))
        return name

    def load(self, name: str) -> Any:
        """Import the member's file and return its class."""
        if self.check(name) in self._files():
            place = f"{self.package}.{name}"
            member = importlib.import_module(place).Member
            if isinstance(member, str):
                module, _, attribute = member.partition(":")
                member = getattr(importlib.import_module(f"{place}.{module}"), attribute)
            return member
        return self._entry_points()[name].load()


def _is_member(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return text.startswith("Member = ") or "\nMember = " in text


@functools.cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    import importlib.metadata  # 18 ms, which help texts need not wait for

    return {e.name: e for e in importlib.metadata.entry_points(group=group)}


def _source(entry_point: EntryPoint) -> Path | None:
    spec = importlib.util.find_spec(entry_point.module)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


MODELS = Family("lmcli.models", "architecture", "lmcli.models")
NUMPY_MODELS = Family("lmcli.generation.numpy_models", "NumPy model")
TOKENIZERS = Family("lmcli.tokenizers", "tokenizer", "lmcli.tokenizers")
GRAMMARS = Family("lmcli.grammars", "grammar", "lmcli.grammars")
PROBES = Family("lmcli.evaluation.probes", "probe", "lmcli.probes")
