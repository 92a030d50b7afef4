"""Learning curves: one line a row, the mean of its seeds."""

from types import SimpleNamespace

import pytest

from lmcli.pages.learning import learning_section


@pytest.fixture
def logged(make_run, tmp_path):
    """``logged("a", [(tokens, loss), ...])`` is a run with these validations in its log."""

    def make(name, validations):
        run = make_run(tmp_path / name)
        run.append_log({"step": 1, "tokens": 5, "loss": 3.0, "valid": None})
        for tokens, loss in validations:
            run.append_log({"step": 2, "tokens": tokens, "loss": 1.0, "valid": loss})
        return run

    return make


def curves(**runs):
    section = learning_section(SimpleNamespace(runs=runs))
    [figure] = section.blocks
    return {s.name: list(zip(s.x, [p.value for p in s.points], strict=True)) for s in figure.series}


def test_a_run_is_a_line_of_its_validations(logged):
    one = logged("one", [(1_000_000, 2.0), (2_000_000, 1.5)])
    assert curves(gru=[one]) == {"gru": [(1.0, 2.0), (2.0, 1.5)]}


def test_seeds_are_one_line_as_far_as_all_have_come(logged):
    one = logged("one", [(1_000_000, 2.0), (2_000_000, 1.5), (3_000_000, 1.0)])
    two = logged("two", [(2_000_000, 3.0), (4_000_000, 2.5)])
    assert curves(gru=[one, two]) == {"gru, mean of 2 seeds": [(1.5, 2.5), (3.0, 2.0)]}


def test_without_a_validation_there_is_no_figure(logged):
    assert learning_section(SimpleNamespace(runs={"gru": [logged("one", [])]})) is None
