"""What the terminal shows is what the JSON holds, rounded once, in 80 columns and in ASCII."""

import io
import json
import random
from dataclasses import fields

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from lmcli.cli import app
from lmcli.evaluation.differences import Difference
from lmcli.report.result import (
    BITS_PER_CHAR,
    COUNT,
    NATS,
    PARAMETERS,
    PERPLEXITY,
    PROBABILITY,
    WHOLE_PERCENT,
    Column,
    Facts,
    Passage,
    Passages,
    Result,
    Table,
    text,
)
from lmcli.report.terminal import Terminal, print_result

FACTS = Facts([Column("a", PERPLEXITY), Column("b", COUNT, "how many")], {"a": 1.23456, "b": 12345})
WIDE = Table(
    "a title with a dash – and ±",
    [Column("name", text("model")), Column("x.bits_per_char", BITS_PER_CHAR)],
    [
        {"name": "n" * 120, "x": {"bits_per_char": 1.98765, "standard_error": 0.01234}},
        {"name": "犬", "x": {"bits_per_char": None}},
    ],
    note="a note that is long enough to be broken into several lines " * 3,
)
PASSAGES = Passages("coloured", [("plain ", 0.0), ("odd – ", 0.7), ("[bold]", 1.0)], "a note ±")
RESULT = Result("eval", {}, [FACTS, WIDE, PASSAGES, Passage("the end …")])


