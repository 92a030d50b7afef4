"""The settings of a member read from its source, as completion has no time to import torch.

**In:** a family and a name, or ``module:Class``.
**Out:** names of settings with their help and, where there are choices, their values.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmcli.registry import Family

BOOLEANS = ("true", "false")


@dataclass(frozen=True)
class SettingName:
    """What completion shows of a setting."""

    about: str
    values: tuple[str, ...] = ()
    default: str = "auto"
    """as it may be typed"""


def setting_names(family: Family | str, name: str = "") -> dict[str, SettingName]:
    """By name, in the order they are written; none where the source is not to be found."""
    place = family if isinstance(family, str) else _settings_class(f"{family.package}.{name}")
    if not place:
        return {}
    module, _, cls = place.partition(":")
    return dict(_fields(module, cls))


def _settings_class(module: str) -> str:
    """``module:Class`` of a member's settings."""
    member = _assigned(_parsed(module), "Member")
    if isinstance(member, ast.Constant):  # "file:Class"
        inner, _, cls = str(member.value).partition(":")
        module = f"{module}.{inner}"
    elif isinstance(member, ast.Name):
        cls = member.id
    else:
        return ""
    found = _class(module, cls)
    settings = None if found is None else _assigned(found, "Settings")
    return f"{module}:{settings.id}" if isinstance(settings, ast.Name) else ""


def _fields(module: str, cls: str) -> Iterator[tuple[str, SettingName]]:
    """Those of the bases first, as in a dataclass."""
    found = _class(module, cls)
    if found is None:
        return
    for base in found.bases:
        if isinstance(base, ast.Name):
            yield from _fields(_home(module, base.id), base.id)
    for field in found.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            about, default = _setting(module, field.value)
            yield field.target.id, SettingName(about, _values(field), default)


def _setting(module: str, value: ast.expr | None) -> tuple[str, str]:
    """Help and default of ``setting(default, about)``."""
    if not isinstance(value, ast.Call) or len(value.args) < 2:
        return "", "auto"
    default, about = (_constant(module, argument) for argument in value.args[:2])
    return str(about or ""), "auto" if default is None else str(default).lower()


def _constant(module: str, value: ast.expr) -> object:
    """A constant as it stands, or what its name was given; None for anything else."""
    if isinstance(value, ast.Name):
        home = _home(module, value.id)
        value = _assigned(_parsed(home), value.id) or value
    return value.value if isinstance(value, ast.Constant) else None


def _values(field: ast.AnnAssign) -> tuple[str, ...]:
    """The members of a Literal, or true and false."""
    for part in ast.walk(field.annotation):
        if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "Literal":
            return tuple(str(value) for value in _literals(part.slice))
        if isinstance(part, ast.Name) and part.id == "bool":
            return BOOLEANS
    return ()


def _literals(node: ast.expr) -> tuple[object, ...]:
    values = ast.literal_eval(node)
    return values if isinstance(values, tuple) else (values,)


@cache
def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return ast.parse(source)


def _class(module: str, name: str) -> ast.ClassDef | None:
    """A class where it is written."""
    home = _home(module, name)
    classes = (node for node in _parsed(home).body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == name), None)


def _home(module: str, name: str) -> str:
    """The module that a name is imported from, or the module itself."""
    for node in _parsed(module).body:
        if isinstance(node, ast.ImportFrom) and any(a.name == name for a in node.names):
            return node.module or module
    return module


def _assigned(node: ast.Module | ast.ClassDef, name: str) -> ast.expr | None:
    """What a name is given in a module or class."""
    for line in node.body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return line.value if isinstance(line, ast.Assign) else None
        if isinstance(line, ast.AnnAssign) and getattr(line.target, "id", "") == name:
            return line.value
    return None
