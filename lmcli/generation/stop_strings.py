"""Stop strings: a text ends before the first one that occurs in it.

**In:** chunks of a text as they come.
**Out:** the part of the text that certainly stands before the first stop string.
"""

from __future__ import annotations


class StopStrings:
    """Passes a text on up to the stop string that is complete first, if there is one.

    The end of the text so far is held back while it may be the beginning of a stop string.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = tuple(s for s in stops if s)
        self.held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text that certainly belongs to no stop string."""
        if not self.stops:
            return text
        self.held += text
        matches = [(i + len(s), i) for s in self.stops if (i := self.held.find(s)) >= 0]
        if matches:
            self.stopped = True
            text, self.held = self.held[: min(matches)[1]], ""
            return text
        cut = len(self.held) - max(_overlap(self.held, s) for s in self.stops)
        text, self.held = self.held[:cut], self.held[cut:]
        return text

    def finish(self) -> str:
        """The text still held back at its end: it was no stop string."""
        text, self.held = self.held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`.

    >>> _overlap("a fine En", "End"), _overlap("no", "End")
    (2, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