def shown(result=RESULT, encoding="utf-8", columns=80):
    """What a stream of this encoding gets."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    print_result(result, Terminal(file=stream, width=columns, highlight=False))
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("columns", [40, 80, 132])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_console(encoding, columns):
    assert max(map(len, shown(encoding=encoding, columns=columns).splitlines())) <= columns


def test_numbers_are_shown_by_their_metric():
    page = shown()
    assert PERPLEXITY.show(1.23456) in page
    assert "12,345" in page
    assert BITS_PER_CHAR.show(1.98765, 0.01234) in page


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_gets_only_what_it_can_show(encoding):
    page = shown(encoding=encoding)
    assert "犬" not in page
    assert "1.987" in page or "1.9877" in page


def test_ascii_has_a_sign_for_the_standard_error():
    expected = BITS_PER_CHAR.show(1.98765, 0.01234).replace("±", "~")
    assert expected in shown(encoding="ascii", columns=200)


def test_no_number_is_broken_or_cut_where_there_is_room():
    gaps = (0, 3, 10, 100)
    columns = [Column("name", text("model")), Column("much", PARAMETERS)]
    columns += [Column(f"gap{g}", BITS_PER_CHAR, f"{g} words") for g in gaps]
    row = {"name": "a model with a long name " * 3, "much": 12_345_678}
    row |= {f"gap{g}": 1.5 + g for g in gaps}
    page = shown(Result("x", {}, [Table("", columns, [row])]), columns=80)
    assert all(column.cell(row) in page for column in columns[1:])


def test_a_table_without_room_breaks_numbers_but_loses_no_digit():
    columns = [Column(f"c{i}", PARAMETERS, f"column {i}") for i in range(9)]
    row = {f"c{i}": 111_111 * (i + 1) for i in range(9)}
    page = shown(Result("x", {}, [Table("", columns, [row])]), columns=40)
    assert sum(map(page.count, "0123456789")) >= 9 * 6 + 9


def test_columns_that_need_room_are_left_out_from_the_last_one_on_until_the_others_have_it():
    columns = [Column("a", text("a")), Column("b", text("b"), needs_room=True)]
    columns += [Column("c", text("c"), needs_room=True), Column("d", text("d"))]
    row = {name: name.upper() * 18 for name in "abcd"}
    seen = {
        width: [name for name in "abcd" if row[name] in shown(
            Result("x", {}, [Table("", columns, [row])]), columns=width)]
        for width in (100, 79, 59, 30)
    }  # fmt: skip
    assert seen[100] == ["a", "b", "c", "d"]
    assert seen[79] == ["a", "b", "d"]
    assert seen[59] == ["a", "d"]
    assert "b" not in seen[30]


def test_nothing_in_a_text_is_taken_for_markup():
    assert "[bold]" in shown()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_control_character_of_a_text_reaches_the_terminal(encoding):
    control = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    rows = [{"line": f"cleared\x1b[2J{control}"}]
    blocks = [Table(control, [Column("line", text("line"))], rows, control)]
    blocks += [Passages(control, [(f"tab\there{control}\n", 0.0)]), Passage(control)]
    page = shown(Result("eval", {}, blocks), encoding=encoding)
    assert not set(page) & set(control)
    assert ("␛" if encoding == "utf-8" else "?") + "[2J" in page
    assert "here" in page


@pytest.mark.parametrize("name", ["a", "bits of runs/犬", "犬と猫の間", "e\u0301"])
def test_values_stand_under_each_other_whatever_their_names(name):
    facts = Facts([Column("x", COUNT, "ordinary"), Column("y", COUNT, name)], {"x": 7, "y": 8})
    first, second = shown(Result("x", {}, [facts])).splitlines()
    assert cell_len(first.partition("7")[0]) == cell_len(second.partition("8")[0])


def test_a_closed_pipe_is_left_to_the_caller():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_result(RESULT, Terminal(file=Closed(), width=80))


# ------------------------------------------------------------------ terminal = JSON


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """``both("eval", ...)``: what the terminal shows and what the JSON holds."""
    folder = tmp_path_factory.mktemp("report")
    draw = random.Random(0)
    words = ["the", "cat", "dog", "sees", "old", "tree", "river"]
    lines = (" ".join(draw.choices(words, k=6)) + " .\n" for _ in range(300))
    (folder / "my.txt").write_text("".join(lines), encoding="utf-8")

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("COLUMNS", "80")
            patch.setenv("LMCLI_CACHE", str(folder / "cache"))
            done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80 or "--json" in arguments
        return done.stdout

    run("train", "my.txt", "--steps", "20", "--set", "hidden=8", "-q", "-o", "char")
    run("train", "my.txt", "--tokenizer", "word", "--arch", "ngram", "-q", "-o", "word")
    return lambda *arguments: (run(*arguments), json.loads(run(*arguments, "--json")))


def facts(page):
    """Name and value of every line of facts."""
    pairs = (line.rstrip().rpartition("  ") for line in page.splitlines())
    return {name.strip(): value for name, _, value in pairs}


def test_train_shows_what_its_json_holds(both):
    page, values = both(
        "train", "my.txt", "--arch", "ngram", "--seed", "1", "-q", "-o", "again", "--force"
    )
    valid, test, found = values["valid"], values["test"], facts(page)
    assert found["parameters"] == PARAMETERS.show(values["parameters"])
    assert found["tokens seen"] == COUNT.show(values["tokens_seen"])
    assert found["validation nats/token"] == NATS.show(valid["nats_per_token"])
    assert found["test perplexity"] == PERPLEXITY.show(test["perplexity"])
    for name, part in (("validation", valid), ("test", test)):
        shown_bits = BITS_PER_CHAR.show(part["bits_per_char"], part["standard_error"])
        assert found[f"{name} bits/char"] == shown_bits


@pytest.mark.parametrize("run", ["char", "word"])
def test_eval_shows_what_its_json_holds(both, run):
    page, values = both("eval", run, "my.txt")
    found = facts(page)
    assert found["tokens"] == COUNT.show(values["tokens"])
    assert found["characters"] == COUNT.show(values["chars"])
    assert found["perplexity"] == PERPLEXITY.show(values["perplexity"])
    assert found["without unknown"] == PERPLEXITY.show(values["perplexity_without_unknown"])
    assert found["unknown tokens"] == COUNT.show(values["unknown_tokens"])
    assert found["word perplexity"] == PERPLEXITY.show(values["word_perplexity"])
    assert found["bits/byte"] == f"{values['bits_per_byte']:.4f}"
    shown_bits = BITS_PER_CHAR.show(values["bits_per_char"], values["standard_error"])
    assert found["bits/char"] == shown_bits


def test_lines_of_eval_show_what_their_json_holds(both):
    page, values = both("eval", "char", "my.txt", "--split", "test", "--level", "line")
    rows = [line.split() for line in page.splitlines() if line.rstrip().endswith(" .")]
    assert len(rows) == len(values["items"])
    for row, item in zip(rows, values["items"], strict=True):
        assert row[0] == f"{item['nats']:,.2f}"
        assert row[1] == f"{item['bits_per_char']:.3f}"
        assert " ".join(row[3:]) == item["text"]


def test_compare_shows_what_its_json_holds(both):
    page, values = both(
        "compare", "my.txt", "--run", "char", "--run", "word", "-o", "out", "--force"
    )
    lines = page.splitlines()
    for row in values["rows"]:
        line = next(line for line in lines if line.strip().startswith(row["name"] + " "))
        assert f" {PARAMETERS.show(row['parameters'])} " in line
        assert f" {PERPLEXITY.show(row['test']['perplexity'])} " in line
        bits = BITS_PER_CHAR.show(row["test"]["bits_per_char"], row["test"]["standard_error"])
        assert f" {bits} " in line
    (difference,) = values["differences"]
    squeezed = " ".join(page.split())  # at 80 columns the column of words takes two lines
    shown = Difference(**{f.name: difference[f.name] for f in fields(Difference)}).in_words()
    assert shown in squeezed


def test_cloze_shows_what_its_json_holds(both):
    more = ("--text", "the old ___", "--candidates", "cat,dog")
    page, values = both("cloze", "char", "word", *more)
    for row in values["rows"]:
        for c in row["candidates"]:
            assert f"{c['text']} {PROBABILITY.show(c['probability'])}" in page


def test_cloze_with_another_cue_shows_what_its_json_holds(both):
    more = ("--text", "the old ___", "--candidates", "cat,dog", "--swap", "old=the")
    page, values = both("cloze", "char", "word", *more)
    squeezed = " ".join(page.split())
    for row in values["rows"]:
        for c in row["candidates"]:
            pair = [PROBABILITY.show(c[key]) for key in ("probability", "probability_swapped")]
            assert f"{c['text']} {' '.join(pair)}" in squeezed
        assert row["sentence"] in squeezed


def test_cloze_over_items_shows_what_its_json_holds(both, tmp_path):
    made = tmp_path / "fr.txt"
    both("make", "france", "--size", "small", "-o", str(made), "--force")
    both("train", str(made), "--arch", "ngram", "--tokenizer", "word", "-q", "-o", "fr", "--force")
    page, values = both("cloze", "fr", "--gaps", "3,10")
    line = next(line for line in page.splitlines() if line.strip().startswith("ngram"))
    for row in values["rows"]:
        assert WHOLE_PERCENT.show(row["accuracy"]) in line


@pytest.mark.parametrize("columns", range(1, 20))
def test_a_table_is_never_blank(columns):
    narrow = shown(columns=columns)
    assert narrow == shown(columns=20)
    assert "犬" in narrow
