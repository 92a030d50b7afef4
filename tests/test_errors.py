"""Errors say what is wrong and what to do next; their tree is the one that is written down."""

import re

import pytest

from lmcli import errors
from lmcli.errors import LmcliError, UsageError, did_you_mean

KINDS = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, LmcliError)]


def written_tree():
    """Each kind that the docstring draws, with the one it hangs below."""
    found, above = {}, []
    for line in errors.__doc__.splitlines():
        if drawn := re.match(r"    ([│├└─ ]*)(\w+Error)  ", line):
            depth = len(drawn[1]) // 4
            above[depth:] = [drawn[2]]
            found[drawn[2]] = above[depth - 1] if depth else "Exception"
    return found


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    assert written_tree() == {kind.__name__: kind.__base__.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_problem_a_hint_and_an_exit_code(kind):
    error = kind("no file named 'a'", "check the spelling")
    assert (str(error), error.problem, error.hint) == (error.problem, *error.args, error.hint)
    assert error.exit_code == (2 if issubclass(kind, UsageError) else 1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gruu", "did you mean 'gru'?"),
        ("lsmt", "did you mean 'lstm'?"),
        ("transformer", "known: gru, lstm"),
        ("", "known: gru, lstm"),
    ],
)
def test_the_nearest_name_is_the_hint(name, hint):
    assert did_you_mean(name, iter(["lstm", "gru"])) == hint
