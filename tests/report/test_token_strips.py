"""Laws of strips: in step with the text, within the width, readable without colour and in ASCII."""

from __future__ import annotations

import io
import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style

from lmcli.report.result import Result, Strip, Strips
from lmcli.report.terminal import print_result
from lmcli.report.token_strips import COLD, WARM


def drawn(
    block: Strips, width: int = 40, encoding: str = "utf-8", colour: bool = False
) -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, newline="")
    system: Literal["standard"] | None = "standard" if colour else None
    console = Console(file=stream, width=width, force_terminal=colour, color_system=system)
    print_result(Result("inspect", {}, [block]), console)
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def strip(*values: float, low: float = 0.0, high: float = 1.0) -> Strip:
    return Strip("gate", values, low, high)


def test_marks_rise_from_low_to_high() -> None:
    block = Strips("", "abcdefgh", [strip(*(i / 7 for i in range(8)))])
    assert drawn(block)[:2] == [" " * 18 + "abcdefgh", "gate  0.0 to 1.0  ▁▂▃▄▅▆▇█"]


def test_zero_is_in_the_middle_of_values_with_a_sign() -> None:
    block = Strips("", "abc", [strip(-2, 0, 2, low=-2, high=2)])
    assert drawn(block)[1].endswith(" ▁▄▇")
    assert drawn(block, encoding="ascii")[1].endswith(" 048")


def test_what_is_beyond_the_range_is_drawn_at_its_end() -> None:
    assert drawn(Strips("", "ab", [strip(-3, 7)]))[1].endswith("▁█")


def test_a_stream_of_ascii_gets_digits() -> None:
    block = Strips("who – it", "aé", [strip(0, 1)], note="± 1")
    assert drawn(block, encoding="ascii") == [
        "who - it",
        " " * 18 + "a?",
        "gate  0.0 to 1.0  09",
        "",
        "~ 1",
    ]


def test_marks_are_as_wide_as_their_words_and_leave_the_blanks_free() -> None:
    block = Strips("", ["so", " it", " ", "日", "\n"], [strip(0, 1, 0, 1, 0)])
    assert drawn(block)[:2] == [" " * 18 + "so it 日 ", "gate  0.0 to 1.0  ▁▁ ██▁██▁"]


def test_a_line_end_of_the_text_ends_a_line_here() -> None:
    lines = drawn(Strips("", "ab\ncd", [strip(0, 0, 0, 1, 1)]))
    assert [line[18:] for line in lines] == ["ab ", "▁▁▁", "", "cd", "██", ""]


def test_colour_says_less_and_more_and_changes_no_letter() -> None:
    block = Strips("", "abc", [strip(-1, 0, 1, low=-1)], tint=[-1, 0, 1])
    plain, coloured = drawn(block), drawn(block, colour=True)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert "\x1b[1;94ma" in coloured[0]
    assert "\x1b[1;31mc" in coloured[0]


@pytest.mark.parametrize("width", [20, 40, 80])
@given(st.lists(st.text("ab \n日é", min_size=0, max_size=6), max_size=40))
def test_every_token_is_drawn_once_within_the_width(width: int, parts: list[str]) -> None:
    lines = drawn(Strips("", parts, [strip(*[0.5] * len(parts))]), width)
    texts = [line[18:] for line in lines[::3]]
    assert "".join(texts) == "".join(parts).replace("\n", " ")
    assert all(cell_len(t) <= max(16, width - 18) for t in texts)
    assert [cell_len(m[18:]) for m in lines[1::3]] == [cell_len(t) for t in texts]


def luminance(channel: float) -> float:
    """Of a channel from 0 to 255, as in the WCAG's definition of contrast."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("style", [s for s in (*WARM, *COLD) if s])
def test_colours_can_be_read_on_white_and_on_black(style: str) -> None:
    color = Style.parse(style).color
    assert color is not None
    red, green, blue = (luminance(c) for c in color.get_truecolor())
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert (1.05 / (light + 0.05)) > 3.7
    assert ((light + 0.05) / 0.05) > 3.7
