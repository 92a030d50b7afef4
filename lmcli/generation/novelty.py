"""How much of a sampled text stands word for word in the text that its model was trained on.

**In:** a run whose text can be read again; sampled texts.
**Out:** a `Novelty`: the spans of `LEAST` or more tokens that stand in the training part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.data.dataset import reopen_dataset
from lmcli.report.progress import OnProgress
from lmcli.report.result import Passages
from lmcli.run import Run
from lmcli.tokenizers.base import Ids, Tokenizer

LEAST = 8
"""tokens in a span that is told of"""


@dataclass(frozen=True)
class Novelty:
    """Spans of a text that stand in the training text."""

    spans: Sequence[tuple[int, int]]
    """where each begins and ends, in characters of the sampled text; none touch"""
    share: float
    """of the text's characters that lie in them"""
    longest: int
    """tokens of the longest"""

    def to_json(self) -> dict[str, Any]:
        """The key ``novelty`` of ``sample --json``."""
        spans = [list(span) for span in self.spans]
        return {"least": LEAST, "share": self.share, "longest": self.longest, "spans": spans}

    def passages(self, prompt: str, text: str) -> Passages:
        """The text with what stands in the training text marked, and its share."""
        parts, place = [(prompt, 0.0)] if prompt else [], 0
        for begin, end in self.spans:
            parts += [(text[place:begin], 0.0), (text[begin:end], 1.0)]
            place = end
        parts.append((text[place:], 0.0))
        note = (
            f"{100 * self.share:.0f} % of the characters (marked) are in spans of {LEAST} or more "
            f"tokens found in the training text; the longest has {self.longest:,} tokens"
        )
        return Passages("", [part for part in parts if part[0]], note)


class TrainingTokens:
    """The ids that a model was trained on, to be searched."""

    def __init__(self, ids: Ids, tokenizer: Tokenizer) -> None:
        self.tokenizer, self._dtype = tokenizer, ids.dtype
        self._bytes = ids.tobytes()

    @classmethod
    def of(cls, run: Run, on_progress: OnProgress) -> TrainingTokens:
        """Those of a run, whose text is read again; a text that is gone is a TextError."""
        record = run.record
        dataset = reopen_dataset(
            record.corpus, run.path, run.tokenizer, record.tokenizer, record.tokenizer_settings,
            on_progress=on_progress,
        )  # fmt: skip
        return cls(dataset.tokenized.train, run.tokenizer)

    def __contains__(self, ids: Ids) -> bool:
        wanted, width = ids.astype(self._dtype).tobytes(), self._dtype.itemsize
        place = self._bytes.find(wanted)
        while place >= 0 and place % width:  # it begins within an id
            place = self._bytes.find(wanted, place + 1)
        return place >= 0

    def novelty(self, text: str) -> Novelty:
        """Which spans of a sampled text stand here."""
        encoded = self.tokenizer.encode_with_ends(text)
        begins, ends = np.append(0, encoded.ends[:-1]), encoded.ends
        spans, longest = list[tuple[int, int]](), 0
        windows = [encoded.ids[i : i + LEAST] in self for i in range(len(ends) - LEAST + 1)]
        edges = np.diff(np.concatenate([[False], windows, [False]]).astype(np.int8))
        for first, after in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True):
            last = int(after) + LEAST - 2  # of the tokens of the windows from `first` on
            longest = max(longest, self._longest(encoded.ids[int(first) : last + 1]))
            begin, end = int(begins[first]), int(ends[last])
            if spans and begin <= spans[-1][1]:
                begin = spans.pop()[0]
            spans.append((begin, end))
        share = sum(end - begin for begin, end in spans) / max(1, len(text))
        return Novelty(spans, share, longest)

    def _longest(self, ids: Ids) -> int:
        """How many of these tokens stand here together, at most; every `LEAST` of them do."""
        first, longest = 0, LEAST
        while first + longest < len(ids):
            if ids[first : first + longest + 1] in self:
                longest += 1
            else:
                first += 1
        return longest
