"""Laws of the addition grammar: its sums, its carries, its entropy, and its twins."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcli import registry
from lmcli.errors import UsageError
from lmcli.evaluation.forced_choice import item_accuracy
from lmcli.grammars.addition import Addition, AdditionSettings
from lmcli.grammars.base import Draws, Item, read_about, read_items, write_grammar
from lmcli.models.window import Window, WindowSettings
from lmcli.settings import update
from lmcli.tokenizers.char import CharTokenizer

ORDERS = ("least", "most")


def addition(**changes: object) -> Addition:
    return Addition(update(AdditionSettings(size="small"), changes))


@cache
def documents(order: str) -> list[str]:
    return list(addition(order=order).documents())


@cache
def items(order: str) -> list[Item]:
    return list(addition(order=order).items())


def naive(document: str, order: str) -> tuple[str, int]:
    """The sum by the school's method, and the most digits that one carry has changed."""
    a, b = document[: document.index("=")].split("+")
    if order == "most":
        a, b = a[::-1], b[::-1]
    digits, carry, runs, longest = "", 0, 0, 0
    for one, other in zip(a, b, strict=True):
        total = int(one) + int(other) + carry
        runs = runs + 1 if carry else 0  # the carry that came here has changed so many digits
        longest = max(longest, runs)
        digits += str(total % 2)
        carry = total // 2
        if one == other == "1":
            runs = 0  # what goes on from here is a carry of its own
    return (digits if order == "least" else digits[::-1]), longest


def every_pair(places: int) -> list[tuple[int, int]]:
    return list(itertools.product(range(2**places), repeat=2))


def test_addition_is_found_by_its_file() -> None:
    assert registry.GRAMMARS.load("addition") is Addition


# The text


def test_the_example_of_the_docstring_is_written_so() -> None:
    assert addition(digits=3, order="most").document(2, 3) == "010+011=101"
    assert addition(digits=3, order="least").document(2, 3) == "010+110=101"


@pytest.mark.parametrize("order", ORDERS)
def test_every_sum_of_the_text_is_right(order: str) -> None:
    assert len(documents(order)) == 18_000
    for document in documents(order):
        assert document.partition("=")[2] == naive(document, order)[0]
        assert len(document) == 3 * 12 + 2


@pytest.mark.parametrize("order", ORDERS)
def test_longest_carries_of_all_lengths_are_equally_frequent(order: str) -> None:
    counts = Counter(naive(document, order)[1] for document in documents(order))
    assert sorted(counts) == list(range(12))
    squares = sum((n - 1500) ** 2 / 1500 for n in counts.values())
    assert squares < 11 + 5 * math.sqrt(22)


@given(st.integers(1, 12), st.data())
def test_operands_have_the_longest_carry_that_was_asked_for(
    places: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, places))
    grammar = addition(digits=max(3, places + 1))
    pair = grammar.operands(length, Draws(str(data.draw(st.integers(0, 99)))))
    for order in ORDERS:
        made = addition(digits=max(3, places + 1), order=order).document(*pair)
        assert naive(made, order)[1] == length


def test_all_pairs_with_one_longest_carry_are_equally_likely() -> None:
    grammar, draws = addition(digits=4), Draws("fair")
    for length in range(4):
        counts = Counter(grammar.operands(length, draws) for _ in range(8000))
        assert len(counts) == grammar.pairs(length)
        expected = 8000 / len(counts)
        squares = sum((n - expected) ** 2 / expected for n in counts.values())
        assert squares < len(counts) + 5 * math.sqrt(2 * len(counts))


@pytest.mark.parametrize("digits", [3, 5, 7])
def test_pairs_are_counted_as_by_writing_them_all_down(digits: int) -> None:
    grammar = addition(digits=digits)
    found = Counter(naive(grammar.document(*p), "least")[1] for p in every_pair(digits - 1))
    assert found == {length: grammar.pairs(length) for length in range(digits)}


def test_the_same_settings_make_the_same_text_and_another_seed_another() -> None:
    again = list(itertools.islice(addition(order="least").documents(), 50))
    assert again == documents("least")[:50]
    assert next(addition(seed=1).documents()) != documents("least")[0]
    assert documents("least")[0] == "011101001110+101110110110=110100000111"


def test_carry_length_bounds_the_carries_of_the_text_and_not_those_of_the_items() -> None:
    grammar = addition(carry_length=3)
    some = itertools.islice(grammar.documents(), 500)
    assert max(naive(document, "least")[1] for document in some) == 3
    assert {i.gap for i in grammar.items()} == {0, 1, 2, 4, 8, 11}


# The entropy


@pytest.mark.parametrize(("order", "carry_length"), [("least", None), ("most", None), ("least", 1)])
def test_over_all_documents_oracle_and_closed_form_agree_exactly(
    order: str, carry_length: int | None
) -> None:
    grammar = addition(digits=5, order=order, carry_length=carry_length)
    total = nats = 0.0
    for pair in every_pair(4):
        document = grammar.document(*pair)
        if naive(document, order)[1] <= grammar.longest:
            log = sum(grammar.token_log_probabilities(document))
            total += math.exp(log)
            nats -= math.exp(log) * log
    assert total == pytest.approx(1)
    assert nats == pytest.approx(grammar.optimum().nats_per_document)


