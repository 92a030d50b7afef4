"""What a training says when it is done."""

from lmcli.report.result import Facts, Passage
from lmcli.training.launch import train_result


def test_the_memory_that_the_text_rewards_stands_below_the_figures():
    ceiling = {"sentence": "on this text a memory beyond 256 words has little to do"}
    blocks = train_result({"run": "runs/a", "ceiling": ceiling}).blocks
    assert [type(block) for block in blocks] == [Facts, Passage]
    assert blocks[1].text == ceiling["sentence"]
    for values in ({"run": "runs/a", "ceiling": None}, {"run": "runs/made-by-0.1.0"}):
        assert len(train_result(values).blocks) == 1
