"""The order of an n-gram: the one with the least validation loss, of those tried upwards."""

from lmcli.training import order_search as module
from lmcli.training.checkpoint import count_and_validate
from lmcli.training.order_search import ORDERS, order_search


def losses(job, orders):
    found = {}
    for order in orders:
        model = job.model_class(job.vocabulary, type(job.settings)(order=order))
        parts = job.dataset.tokenized.train, job.dataset.valid.stream
        found[order] = count_and_validate(model, *parts)
    return found


def test_the_order_with_the_least_loss_is_taken_and_none_after_the_first_that_is_worse(job_of):
    job = job_of("ngram")
    expected = losses(job, ORDERS)
    found, race = order_search(job)
    assert [entry["loss"] for entry in race] == [expected[entry["order"]] for entry in race]
    tried = [entry["order"] for entry in race]
    assert tried == list(ORDERS)[: len(tried)]
    best = min(tried, key=expected.get)
    assert found.settings.order == best
    assert tried[-1] == 8 or (expected[tried[-1]] >= expected[tried[-2]] and best == tried[-2])


def test_of_a_large_text_the_usual_order_is_taken(job_of, monkeypatch):
    monkeypatch.setattr(module, "MOST_TOKENS", 10)
    job = job_of("ngram")
    assert order_search(job) == (job, ())
