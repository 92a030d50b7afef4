"""One colour, marker and dash for each architecture, the same in every figure.

**In:** names of series, which begin with the name of an architecture: ``lstm``,
``rnn:activation=relu``, ``runs/gru-2``.
**Out:** a `Look` for each. The hues are those of Okabe and Ito (jfly.uni-koeln.de/color), which
people with a colour deficiency can tell apart; those too pale for white paper are darker here, and
those too dark for black paper lighter. Marker and dash differ too, so that no colour is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

PAPER = ("#ffffff", "#14171c")
INK = ("#1b1f26", "#e7eaf0")
MUTED = ("#59616e", "#a3acba")
RULE = ("#dfe3e9", "#323945")
"""of a page, light and dark"""

COLORS = {
    "window": ("#b57600", "#e69f00"),
    "rnn": ("#b3360b", "#ff7a50"),
    "gru": ("#009e73", "#1fc397"),
    "lstm": ("#0072b2", "#4fb3ea"),
    "attention": ("#b0508a", "#e08cbf"),
    "mingru": ("#2b8cbe", "#8fd0f5"),
    "minlstm": ("#857a00", "#f0e442"),
    "ngram": ("#4a515c", "#c9d0da"),
    "hybrid": ("#6a51a3", "#b3a2e0"),
}
"""of each architecture, on light and on dark paper"""
MARKERS = dict(zip(COLORS, "sovDPX^dp", strict=True))
PLAIN = "neutral"
"""the name of what is no model, such as chance or the best possible score"""
CONTROLS = ("order-free reader", "control", "chance", "optimum")
"""names of series that are no models"""
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
"""of an architecture's first series, its second, ..."""


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    arch: str
    """whose colour it has"""
    marker: str
    dash: Sequence[float] = ()
    filled: bool = True


NEUTRAL = Look(PLAIN, "|", (4, 2))


def arch_of(name: str) -> str | None:
    """The architecture that a name begins with, or its last folder does.

    >>> arch_of("rnn:activation=relu"), arch_of("runs/lstm-2"), arch_of("lstm untrained")
    ('rnn', 'lstm', 'lstm')
    >>> arch_of("chance") is None
    True
    """
    for part in (name, name.rstrip("/").rpartition("/")[2]):
        first = re.match(r"[a-z]+", part)
        if first and first[0] in COLORS:
            return first[0]
    return None


def looks(names: Sequence[str]) -> list[Look]:
    """A look for each series; a name of no architecture takes a colour that is free."""
    free = [arch for arch in COLORS if arch not in map(arch_of, names)] or list(COLORS)
    chosen: list[Look] = []
    for place, name in enumerate(names):
        if name in CONTROLS:
            chosen.append(NEUTRAL)
            continue
        arch = arch_of(name) or free[place % len(free)]
        same = sum(look.arch == arch for look in chosen)
        look = Look(arch, MARKERS[arch], DASHES[same % len(DASHES)])
        chosen.append(replace(look, filled=not same % 2))
    return chosen


def css_variables(dark: bool) -> str:
    """The colours as CSS custom properties."""
    named = {"paper": PAPER, "ink": INK, "muted": MUTED, "rule": RULE, PLAIN: MUTED}
    named |= {f"c-{arch}": pair for arch, pair in COLORS.items()}
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in named.items())
