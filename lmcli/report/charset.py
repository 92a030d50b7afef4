"""Which signs a stream can show.

**In:** a text and a console.
**Out:** the text, or its nearest form in ASCII; in both no control character but a tab
or a line end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

ASCII = str.maketrans(
    {"±": "~", "–": "-", "…": "...", "×": "x", "█": "#", "┄": "-", "│": "|", "└": "+", "─": "-"}
    | {"≤": "<=", "≥": ">="}
    | dict.fromkeys("▁▂▃", " ")
    | dict.fromkeys("▄▅▆▇", ":")
)


OBEYED = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}
OBEYED |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
"""What a terminal would obey instead of showing it, such as escape: a picture of it."""


def fit_all(texts: Iterable[str], console: Console) -> list[str]:
    """Each of some texts as `fitting` gives it."""
    return [fitting(text, console) for text in texts]


def fitting(text: str, console: Console) -> str:
    """The text itself, or its ASCII form where the stream cannot show it."""
    text = text.translate(OBEYED)
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(ASCII).encode("ascii", "replace").decode()
    return text
