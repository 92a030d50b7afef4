"""The way of a sum from outside: make, train, cloze."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmcli.cli import app


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="lmcli")
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An n-gram model that has read sums: it sees five characters back and no operand."""
    folder = tmp_path_factory.mktemp("sums")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        command("make", "addition", "-o", folder / "sums.txt", "--size", "small", "-q")
        command("train", folder / "sums.txt", "--arch", "ngram", "-o", folder / "run", "-q")
    return folder / "run"


def test_cloze_asks_by_length_of_the_carry_and_finds_the_items_by_itself(run: Path) -> None:
    rows: list[dict[str, Any]] = json.loads(command("cloze", run, "--gaps", "0,4", "--json"))[
        "rows"
    ]
    assert [(r["kind"], r["gap"], r["count"], r["chance"]) for r in rows] == [
        ("carry", 0, 200, 0.5),
        ("carry", 4, 200, 0.5),
    ]


def test_a_model_that_sees_no_operand_is_right_in_just_one_of_two_twins(run: Path) -> None:
    rows = json.loads(command("cloze", run, "--gaps", "0,4", "--json"))["rows"]
    assert [r["accuracy"] for r in rows] == [0.5, 0.5]


def test_the_table_says_what_a_gap_is_counted_in(run: Path) -> None:
    shown = " ".join(command("cloze", run, "--gaps", "4").split())
    assert "does the carry arrive? by digits that it runs" in shown
    assert "4 model digits" in shown  # the heading of the column stands in two lines
    assert "control" not in shown
