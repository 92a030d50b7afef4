"""How much more frequent words are in the text read last than in all of it.

**In:** tokens in the order in which they are read.
**Out:** for each of several windows the logarithm of a ratio, for any token w::

    r(w) = (c(w) + s p(w)) / ((n + s) p(w))        p(w) = (C(w) + 1/2) / (N + V / 2)

c counts the last n tokens, C all N of them, V is the vocabulary, s the strength of the smoothing.
Probabilities that are multiplied by a power of r, and normalised, follow the subject of a text:
Kneser, Peters and Klakow 1997, "Language model adaptation using dynamic marginals".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


class RecentWords:
    """Counts of all tokens and of the last ones; `windows` are lengths in tokens.

    Tokens may have ids above the vocabulary.
    """

    def __init__(self, vocabulary: int, windows: Sequence[int], strength: float) -> None:
        self.vocabulary, self.windows, self.strength = vocabulary, windows, strength
        self._all = np.zeros(vocabulary)
        self._last = np.zeros(0, np.int64)

    def add(self, tokens: Ids) -> None:
        """Read tokens."""
        if self.windows and len(tokens):
            missing = int(tokens.max()) + 1 - len(self._all)
            if missing > 0:
                self._all = np.append(self._all, np.zeros(missing))
            np.add.at(self._all, tokens, 1)
            self._last = np.concatenate([self._last, tokens])[-max(self.windows) :]

    def tokens(self) -> Ids:
        """Those of the longest window, in order."""
        return self._last

    def log_ratios(self, columns: Ids) -> Floats:
        """ln r of some tokens, and last that of any token that is in no window.

        Shapes: (C,) -> (windows, C + 1).
        """
        read = np.append(self._all, 0)[np.minimum(columns, len(self._all))]
        own = (read + 0.5) / (self._all.sum() + self.vocabulary / 2)
        ratios = np.zeros((len(self.windows), len(columns) + 1))
        for ratio, window in zip(ratios, self.windows, strict=True):
            last = self._last[-window:]
            counts = np.bincount(last, minlength=len(self._all) + 1)
            counts = counts[np.minimum(columns, len(self._all))]
            ratio[:-1] = np.log((counts / own + self.strength) / (len(last) + self.strength))
            ratio[-1] = np.log(self.strength / (len(last) + self.strength))
        return ratios
