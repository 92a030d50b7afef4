"""Results: values stay raw, and are rounded once, where they are shown."""

import json
import math
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.report.result import (
    BITS,
    BITS_PER_CHAR,
    MISSING,
    PARAMETERS,
    PERCENT,
    PERPLEXITY,
    Column,
    Metric,
    Result,
    Table,
    dig,
    finite,
    text,
)

numbers = st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(value=numbers, decimals=st.integers(0, 6))
def test_a_number_is_rounded_once_to_its_decimals(value, decimals):
    shown = Metric("x", decimals).show(value)
    exact = Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)
    assert Decimal(shown.replace(",", "")) == exact
    assert len(shown.partition(".")[2]) == decimals


@pytest.mark.parametrize(
    ("metric", "value", "error", "shown"),
    [
        (PERPLEXITY, 4.67894, None, "4.679"),
        (BITS_PER_CHAR, 2.2261, 0.01234, "2.2261 ± 0.0123"),
        (BITS_PER_CHAR, 2.2261, math.nan, "2.2261"),
        (PARAMETERS, 1_234_567, None, "1,234,567"),
        (PERCENT, 0.98765, None, "98.8 %"),
        (PERPLEXITY, 999_999_999_999.0, None, "999,999,999,999.000"),
        (PERPLEXITY, 1.09450608e84, None, "1.095e+84"),
        (PARAMETERS, -2.5e15, None, "-2e+15"),
        (BITS_PER_CHAR, -0.00004, None, "0.0000"),
        (BITS, -0.006, None, "-0.01"),
        (PERCENT, -0.0, None, "0.0 %"),
        (BITS_PER_CHAR, 0.5, 0.0, "0.5000 ± 0.0000"),
        (text("name"), "lstm", None, "lstm"),
        (text("name"), 3.14159, None, "3.14159"),
    ],
)
def test_numbers_look_as_their_kind_does(metric, value, error, shown):
    assert metric.show(value, error) == shown


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_there_or_not_finite_is_a_dash(value):
    assert PERPLEXITY.show(value) == MISSING


def test_a_column_finds_its_value_and_the_error_beside_it():
    row = {"test": {"bits_per_char": 2.5, "standard_error": 0.25}, "bits_per_char": 1.5}
    assert Column("test.bits_per_char", BITS_PER_CHAR).cell(row) == "2.5000 ± 0.2500"
    assert Column("bits_per_char", BITS_PER_CHAR).cell(row) == "1.5000"
    assert Column("valid.bits_per_char", BITS_PER_CHAR).cell(row) == MISSING
    assert Column("a", PERPLEXITY).title == "perplexity"
    assert Column("a", PERPLEXITY, "b").title == "b"
    assert Column("a", PERPLEXITY, "").title == ""


@pytest.mark.parametrize(
    ("path", "value"), [("a.b", 1), ("a", {"b": 1}), ("a.c", None), ("a.b.c", None), ("x.y", None)]
)
def test_digging_ends_in_a_value_or_nothing(path, value):
    assert dig({"a": {"b": 1}}, path) == value


@given(plain)
def test_whatever_is_measured_becomes_strict_json(value):
    written = json.dumps(finite({"value": value}), allow_nan=False)
    found = json.loads(written)["value"]
    if not isinstance(value, list | dict | float):
        assert found == value


@given(st.floats())
def test_finite_numbers_stay_what_they_are_to_the_last_digit(value):
    right = value if math.isfinite(value) else None
    assert finite(value) == right
    assert finite(np.float64(value)) == right
    assert type(finite(np.float64(value))) in (float, type(None))


def test_tuples_and_numpy_numbers_become_plain():
    found = finite({1: (np.int64(3), np.float32(0.5), np.bool_(True))})
    assert found == {"1": [3, 0.5, True]}
    assert [type(v) for v in found["1"]] == [int, float, bool]


def test_a_result_holds_raw_numbers_under_a_schema_and_its_command():
    values = {"perplexity": 4.678912345678, "nan": math.nan}
    table = Table("t", [Column("perplexity", PERPLEXITY)], [values])
    result = Result("eval", values, [table], ["lmcli sample x"])
    assert result.to_json() == {
        "schema": 1,
        "command": "eval",
        "perplexity": 4.678912345678,
        "nan": None,
    }
