"""What a training says when it is done."""

import pytest

from lmcli.errors import LostWorkerError, TrainingError
from lmcli.report.result import Facts, Passage
from lmcli.training.launch import _failure, train_result


def test_the_memory_that_the_text_rewards_stands_below_the_figures():
    ceiling = {"sentence": "on this text a memory beyond 256 words has little to do"}
    blocks = train_result({"run": "runs/a", "ceiling": ceiling}).blocks
    assert [type(block) for block in blocks] == [Facts, Passage]
    assert blocks[1].text == ceiling["sentence"]
    for values in ({"run": "runs/a", "ceiling": None}, {"run": "runs/made-by-0.1.0"}):
        assert len(train_result(values).blocks) == 1


CLOSED = LostWorkerError("lost contact with another worker: connection closed by peer", "go on")


@pytest.mark.parametrize(
    ("errors", "codes", "said"),
    [
        ({1: CLOSED, 0: TrainingError("the loss became NaN", "")}, {0: 0, 1: 0}, "became NaN"),
        ({1: CLOSED}, {0: -9, 1: 0}, "worker 1 of 2 was ended by SIGKILL"),
        ({1: CLOSED}, {1: 0}, "lost contact with another worker: connection closed by peer"),
        ({}, {}, "lost contact with each other"),
    ],
)
def test_the_error_of_several_workers_is_the_one_that_explains_the_others(
    errors, codes, said, tmp_path
):
    assert said in _failure(errors, codes, 2, tmp_path).problem
