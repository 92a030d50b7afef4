"""Settings: texts become values of the right type in their range, or an error that says how."""

from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import LmcliError, UsageError
from lmcli.registry import GRAMMARS, MODELS, TOKENIZERS
from lmcli.settings import (
    check_known,
    describe,
    kind_of,
    names,
    parse,
    setting,
    split_pairs,
    update,
)
from lmcli.training.training_settings import TrainingSettings


@dataclass(frozen=True)
class Example:
    width: int = setting(8, "how wide", least=1, most=100)
    rate: float | None = setting(None, "how fast", least=0)
    tie: bool = setting(False, "whether tied")
    kind: Literal["a", "b"] = setting("a", "which one")
    title: str = setting("x", "what it is called")


def every_class():
    members = [f.load(n).Settings for f in (MODELS, TOKENIZERS, GRAMMARS) for n in f.names()]
    return [Example, TrainingSettings, *dict.fromkeys(members)]


@given(st.integers(1, 100))
def test_a_whole_number_comes_back(value):
    assert update(Example(), {"width": str(value)}).width == value
    assert update(Example(), {"width": value}).width == value


@given(st.floats(0, allow_nan=False, allow_infinity=False))
def test_a_number_comes_back(value):
    assert update(Example(), {"rate": repr(value)}).rate == value


@given(st.text())
def test_any_text_is_a_value_or_a_usage_error(text):
    for name, hint in (
        ("width", int), ("rate", float | None), ("tie", bool), ("kind", Literal["a", "b"])
    ):  # fmt: skip
        try:
            value = parse(name, text, hint)
        except UsageError as error:
            value, told = None, error
        else:
            told = UsageError(name, f"--set {name}=")
        assert value is None or isinstance(value, int | float | str)
        assert name in told.problem
        assert f"--set {name}=" in told.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("Yes", True), ("1", True), ("ON", True), ("false", False), ("0", False)],
)
def test_yes_and_no_have_many_names(text, value):
    assert update(Example(), {"tie": text}).tie is value
    assert update(Example(), {"tie": value}).tie is value


@pytest.mark.parametrize("text", ["none", "None", "auto"])
def test_what_may_be_open_can_be_opened_and_nothing_else(text):
    assert update(Example(rate=1.0), {"rate": text}).rate is None
    with pytest.raises(UsageError, match="not a whole number"):
        update(Example(), {"width": text})


@pytest.mark.parametrize(
    ("pairs", "problem", "hint"),
    [
        ({"width": "x"}, "setting width=x: not a whole number", "for example --set width=2"),
        ({"width": "1.5"}, "setting width=1.5: not a whole number", "for example --set width=2"),
        ({"rate": "fast"}, "setting rate=fast: not a number", "for example --set rate=0.1"),
        ({"tie": "maybe"}, "setting tie=maybe: not true or false", "for example --set tie=true"),
        ({"kind": "c"}, "setting kind=c: not a|b", "for example --set kind=a"),
        ({"width": "0"}, "setting width=0 is out of range", "it must be from 1 to 100"),
        ({"width": "101"}, "setting width=101 is out of range", "it must be from 1 to 100"),
        ({"rate": "-0.1"}, "setting rate=-0.1 is out of range", "it must be at least 0"),
        ({"rate": "nan"}, "setting rate=nan is out of range", "it must be at least 0"),
    ],
)
def test_what_does_not_fit_says_what_would(pairs, problem, hint):
    with pytest.raises(UsageError) as caught:
        update(Example(), pairs)
    assert (caught.value.problem, caught.value.hint) == (problem, hint)


def test_the_bounds_themselves_are_allowed():
    assert update(Example(), {"width": "1"}).width == 1
    assert update(Example(), {"width": "100", "rate": "0"}) == Example(width=100, rate=0.0)


def test_names_of_other_classes_are_left_to_them():
    assert update(Example(), {"order": "4", "width": "3"}) == Example(width=3)


def test_a_name_that_no_class_knows_is_an_error_with_the_nearest_one():
    check_known({"width": 1, "batch": 2}, Example, TrainingSettings)
    with pytest.raises(UsageError, match="no setting named 'witdh'") as caught:
        check_known({"witdh": 1}, Example, TrainingSettings)
    assert caught.value.hint == "did you mean 'width'?"


def test_pairs_are_cut_at_the_first_equals_and_dashes_are_underscores():
    assert split_pairs(["a = 1", "b-c=x=y"]) == {"a": "1", "b_c": "x=y"}
    with pytest.raises(UsageError, match="no '=' in it"):
        split_pairs(["hidden"])


def test_settings_are_frozen_and_updating_makes_a_copy():
    base = Example()
    assert update(base, {"width": 9}) is not base
    assert base == Example()
    with pytest.raises(FrozenInstanceError):
        base.width = 9


@pytest.mark.parametrize("cls", every_class(), ids=lambda c: c.__qualname__)
def test_every_setting_has_a_help_text_and_a_default_that_parses(cls):
    base, rows = cls(), describe(cls)
    assert {row.name for row in rows} == names(cls)
    for row in rows:
        assert row.about
        assert row.kind
        assert getattr(base, row.name) == row.default
        if row.default is not None:
            assert update(replace(base), {row.name: str(row.default)}) == base


@pytest.mark.parametrize(
    ("hint", "kind"),
    [(int, "int"), (float | None, "float"), (bool, "bool"), (Literal["a", "b"], "a|b")],
)
def test_types_are_named_as_a_user_would(hint, kind):
    assert kind_of(hint) == kind


def test_a_usage_error_is_wrong_usage():
    assert UsageError("a", "b").exit_code == 2
    assert issubclass(UsageError, LmcliError)
