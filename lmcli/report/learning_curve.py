"""A learning curve in a few lines of text, while a model is trained.

**In:** losses of the training and of the validation part by the share of the budget.
**Out:** lines: the loss upwards, the budget to the right.
"""

from __future__ import annotations

from collections.abc import Sequence

HEIGHT, WIDTH = 6, 60
MARKS, ASCII_MARKS = ("·", "●"), (".", "o")
"""of the training part, of the validation part"""
Points = Sequence[tuple[float, float]]
"""share of the budget from 0 to 1, loss in nats a token"""


def learning_curve(train: Points, valid: Points, width: int, ascii_only: bool = False) -> list[str]:
    """The lines; none before the first validation. A validation is drawn over the training part.

    >>> points = [(0.1, 4.0), (0.5, 2.9)], [(0.5, 3.4), (1.0, 2.0)]
    >>> for line in learning_curve(*points, width=45, ascii_only=True):
    ...     print(line.rstrip())
    4.00 |   .
         |
         |                   o
         |                   .
         |
    2.00 |                                     o
         nats/token: . training, o validation
    """
    if not valid:
        return []
    every = [loss for _, loss in (*train, *valid)]
    high, low = max(every), min(every)
    names = [f"{high:.2f}", f"{low:.2f}"]
    margin = max(map(len, names))
    columns = max(10, min(WIDTH, width - margin - 3))
    grid = [[" "] * columns for _ in range(HEIGHT)]
    marks = ASCII_MARKS if ascii_only else MARKS
    for points, mark in zip((train, valid), marks, strict=True):
        for share, loss in points:
            row = round((high - loss) / ((high - low) or 1.0) * (HEIGHT - 1))
            grid[row][min(columns - 1, int(share * columns))] = mark
    bar = "|" if ascii_only else "│"
    labels = [names[0], *[""] * (HEIGHT - 2), names[1]]
    rows = zip(labels, map("".join, grid), strict=True)
    lines = [f"{label:>{margin}} {bar}{row}" for label, row in rows]
    legend = f"nats/token: {marks[0]} training, {marks[1]} validation"
    return [*lines, " " * (margin + 1) + legend[: max(0, width - margin - 1)]]
