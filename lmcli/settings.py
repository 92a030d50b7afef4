"""Settings: frozen dataclasses that stand next to what they configure.

**In:** ``name=value`` texts from ``--set`` or a TOML table.
**Out:** a new frozen dataclass; a name or value that does not fit is a UsageError.

A settings class is a frozen dataclass whose fields are made by `setting`, so that each default and
each help text exists once; ``lmcli list NAME`` prints them.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from lmcli.errors import UsageError, did_you_mean


class Settings(Protocol):
    """Any frozen dataclass whose fields were made by `setting`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


S = TypeVar("S", bound=Settings)


def setting(
    default: Any,
    about: str,
    *,
    least: float | None = None,
    most: float | None = None,
    unset: str = "chosen",
) -> Any:
    """A field of a settings class: its default, one line of help, and its allowed range.

    `unset` says what None means: that the value is chosen from text and budget, or none at all.
    """
    metadata = {"about": about, "least": least, "most": most, "unset": unset}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class SettingHelp:
    """One row of ``lmcli list NAME``."""

    name: str
    kind: str
    default: Any
    about: str
    unset: str


def describe(cls: type[Settings]) -> list[SettingHelp]:
    """Name, type, default and help of every setting, in the order they are written."""
    hints = typing.get_type_hints(cls)
    return [
        SettingHelp(
            f.name,
            kind_of(hints[f.name]),
            f.default,
            f.metadata.get("about", ""),
            f.metadata.get("unset", "chosen"),
        )
        for f in dataclasses.fields(cls)
    ]


def kind_of(hint: Any) -> str:
    """A type as a user would say it.

    >>> kind_of(int | None), kind_of(Literal["a", "b"])
    ('int', 'a|b')
    """
    inner = _without_none(hint)
    if typing.get_origin(inner) is Literal:
        return "|".join(str(a) for a in typing.get_args(inner))
    return str(getattr(inner, "__name__", inner))


def text_names(texts: str | Path | Sequence[str | Path] | None) -> list[str]:
    """The texts that a caller gave, as the command line would name them.

    >>> text_names("a.txt"), text_names([Path("a.txt"), "b.txt"]), text_names(None)
    (['a.txt'], ['a.txt', 'b.txt'], [])
    """
    if texts is None:
        return []
    return [str(texts)] if isinstance(texts, str | Path) else [str(text) for text in texts]


def split_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """``["hidden=64", "dropout=0.1"]`` as a dict; a text without ``=`` is a UsageError.

    >>> split_pairs(["hidden=64"])
    {'hidden': '64'}
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: no '=' in it", "write --set name=value")
        found[name.strip().replace("-", "_")] = value.strip()
    return found


def names(cls: type[Settings]) -> set[str]:
    """The names of all settings of a class."""
    return {f.name for f in dataclasses.fields(cls)}


def check_known(pairs: Mapping[str, Any], *classes: type[Settings]) -> None:
    """Raise a UsageError with "did you mean" for a name that no class knows."""
    known = set().union(*(names(c) for c in classes)) if classes else set()
    for name in pairs:
        if name not in known:
            raise UsageError(f"no setting named '{name}'", did_you_mean(name, known))


def update(base: S, pairs: Mapping[str, Any]) -> S:
    """A copy of `base` with those of `pairs` that it has; the others are left to other classes."""
    hints = typing.get_type_hints(type(base))
    changes = {}
    for field in dataclasses.fields(base):
        if field.name in pairs:
            value = parse(field.name, pairs[field.name], hints[field.name])
            _check_range(field, value)
            changes[field.name] = value
    return dataclasses.replace(base, **changes)


def parse(name: str, value: Any, hint: Any) -> Any:
    """A text (or a TOML value) as the type of a setting.

    >>> parse("hidden", "64", int), parse("tie", "yes", bool), parse("rate", "none", float | None)
    (64, True, None)
    """
    inner = _without_none(hint)
    text = str(value).strip()
    if inner is not hint and text.lower() in ("none", "auto"):
        return None
    try:
        if typing.get_origin(inner) is Literal:
            return {str(a): a for a in typing.get_args(inner)}[text]
        if inner is bool:
            return _BOOLEANS[text.lower()]
        if inner is int:
            return int(text.replace("_", ""))
        return inner(text)
    except (KeyError, ValueError):
        kind = "true or false" if inner is bool else kind_of(inner)
        raise UsageError(
            f"setting {name}={text}: not {_article(kind)}",
            f"for example --set {name}={_example(inner)}",
        ) from None


_BOOLEANS = {"true": True, "yes": True, "1": True, "on": True}
_BOOLEANS |= {"false": False, "no": False, "0": False, "off": False}


def _example(inner: Any) -> str:
    if typing.get_origin(inner) is Literal:
        return str(typing.get_args(inner)[0])
    return {int: "2", float: "0.1", bool: "true"}.get(inner, "name")


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """The value of an option if it is allowed, else a UsageError."""
    if value not in allowed:
        raise UsageError(f"--{name} {value}: no such choice", did_you_mean(value, allowed))
    return value


def _article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number", "str": "a text"}.get(kind, kind)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    least, most = field.metadata.get("least"), field.metadata.get("most")
    if (
        not abs(value) < math.inf
        or (least is not None and value < least)
        or (most is not None and value > most)
    ):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"setting {field.name}={value} is out of range", f"it must be {bounds}")
