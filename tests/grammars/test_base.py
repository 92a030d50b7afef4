"""Laws of writing and reading a grammar's files."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"text": "a"}',
        '{"text":"a ","answer":"b","candidates":["b"],"gap":"3","kind":"x","rest":""}',
        '{"text":"a ","answer":"b","candidates":["c"],"gap":3,"kind":"x","rest":""}',
        '{"text":"a ","answer":"b","candidates":["b",1],"gap":3,"kind":"x","rest":""}',
    ],
)
def test_a_damaged_item_is_a_text_error_with_its_line(text: Path, damage: str) -> None:
    items = companions(text)[0]
    items.write_text(items.read_text() + damage + "\n")
    with pytest.raises(TextError, match=r"line 2 is not an item") as caught:
        read_items(items)
    assert "lmcli make" in caught.value.hint


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
