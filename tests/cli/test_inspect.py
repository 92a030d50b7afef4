"""``lmcli inspect`` from outside: what it prints, its JSON, and what it says to wrong requests."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

from lmcli.cli import app

PROJECT = Path(__file__).parent.parent.parent
WORDS = ["the", "a", "cat", "dog", "sees", "hears", "(", "old", "tree", ")"]
SENTENCE = "the ( old cat ) sees a tree\n"
TINY = ("--steps", "3", "--set", "hidden=6", "--set", "embedding=4")
RUNS = {
    "lstm": ("--arch", "lstm"),
    "gru": ("--arch", "gru"),
    "rnn": ("--arch", "rnn"),
    "deep": ("--arch", "lstm", "--set", "layers=2"),
    "word": ("--arch", "gru", "--tokenizer", "word"),
    "byte": ("--arch", "rnn", "--tokenizer", "byte"),
    "bpe": ("--arch", "lstm", "--tokenizer", "bpe", "--set", "vocabulary=270"),
    "ngram": ("--arch", "ngram"),
}


def command(*arguments: object, **more: Any) -> Result:
    done = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="lmcli", **more)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and hardly trained runs of every kind."""
    folder = tmp_path_factory.mktemp("inspected")
    draw = random.Random(0)
    sentence = (" ".join(draw.choices(WORDS, k=6)) for _ in range(300))
    (folder / "text.txt").write_text("".join(s + "\n" for s in sentence), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        for name, options in RUNS.items():
            tiny = (
                ()
                if name == "ngram"
                else ("--steps", "3", "--set", "hidden=6", "--set", "embedding=4")
            )
            done = command("train", folder / "text.txt", *options, *tiny, "-o", folder / name, "-q")
            assert done.exit_code == 0, done.stderr
    return folder


def json_of(*arguments: object) -> dict[str, Any]:
    done = command("inspect", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failed(*arguments: object) -> tuple[int, str, str]:
    done = command("inspect", *arguments)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert done.stdout == ""
    return done.exit_code, *(line.partition(": ")[2] for line in lines)


# What is shown


@pytest.mark.parametrize(
    ("run", "gates"),
    [
        ("lstm", ["input", "forget", "candidate", "output", "cell", "hidden"]),
        ("gru", ["reset", "keep", "candidate", "hidden"]),
        ("rnn", ["hidden"]),
    ],
)
def test_every_architecture_shows_its_own_gates(runs: Path, run: str, gates: list[str]) -> None:
    found = json_of(runs / run, SENTENCE)
    assert sorted(found["gates"]) == sorted(gates)
    assert [item["text"] for item in found["items"]] == list(SENTENCE)
    assert all(set(item) == {"text", "nats", *gates} for item in found["items"])
    assert found["tokens"] == len(SENTENCE)
    assert found["nats"] == pytest.approx(sum(item["nats"] for item in found["items"]))
    assert (found["schema"], found["command"], found["arch"]) == (1, "inspect", run)


@pytest.mark.parametrize("run", ["word", "byte", "bpe", "deep"])
def test_every_tokenizer_and_layer_is_shown(runs: Path, run: str) -> None:
    found = json_of(runs / run, SENTENCE)
    assert "".join(item["text"] for item in found["items"]) == SENTENCE
    hidden = {"1.hidden", "2.hidden"} if run == "deep" else {"hidden"}
    assert hidden <= set(found["gates"])


def test_losses_are_those_of_eval(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "sentence.txt").write_text(SENTENCE)
    done = command("eval", runs / "lstm", tmp_path / "sentence.txt", "--level", "token", "--json")
    expected = [item["nats"] for item in json.loads(done.stdout)["items"]]
    found = json_of(runs / "lstm", SENTENCE)
    assert [item["nats"] for item in found["items"]] == pytest.approx(expected, abs=1e-5)


def test_the_gates_of_a_saved_run_are_those_of_a_cell_written_out(runs: Path) -> None:
    """From the weights on disk, in NumPy, unit by unit."""
    w = {k: v.astype(float) for k, v in load_file(runs / "gru" / "weights.safetensors").items()}
    characters = json.loads((runs / "gru" / "tokenizer.json").read_text())["characters"]
    layer = {k.removeprefix("layers.0."): v for k, v in w.items() if k.startswith("layers.0.")}
    shown = json_of(runs / "gru", SENTENCE, "--units", 6)["items"]
    x = w["embed.weight"][len(characters) + 1]
    h = np.tanh((layer["input_weight"] @ x + layer["bias"])[12:])  # behind the start of a text
    for c, item in zip(SENTENCE, shown, strict=True):
        x = w["embed.weight"][characters.index(c) + 1]
        from_x, from_h = layer["input_weight"] @ x + layer["bias"], layer["recurrent_weight"] @ h
        r, z = (1 / (1 + np.exp(-(from_x + from_h)[:12]))).reshape(2, 6)
        n = np.tanh(from_x[12:] + r * (from_h[12:] + layer["candidate_bias"]))
        h = (1 - z) * n + z * h
        assert [item["hidden"][str(u)] for u in range(6)] == pytest.approx(h.tolist(), abs=1e-6)
        assert item.keys() == {"text", "nats", "hidden"}


def test_one_gate_alone_is_the_same_as_among_all(runs: Path) -> None:
    every, one = (
        json_of(runs / "lstm", SENTENCE),
        json_of(runs / "lstm", SENTENCE, "--gate", "forget"),
    )
    assert one["gates"] == ["forget"]
    assert [i["forget"] for i in one["items"]] == [i["forget"] for i in every["items"]]


def test_an_average_is_that_of_all_units(runs: Path) -> None:
    mean = json_of(runs / "lstm", SENTENCE, "--gate", "cell")["items"]
    units = json_of(runs / "lstm", SENTENCE, "--gate", "cell", "--units", 6)["items"]
    for one, all_units in zip(mean, units, strict=True):
        sizes = [abs(v) for v in all_units["cell"].values()]
        assert one["cell"] == pytest.approx(sum(sizes) / 6, abs=1e-6)


def test_the_most_telling_units_come_first(runs: Path) -> None:
    found = json_of(runs / "lstm", SENTENCE, "--gate", "forget", "--units", 3)
    every = json_of(runs / "lstm", SENTENCE, "--gate", "forget", "--units", 6)
    values = {u: [i["forget"][u] for i in every["items"]] for u in every["items"][0]["forget"]}
    expected = sorted(values, key=lambda u: -np.var(values[u]))
    assert list(found["items"][0]["forget"]) == expected[:3]


def test_one_unit_is_followed_along_a_file(runs: Path) -> None:
    found = json_of(runs / "lstm", runs / "text.txt", "--unit", 4)
    assert found["gates"] == ["cell"]
    text = (runs / "text.txt").read_text()
    assert "".join(item["text"] for item in found["items"]) == text
    assert all(list(item["cell"]) == ["4"] for item in found["items"])


def test_a_text_may_come_from_standard_input(runs: Path) -> None:
    done = command("inspect", runs / "rnn", "-", "--json", input=SENTENCE)
    assert [i["text"] for i in json.loads(done.stdout)["items"]] == list(SENTENCE)


@pytest.mark.parametrize("other", ["ngram", "word"])
def test_two_runs_are_compared_stretch_by_stretch(runs: Path, other: str) -> None:
    found = json_of(runs / "lstm", SENTENCE, "--versus", runs / other)
    assert "".join(item["text"] for item in found["items"]) == SENTENCE
    for item in found["items"]:
        assert item["difference"] == pytest.approx(item["nats"] - item["versus"])
    assert found["nats"] == pytest.approx(sum(i["nats"] for i in found["items"]))
    assert found["versus"]["nats"] == pytest.approx(sum(i["versus"] for i in found["items"]))
    assert found["versus"]["run"] == str(runs / other)


def test_units_that_tell_are_scored_on_held_out_text(runs: Path) -> None:
    found = json_of(runs / "gru", runs / "text.txt", "--correlate", r"[a-z]+", "--units", 3)
    told, text = found["correlate"], (runs / "text.txt").read_text()
    half = text[len(text) // 2 :]
    assert (told["regex"], told["chance"], told["candidates"]) == ("[a-z]+", 0.5, 24)
    assert told["tokens"] == len(half)
    assert told["inside"] == sum(c.islower() for c in half)
    assert len(told["units"]) == 3
    assert all(u["fit"] >= u["score"] - 0.05 for u in told["units"])
    assert told["units"][0]["score"] > 0.7  # letters look unlike blanks even to random weights
    assert "items" not in found


# How it looks


def test_strips_keep_step_with_the_text_in_eighty_columns(runs: Path) -> None:
    done = command("inspect", runs / "lstm", SENTENCE, env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if SENTENCE.strip() in line)
    place = lines[first].index(SENTENCE.strip())
    names = ["bits", "input", "forget", "|candidate|", "output", "|cell|", "|hidden|"]
    for line, name in zip(lines[first + 1 :], names, strict=False):
        assert line.startswith(name)
        assert len(line[place:]) == len(SENTENCE)
    assert max(map(len, lines)) <= 80


def test_a_short_text_is_shown_in_numbers_too_and_the_same_as_in_json(runs: Path) -> None:
    done = command("inspect", runs / "gru", "the cat", env={"COLUMNS": "80"})
    items = json_of(runs / "gru", "the cat")["items"]
    shown = [line.split() for line in done.stdout.splitlines()[-8:-1]]
    assert [row[-1] for row in shown] == [f"{item['hidden']:.3f}" for item in items]


def test_a_plain_terminal_gets_neither_colour_nor_other_signs(runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lmcli", "inspect", runs / "gru", "the cat", "-q"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""
    assert done.stdout.isascii()


def test_a_verdict_says_what_the_best_unit_is_worth(runs: Path) -> None:
    done = command("inspect", runs / "gru", runs / "text.txt", "--correlate", "[a-z]+")
    assert "held-out" in done.stdout
    assert "Chance is 50.0 %" in done.stdout
    assert "right on held-out text (balanced)" in done.stdout


def test_the_hint_is_on_stderr_and_quiet_silences_it(runs: Path) -> None:
    loud = command("inspect", runs / "gru", SENTENCE)
    assert "next: lmcli inspect" in loud.stderr
    assert "next: " not in loud.stdout
    assert command("inspect", runs / "gru", SENTENCE, "-q").stderr == ""


def test_the_hint_repeats_no_text_that_a_terminal_would_obey(runs: Path) -> None:
    assert "\x1b" not in command("inspect", runs / "gru", "an\x1b[2Jend").stderr


# Wrong requests


def test_a_model_without_gates_says_so(runs: Path) -> None:
    code, problem, hint = failed(runs / "ngram", SENTENCE)
    assert (code, problem) == (1, "ngram has neither gates nor units to show")
    assert "--versus" in hint


@pytest.mark.parametrize(
    ("options", "code", "problem", "hint"),
    [
        (("--gate", "forgt"), 2, "no such gate", "did you mean 'forget'?"),
        (("--unit", "6"), 2, "no unit 6: cell has 6", "from 0 to 5"),
        (("--unit", "1", "--units", "2"), 2, "--units and --unit at once", "one of them"),
        (("--unit", "1", "--correlate", "a"), 2, "--unit and --correlate at once", "one of them"),
        (("--correlate", "("), 2, "no regular expression", "for example"),
        (("--correlate", "q"), 1, "matches 0 of 14 tokens in the first half", "longer text"),
    ],
)
def test_a_wrong_request_is_met_with_a_hint(
    runs: Path, options: tuple[str, ...], code: int, problem: str, hint: str
) -> None:
    found = failed(runs / "lstm", SENTENCE, *options)
    assert found[0] == code
    assert problem in found[1]
    assert hint in found[2]


def test_a_misspelt_file_is_not_taken_for_a_text(runs: Path) -> None:
    code, problem, hint = failed(runs / "lstm", runs / "txt.txt")
    assert (code, hint.startswith("did you mean")) == (1, True)
    assert "no file named" in problem


def test_unknown_symbols_are_a_warning(runs: Path) -> None:
    done = command("inspect", runs / "lstm", "the £ cat")
    assert done.exit_code == 0
    assert "warning: 1 of 9 tokens are unknown" in done.stderr


def test_an_empty_text_is_an_error(runs: Path) -> None:
    assert failed(runs / "lstm", "")[0] == 1


def test_a_long_file_is_cut_with_a_warning(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(SENTENCE * 800)
    done = command("inspect", runs / "rnn", tmp_path / "long.txt", "--json")
    assert "only the first 20,000 characters" in done.stderr
    assert json.loads(done.stdout)["tokens"] == 20_000
