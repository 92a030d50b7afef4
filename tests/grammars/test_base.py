"""Laws of writing and reading a grammar's files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.errors import StorageError, TextError
from lmcli.grammars.base import (
    EXAMPLE_ITEM,
    Draws,
    Grammar,
    Item,
    Optimum,
    companions,
    entropy,
    read_about,
    read_items,
    write_grammar,
)


class Coin(Grammar):
    """Documents of one word, heads or tails."""

    name = "coin"

    def documents(self) -> Iterator[str]:
        yield from ("heads", "tails", "tails")

    def items(self) -> Iterator[Item]:
        yield Item("it was ", "heads", ("heads", "tails"), 0, "coin", " é\u2028.")

    def optimum(self) -> Optimum:
        return Optimum(math.log(2), 2, 6)

    def about(self) -> dict[str, Any]:
        return {"recipe": {"grammar": self.name}, "seed": 0}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "coin.txt"
    write_grammar(Coin(), path)
    return path


def test_three_files_are_written_and_nothing_else(text: Path) -> None:
    names = ["coin.about.json", "coin.items.jsonl", "coin.txt"]
    assert sorted(p.name for p in text.parent.iterdir()) == names


def test_the_text_has_one_document_a_line(text: Path) -> None:
    assert text.read_bytes() == b"heads\ntails\ntails\n"


def test_items_come_back_as_they_were(text: Path) -> None:
    assert read_items(companions(text)[0]) == list(Coin().items())


def test_about_counts_line_ends_as_tokens_and_characters(text: Path) -> None:
    about = read_about(companions(text)[1])
    counts = (about["documents"], about["tokens"], about["characters"], about["vocabulary"])
    assert counts == (3, 6, 18, 3)


def test_about_holds_the_checksum_of_the_text(text: Path) -> None:
    # printf 'heads\ntails\ntails\n' | sha256sum
    expected = "b14a02f9ddf88b1f9ccd91ef324499f1bb618c51068fdf1570b89a718123d3e3"
    assert read_about(companions(text)[1])["sha256"] == expected


@pytest.mark.parametrize("existing", [0, 1, 2])
def test_nothing_is_written_when_one_of_the_three_exists(tmp_path: Path, existing: int) -> None:
    text = tmp_path / "coin.txt"
    path = (text, *companions(text))[existing]
    path.write_text("mine")
    with pytest.raises(StorageError, match="exists") as caught:
        write_grammar(Coin(), text)
    assert caught.value.problem == f"'{path}' exists"
    assert caught.value.hint == "--force overwrites it"
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_a_text_that_another_process_writes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    class Slow(Coin):
        def items(self) -> Iterator[Item]:
            (tmp_path / "coin.txt").write_text("theirs")
            return super().items()

    with pytest.raises(StorageError, match="exists"):
        write_grammar(Slow(), tmp_path / "coin.txt")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["theirs"]


def test_what_a_killed_process_left_half_written_beside_it_goes(text: Path) -> None:
    others = text.with_name(".notes.txt.0123abcd.tmp")
    for name in (".coin.txt.0123abcd.tmp", ".coin.items.jsonl.0123abcd.tmp", others.name):
        text.with_name(name).touch()
    write_grammar(Coin(), text, force=True)
    assert [p for p in text.parent.iterdir() if p.name.startswith(".")] == [others]


def test_force_overwrites(text: Path) -> None:
    text.write_text("mine")
    write_grammar(Coin(), text, force=True)
    assert text.read_text().startswith("heads")


def test_a_failed_write_leaves_no_temporary_file(text: Path) -> None:
    about = companions(text)[1]
    about.unlink()
    about.mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_grammar(Coin(), text, force=True)
    assert [p.name for p in text.parent.iterdir() if p.name.startswith(".")] == []


ITEM = json.loads(EXAMPLE_ITEM)


def with_line(text: Path, line: str) -> Path:
    """The items of a text with one more line, the second."""
    items = companions(text)[0]
    items.write_text(items.read_text() + line + "\n")
    return items


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '"text"'])
def test_a_line_that_is_no_item_is_a_text_error(text: Path, damage: str) -> None:
    items = with_line(text, damage)
    with pytest.raises(TextError) as caught:
        read_items(items)
    assert caught.value.problem == f"'{items}' line 2: no JSON object"
    assert EXAMPLE_ITEM in caught.value.hint


@pytest.mark.parametrize("name", ["text", "answer", "candidates", "gap", "kind"])
def test_an_item_without_a_field_is_told_which(text: Path, name: str) -> None:
    items = with_line(text, json.dumps({k: v for k, v in ITEM.items() if k != name}))
    with pytest.raises(TextError, match=f"line 2: the field '{name}' is missing") as caught:
        read_items(items)
    assert caught.value.hint == f"an item is a line such as {EXAMPLE_ITEM}"


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("text", 1, "'text' is not a text in quotes"),
        ("text", "she speaks fluent", "'text' ends in 't', not in a blank, so that the answer"),
        ("answer", ["French"], "'answer' is not a text in quotes"),
        ("answer", "Greek", "'candidates' lacks the answer 'Greek'"),
        ("candidates", "French,German", "'candidates' is not a list of words"),
        ("candidates", ["French", 1], "'candidates' is not a list of words"),
        ("candidates", ["French", ""], "'candidates' is not a list of words"),
        ("candidates", ["French", "Greek", "Greek"], "'candidates' has 'Greek' twice"),
        ("gap", "3", "'gap' is not a whole number from 0 on"),
        ("gap", 3.0, "'gap' is not a whole number from 0 on"),
        ("gap", -1, "'gap' is not a whole number from 0 on"),
        ("gap", True, "'gap' is not a whole number from 0 on"),
        ("kind", None, "'kind' is not a text in quotes"),
        ("rest", 3, "'rest' is not a text in quotes"),
    ],
)
def test_a_wrong_field_is_named(text: Path, name: str, value: object, wrong: str) -> None:
    items = with_line(text, json.dumps(ITEM | {name: value}))
    with pytest.raises(TextError) as caught:
        read_items(items)
    assert f"line 2: {wrong}" in caught.value.problem
    assert EXAMPLE_ITEM in caught.value.hint


def test_the_item_that_a_hint_shows_is_right_and_its_rest_may_be_left_out(text: Path) -> None:
    item = read_items(with_line(text, EXAMPLE_ITEM))[1]
    assert item.document == "Anna grew up in France. Now she speaks fluent French."
    assert item.gap == 4  # now, she, speaks, fluent
    short = read_items(with_line(text, json.dumps({k: v for k, v in ITEM.items() if k != "rest"})))
    assert short[2] == dataclasses.replace(item, rest="")


@pytest.mark.parametrize(
    ("left", "answer"), [("010+011=1", "0"), ("我会说", "中文"), ("he said: (", "yes")]
)
def test_an_answer_may_follow_without_a_blank_where_no_word_goes_on(
    text: Path, left: str, answer: str
) -> None:
    more = {"text": left, "answer": answer, "candidates": [answer, "x"]}
    assert read_items(with_line(text, json.dumps(ITEM | more)))[1].document == left + answer + "."


def test_items_that_are_missing_or_no_text_are_a_text_error(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="no such file"):
        read_items(tmp_path / "none.items.jsonl")
    binary = tmp_path / "binary.items.jsonl"
    binary.write_bytes(b"ab\xff")
    with pytest.raises(TextError, match="not UTF-8 at byte 2"):
        read_items(binary)


@given(st.binary(max_size=60))
def test_no_bytes_make_reading_items_crash(tmp_path_factory: Any, damage: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.items.jsonl"
    path.write_bytes(damage)
    with pytest.raises(TextError):
        read_items(path)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"format": "1"}', '{"format": 99}'])
def test_a_damaged_or_newer_about_file_is_a_text_error(text: Path, damage: str) -> None:
    about = companions(text)[1]
    about.write_text(damage)
    with pytest.raises(TextError):
        read_about(about)


def test_the_optimum_derives_its_rates_from_sums() -> None:
    optimum = Coin().optimum()
    assert optimum.perplexity == pytest.approx(math.sqrt(2))
    assert optimum.bits_per_char == pytest.approx(1 / 6)
    assert json.loads(json.dumps(optimum.as_dict()))["tokens_per_document"] == 2


def test_draws_are_the_same_in_every_version() -> None:
    draws = Draws("seed")
    assert [draws.index(1000) for _ in range(5)] == [138, 236, 865, 286, 43]


def test_weighted_draws_follow_their_weights() -> None:
    draws, counts = Draws("weights"), [0, 0, 0]
    for _ in range(10_000):
        counts[draws.weighted([1, 1, 4])] += 1
    assert counts[1] == 0
    assert counts[0] == pytest.approx(2500, abs=4 * math.sqrt(10_000 * 3 / 16))


@given(st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_entropy_lies_between_zero_and_the_uniform(weights: list[int]) -> None:
    assert -1e-12 <= entropy(weights) <= math.log(len(weights)) + 1e-12
