"""What a JSON value must be, for files that others may have made: types, ranges, fields.

**In:** a value as `json.loads` gives it.
**Out:** nothing; or a ValueError that names the place and what is expected there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]
"""takes a value and its place, such as ``corpus.texts[2]``"""
LONGEST = 100
"""characters of a name"""


def whole(least: int = 0, most: int = 2**63 - 1) -> Check:
    """A whole number in a range.

    >>> whole(1)(0, "workers")
    Traceback (most recent call last):
    ValueError: 'workers' is not a whole number from 1 on
    """
    bounds = f"from {least} on" if most == 2**63 - 1 else f"from {least} to {most}"

    def check(value: Any, place: str) -> None:
        right = isinstance(value, int) and not isinstance(value, bool)
        _expect(right and least <= value <= most, place, f"a whole number {bounds}")

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A number in a range; neither infinite nor nan."""

    def check(value: Any, place: str) -> None:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        right = right and abs(value) <= 1e300 and least <= value <= most
        _expect(right, place, "a number" + f" from {least} on" * (least > -math.inf))

    return check


def text(value: Any, place: str) -> None:
    """Any text that can be written as UTF-8."""
    right = isinstance(value, str)
    if right:
        try:
            value.encode()
        except UnicodeEncodeError:
            right = False
    _expect(right, place, "a text")


def file_name(value: Any, place: str) -> None:
    """A text that can name a file, which may be one of undecodable bytes."""
    _expect(isinstance(value, str) and "\0" not in value, place, "the name of a file")


def name(value: Any, place: str) -> None:
    """A short text."""
    text(value, place)
    _expect(0 < len(value) <= LONGEST, place, "a name")


def flag(value: Any, place: str) -> None:
    """true or false."""
    _expect(isinstance(value, bool), place, "true or false")


def anything(value: Any, place: str) -> None:
    """No check."""


def plain(value: Any, place: str) -> None:
    """The value of a setting: null, true, false, a finite number, a text, or a list of these."""
    if isinstance(value, list):
        for one in value:
            plain(one, place)
    elif isinstance(value, str):
        text(value, place)
    elif value is not None and not isinstance(value, bool):
        number()(value, place)


def optional(check: Check) -> Check:
    """null, or what `check` allows."""

    def check_unless_null(value: Any, place: str) -> None:
        if value is not None:
            check(value, place)

    return check_unless_null


def one_of(*allowed: str) -> Check:
    """One of some texts."""

    def check(value: Any, place: str) -> None:
        _expect(isinstance(value, str) and value in allowed, place, f"one of {', '.join(allowed)}")

    return check


def list_of(check: Check, least: int = 0) -> Check:
    """A list of at least so many values, all of one kind."""

    def check_all(value: Any, place: str) -> None:
        _expect(isinstance(value, list) and len(value) >= least, place, "a list")
        for number, one in enumerate(value):
            check(one, f"{place}[{number}]")

    return check_all


def pair(value: Any, place: str) -> None:
    """A list of two texts."""
    list_of(text)(value, place)
    _expect(len(value) == 2, place, "a list of two")


def whole_text(value: Any, place: str) -> None:
    """A whole number as a text, as the names in an object are."""
    _expect(value.isascii() and value.isdigit() and len(value) < 10, place, "a whole number")


def mapping_of(check: Check, keys: Check = name) -> Check:
    """An object with any names, whose values are all of one kind."""

    def check_all(value: Any, place: str) -> None:
        _expect(isinstance(value, dict), place, "an object")
        for key, one in value.items():
            keys(key, f"a name in {place}")
            check(one, f"{place}.{key}")

    return check_all


def fields(required: Mapping[str, Check], others: Mapping[str, Check] | None = None) -> Check:
    """An object that has the required fields; further ones may lack, or be unknown.

    >>> fields({"a": flag})({"a": 1}, "it")
    Traceback (most recent call last):
    ValueError: 'it.a' is not true or false
    """

    def check(value: Any, place: str) -> None:
        _expect(isinstance(value, dict), place or "it", "an object")
        dot = f"{place}." if place else ""
        for key, check_one in {**(others or {}), **required}.items():
            if key in value:
                check_one(value[key], dot + key)
            elif key in required:
                raise ValueError(f"'{dot}{key}' is missing")

    return check


def _expect(right: bool, place: str, what: str) -> None:
    if not right:
        raise ValueError(f"'{place}' is not {what}")
