"""Which signs a stream can show.

**In:** a text and a console.
**Out:** the text, or its nearest form in ASCII.
"""

from __future__ import annotations

from rich.console import Console

ASCII = str.maketrans(
    {"±": "~", "–": "-", "…": "...", "×": "x", "█": "#", "┄": "-", "│": "|", "└": "+", "─": "-"}
    | {"≤": "<=", "≥": ">="}
    | dict.fromkeys("▁▂▃", " ")
    | dict.fromkeys("▄▅▆▇", ":")
)


def fitting(text: str, console: Console) -> str:
    """The text itself, or its ASCII form where the stream cannot show it."""
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(ASCII).encode("ascii", "replace").decode()
    return text