def test_the_optimum_of_numbers_of_three_digits_is_that_of_a_hand_count() -> None:
    """Two places: 9 pairs carry nothing, 5 carry one digit far, 2 carry two digits far."""
    best = addition(digits=3).optimum()
    expected = math.log(3) + (math.log(9) + math.log(5) + math.log(2)) / 3
    assert best.nats_per_document == pytest.approx(expected)
    assert best.characters_per_document == best.tokens_per_document == 12


@pytest.mark.parametrize("order", ORDERS)
def test_the_oracle_agrees_with_the_closed_form_on_the_text(order: str) -> None:
    grammar, count = addition(order=order), 150
    nats = [-sum(grammar.token_log_probabilities(d)) for d in documents(order)[:count]]
    mean = sum(nats) / count
    error = math.sqrt(sum((n - mean) ** 2 for n in nats) / (count - 1) / count)
    assert mean == pytest.approx(grammar.optimum().nats_per_document, abs=4 * error)


@pytest.mark.parametrize("order", ORDERS)
def test_the_oracle_is_certain_of_signs_leading_zeros_and_the_sum(order: str) -> None:
    for document in documents(order)[:20]:
        nats = addition(order=order).token_log_probabilities(document)
        zero = 11 if order == "least" else 0
        certain = [zero, 12, 13 + zero, *range(25, 39)]
        assert len(nats) == len(document) + 1 == 39
        assert [nats[place] for place in certain] == [0.0] * len(certain)
        assert all(n < 0 for place, n in enumerate(nats[:11]) if place not in certain)


@pytest.mark.parametrize(
    "document",
    ["", "010+011=100", "010+011=1010", "01+01=10", "110+001=111", "0a0+011=101", "001+001=010"],
)
def test_the_oracle_refuses_what_the_grammar_cannot_make(document: str) -> None:
    """The last one has a carry that is too long."""
    with pytest.raises(ValueError, match="cannot make"):
        addition(digits=3, order="most", carry_length=0).token_log_probabilities(document)


# The items


@pytest.mark.parametrize("order", ORDERS)
def test_items_are_right_sums_that_the_text_has_not(order: str) -> None:
    asked = [item.document for item in items(order)]
    assert all(d.partition("=")[2] == naive(d, order)[0] for d in asked)
    assert len(set(asked)) == len(asked)
    assert set(asked).isdisjoint(documents(order))


@pytest.mark.parametrize("order", ORDERS)
def test_the_gap_is_the_length_of_the_longest_carry_of_a_twin_that_carries(order: str) -> None:
    for one, other in zip(items(order)[::2], items(order)[1::2], strict=True):
        assert one.candidates == other.candidates == (one.answer, other.answer)
        assert one.gap == other.gap == naive(one.document, order)[1]
        assert naive(other.document, order)[1] <= one.gap


@pytest.mark.parametrize("order", ORDERS)
def test_twins_differ_in_just_the_digits_that_the_carry_changes(order: str) -> None:
    for item in items(order):
        places = [i for i, (x, y) in enumerate(zip(*item.candidates, strict=True)) if x != y]
        assert places == list(range(places[0], places[0] + max(1, item.gap)))


def test_there_are_as_many_twins_for_every_length_that_has_unseen_sums() -> None:
    counts = Counter(item.gap for item in items("least"))
    assert {counts[length] for length in (0, 1, 2, 4, 8)} == {300}


def test_where_the_text_has_every_sum_making_items_says_so() -> None:
    with pytest.raises(UsageError, match="has every sum") as caught:
        list(addition(digits=4).items())
    assert "--digits 8 or more" in caught.value.hint


def test_a_window_that_ends_before_the_operands_is_right_in_just_one_of_two_twins() -> None:
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["01+=\n"], CharTokenizer.Settings())
    window = Window(tokenizer.size, WindowSettings(window=8, hidden=16, embedding=8)).eval()
    for gap in (0, 1, 4):
        some = [item for item in items("least") if item.gap == gap][:60]
        found = item_accuracy(window, tokenizer, some)
        assert found.right == 30
        assert found.chance == 0.5


def test_the_three_files_are_written_as_for_every_grammar(tmp_path: Path) -> None:
    text = tmp_path / "sums.txt"
    write_grammar(addition(), text)
    assert text.read_text().splitlines() == documents("least")
    assert text.stat().st_size < 1_000_000
    assert read_items(tmp_path / "sums.items.jsonl") == items("least")
    about = read_about(tmp_path / "sums.about.json")
    assert about["recipe"]["digits"] == 12
    assert about["chance"] == {"carry": 0.5}
    assert about["optimum"]["nats_per_document"] == addition().optimum().nats_per_document
