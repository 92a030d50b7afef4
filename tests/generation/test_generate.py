"""`Samples`: chunks as they are made, whole texts with their figures, seeds that count up."""

import warnings

import pytest

import lmcli
from lmcli.errors import UsageError
from lmcli.report.progress import Message


@pytest.fixture
def run(make_run, build, tmp_path):
    """A run of characters a to f in which a line is a document."""
    run = make_run(tmp_path / "run", "gru")
    run.record.corpus["options"]["documents"] = "line"
    run.save_weights(build("gru", run.record.vocabulary).tensors(), 1)
    return run


def test_the_iterator_gives_the_text_chunk_by_chunk(run):
    samples = lmcli.sample(run, "ab", length=40, seed=3)
    first = next(samples)
    assert len(first) == 1
    text = first + "".join(samples)
    assert len(text) == 40
    (whole,) = lmcli.sample(run, "ab", length=40, seed=3).texts()
    assert whole.text == text
    assert (whole.prompt, whole.tokens, whole.seed) == ("ab", 40, 3)


def test_several_texts_have_seeds_that_count_up_and_are_those_made_alone(run):
    texts = list(lmcli.sample(run, length=12, count=3, seed=5).texts())
    assert [text.seed for text in texts] == [5, 6, 7]
    for text in texts:
        assert "".join(lmcli.sample(run, length=12, seed=text.seed)) == text.text
    ends = [last for _, last in lmcli.sample(run, length=12, count=3, seed=5).chunks()]
    assert ends.count(True) == 3


def test_the_json_of_a_text_has_the_keys_of_the_command(run):
    (text,) = lmcli.sample(run, "a", length=5, seed=0).texts()
    values = text.to_json()
    assert list(values)[2:] == ["run", "prompt", "text", "tokens", "nats", "seconds", "seed"]
    assert values["command"] == "sample"
    assert values["run"] == str(run.path)


def test_a_symbol_that_the_model_has_never_seen_is_a_warning(run):
    events = []
    lmcli.sample(run, "aX", length=1, on_progress=events.append)
    assert events == [Message("the model has never seen 'X': read as unknown", "warning")]
    with pytest.warns(UserWarning, match="'X'"):
        lmcli.sample(run, "aX", length=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmcli.sample(run, "abc", length=1)


@pytest.mark.parametrize("values", [{"length": -1}, {"count": 0}])
def test_a_number_of_tokens_or_texts_out_of_range_is_a_usage_error(run, values):
    (name,) = values
    with pytest.raises(UsageError, match=f"--{name}"):
        lmcli.sample(run, **values)
