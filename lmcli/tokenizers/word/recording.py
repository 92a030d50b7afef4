"""A text as numbers of gap-and-token pairs, kept while its vocabulary is learnt.

**In:** the numbers, in the order of the text, slice by slice.
**Out:** the same again, so that the text need not be split a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.data.texts import Spool
from lmcli.tokenizers.base import Offsets

Numbers = npt.NDArray[np.int32]

_MEMORY = 1 << 26  # bytes held in memory; what is more goes to a temporary file


class Record:
    """Slices of a text: their pairs, at which of them a piece begins, and empty pieces behind."""

    def __init__(self, memory: int = _MEMORY) -> None:
        self._spool = Spool(memory)
        self._sizes: list[tuple[int, int, int]] = []
        self.whole = True
        """False once a disk was full: then the text is to be split again"""
        self.pairs = 0

    def add(self, pairs: npt.NDArray[np.integer[Any]], firsts: Offsets, empty: int = 0) -> None:
        """One more slice."""
        if not self.whole or not len(pairs) + empty:
            return
        try:
            self._spool.write(np.concatenate([pairs, firsts]).astype(np.int32).tobytes())
        except OSError:
            self.whole, self._spool, self._sizes = False, Spool(0), []
            return
        self._sizes.append((len(pairs), len(firsts), empty))
        self.pairs += len(pairs)

    def __iter__(self) -> Iterator[tuple[Numbers, Numbers, int]]:
        """All slices, from the first on."""
        begin, width = 0, np.dtype(np.int32).itemsize
        for pairs, firsts, empty in self._sizes:
            end = begin + (pairs + firsts) * width
            numbers = np.frombuffer(self._spool.read(begin, end), np.int32)
            yield numbers[:pairs], numbers[pairs:], empty
            begin = end
