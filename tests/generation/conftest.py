"""Runs with weights, for what is exported."""

import pytest


@pytest.fixture
def trained(make_run, build, tmp_path):
    """``trained("gru")``: a run with weights of its own."""

    def make(name):
        run = make_run(tmp_path / name, name)
        run.save_weights(build(name, run.record.vocabulary).tensors(), 7)
        return run

    return make
