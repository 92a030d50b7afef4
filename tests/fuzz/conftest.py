"""Hostile input: what the fuzz tests share.

`make test` runs a fixed set of examples; `make fuzz` takes fresh ones, a hundred times as many.
"""

import json
import resource
import sys

import pytest
from hypothesis import strategies as st

from lmcli.errors import LmcliError

MOST_MEMORY = 1 << 30
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 63, 2**31, -(2**63), 2**63, 10**30, 4096, 5000]),
    st.sampled_from([float("nan"), float("inf"), -0.0, 1e-320, 1e308, 0.5, -2.5]),
    st.text(max_size=12),
    st.sampled_from(["", "\0", "\ud800", "\x1b[2J", "../..", "a\nb", "-", "none", "x" * 5000]),
)
HOW = st.sampled_from(["replaced", "replaced", "left out", "doubled", "joined"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS.map(str), inner)
)


def places(value, here=()):
    """The places in a JSON value, the whole of it first."""
    yield here
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*here, key))


def changed(value, place, how, new):
    """A copy in which what is at a place is replaced, left out, doubled or joined by another."""
    value = json.loads(json.dumps(value))
    if not place:
        return new
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key = place[-1]
    if how == "left out":
        del holder[key]
    elif how == "doubled" and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how == "joined" and isinstance(holder, dict):
        holder["strange"] = new
    else:
        holder[key] = new
    return value


@pytest.fixture(scope="session")
def mutations():
    """``mutations(value)``: a strategy of JSON values that differ from it in one to three places.

    Most are wrong in one field of otherwise right ones, so that they reach what reads that field.
    """

    def make(value):
        known = sorted(places(value), key=len)

        @st.composite
        def mutated(draw):
            mutant = value
            for _ in range(draw(st.integers(1, 3))):
                place = draw(st.sampled_from(known))
                try:
                    mutant = changed(mutant, place, draw(HOW), draw(VALUES))
                except (KeyError, IndexError, TypeError, ValueError):
                    continue  # that place is gone
            return mutant

        return mutated()

    return make


@pytest.fixture(scope="session")
def refused():
    """``refused(call)``: whether it raises an error for the user; any other exception is a bug."""

    def call_it(call):
        try:
            call()
        except LmcliError as error:
            for said in (error.problem, error.hint):
                assert said.strip()
                assert len(said) < 20_000
            return True
        return False

    return call_it


@pytest.fixture(scope="module", autouse=True)
def _little_memory():
    """No test here makes the process larger than 1 GiB beside what it was."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    unit = 1 if sys.platform == "darwin" else 1024
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    assert grown < MOST_MEMORY
