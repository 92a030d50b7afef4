"""Which passages are shown, and between which models."""

import pytest

from lmcli.evaluation.activations import TokenSpan
from lmcli.pages.passages import LENGTH, contrasted, telling_passages
from lmcli.pages.recall import Example


def spans(gain, words=80):
    return [TokenSpan(" word", 1.0, 1.0 + gain) for _ in range(words)]


def test_the_passages_with_the_largest_gains_come_in_the_order_of_the_text():
    documents = [spans(0.1, 20), spans(0.9, 20), spans(0.2, 20), spans(0.8, 20), spans(0.7, 20)]
    chosen = telling_passages(documents)
    assert [passage[0].versus for passage in chosen] == pytest.approx([1.9, 1.8, 1.7])


def test_where_the_first_model_gains_nothing_no_passage_is_shown():
    assert telling_passages([spans(-0.5, 20), spans(0.0, 20)]) == []


def test_a_passage_is_cut_between_words_and_is_of_one_document():
    found = telling_passages([spans(0.5, 200), [TokenSpan("x", 1.0, 2.0)]])
    lengths = [sum(len(span.text) for span in passage) for passage in found]
    assert all(LENGTH <= length <= LENGTH + 10 for length in lengths[:-1])
    assert all(passage[0].text == " word" for passage in found)


def test_the_best_trained_model_stands_against_the_worst(subject):
    best, worst = contrasted(subject)
    assert {best, worst} <= {"rnn", "gru", "lstm"}
    assert best != worst


def test_the_example_is_the_first_text_of_its_gap_whatever_the_models_say(subject):
    example = Example.of(subject.items)
    assert example.gap == 100
    lines = subject.items.read_text().splitlines()
    first = next(line for line in lines if '"gap":100,"kind":"country"' in line)
    assert f'"answer":"{example.answer}"' in first
    assert example.shown.endswith("___")
    assert len(example.shown) < len(example.text)
    assert Example.of(subject.items, longest_gap=10).gap == 10
