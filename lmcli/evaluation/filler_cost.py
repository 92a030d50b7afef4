"""What it costs to plant facts in a text: perplexity of the user's own sentences with and without.

**In:** a model and held-out items that say which part of them are the user's own sentences.
**Out:** a `FillerCost`: perplexity and bits per character of these sentences *planted*, between
cue and query, and *alone*, as a document of their own; and that of cue and query.

The tokens of the same characters are compared. A token belongs to where its first visible
character is, so that one which joins a blank to a word goes with the word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.forced_choice import group_items, main_kind
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import ScoredText
from lmcli.evaluation.statistics import Floats, limits, paired_rates
from lmcli.grammars.base import read_items
from lmcli.models.base import LanguageModel
from lmcli.report.result import PERPLEXITY, Column, Metric, Table, text
from lmcli.tokenizers.base import Tokenizer

ITEMS = 100
SHORTEST, LONGEST = 30, 100
"""gaps of the items that are taken, where there are any"""


@dataclass(frozen=True)
class PlantedText:
    """A document, and where in it the user's own sentences begin and end."""

    document: str
    begin: int
    end: int

    @property
    def own(self) -> str:
        """The user's sentences."""
        return self.document[self.begin : self.end]


def planted_texts(path: Path, most: int = ITEMS) -> list[PlantedText]:
    """Evenly spread items of the main kind; none where no item says what is the user's own.

    Those that begin with a whole sentence, at the gaps wanted, are taken where there are enough.
    """
    items = read_items(path)
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    groups = group_items(items)
    kind = main_kind([kind for kind, _ in groups])
    asked = {id(item) for (own, _), some in groups.items() if own == kind for item in some}
    choices: list[list[PlantedText]] = [[], [], []]  # the best ones, those at the gaps wanted, all
    for item, values in zip(items, map(json.loads, lines), strict=True):
        begin, end = _span(values.get("filler"), item.text)
        if id(item) in asked and begin < end:
            fits = SHORTEST <= item.gap <= LONGEST
            planted = PlantedText(item.document + "\n", begin, end)
            for chosen, wanted in zip(
                choices, (fits and not values.get("cut"), fits, True), strict=True
            ):
                chosen += [planted] * bool(wanted)
    some = next((chosen for chosen in choices if len(chosen) >= most), choices[-1])
    count = min(most, len(some))
    return [some[number * len(some) // count] for number in range(count)]


def _span(filler: Any, text: str) -> tuple[int, int]:
    """Where the user's own sentences begin and end, without blanks around them."""
    if not isinstance(filler, list) or [type(place) for place in filler] != [int, int]:
        return 0, 0
    own = text[slice(*filler)]
    begin = filler[0] + len(own) - len(own.lstrip())
    return begin, begin + len(own.strip())


@dataclass(frozen=True)
class PartScore:
    """Sums over one part of all documents, an entry a document."""

    nats: Floats
    spelling: Floats
    tokens: npt.NDArray[np.int64]
    chars: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, float]:
        """Rates over all documents."""
        nats, spelling = math.fsum(self.nats), math.fsum(self.spelling)
        return {
            "perplexity": math.exp(min(700.0, nats / max(1, int(self.tokens.sum())))),
            "bits_per_char": (nats + spelling) / math.log(2) / max(1, int(self.chars.sum())),
            "tokens": int(self.tokens.sum()),
            "chars": int(self.chars.sum()),
        }


@dataclass(frozen=True)
class FillerCost:
    """One model on the same sentences, planted and alone."""

    planted: PartScore
    alone: PartScore
    cue_and_query: PartScore

    def to_json(self) -> dict[str, Any]:
        """The value of `cost` in a row of ``compare --json``."""
        sizes = self.planted.chars.astype(np.float64)
        rates = paired_rates(self.planted.nats, self.alone.nats, sizes)
        low, high = limits((rates[0] - rates[1]) / math.log(2))
        apart = (math.fsum(self.planted.nats) - math.fsum(self.alone.nats)) / math.log(2)
        parts = ("planted", "alone", "cue_and_query")
        return {name: getattr(self, name).to_json() for name in parts} | {
            "difference": {"bits_per_char": apart / float(sizes.sum()), "low": low, "high": high},
            "items": len(sizes),
        }


def measure_cost(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[PlantedText]
) -> FillerCost:
    """Score the documents, and their own sentences alone, each from the start state."""
    planted = score_documents(model, tokenizer, [t.document for t in texts])
    alone = score_documents(model, tokenizer, [t.own for t in texts])
    inside = [_inside(scored, t) for scored, t in zip(planted, texts, strict=True)]
    chars = np.array([len(t.own) for t in texts])
    rest = np.array([len(t.document) for t in texts]) - chars
    return FillerCost(
        _part(planted, inside, chars),
        _part(alone, [np.ones(len(s.nats), np.bool_) for s in alone], chars),
        _part(planted, [~mine for mine in inside], rest),
    )


def _inside(scored: ScoredText, planted: PlantedText) -> npt.NDArray[np.bool_]:
    """Which tokens are of the user's own sentences."""
    begins = []
    for begin, end in scored.spans():
        piece = scored.text[begin:end]
        begins.append(begin + (len(piece) - len(piece.lstrip()) if piece.strip() else 0))
    first = np.array(begins)
    inside: npt.NDArray[np.bool_] = (planted.begin <= first) & (first < planted.end)
    return inside


def _part(
    scored: Sequence[ScoredText],
    chosen: Sequence[npt.NDArray[np.bool_]],
    chars: npt.NDArray[np.int64],
) -> PartScore:
    pairs = list(zip(scored, chosen, strict=True))
    nats = np.array([s.nats[mine].sum(dtype=np.float64) for s, mine in pairs])
    spelt = [0.0 if s.spelling is None else float(s.spelling[mine].sum()) for s, mine in pairs]
    return PartScore(nats, np.array(spelt), np.array([int(mine.sum()) for mine in chosen]), chars)


APART = Metric("bits/char", 3)
COLUMNS = (
    Column("name", text("model")),
    Column("cost.planted.perplexity", PERPLEXITY, "planted"),
    Column("cost.alone.perplexity", PERPLEXITY, "alone"),
    Column("cost.difference.bits_per_char", APART, "bits/char"),
    Column("cost.difference.low", APART, "from"),
    Column("cost.difference.high", APART, "to"),
    Column("cost.cue_and_query.perplexity", PERPLEXITY, "cue+query"),
)


def cost_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Perplexities of each row; no table where the text has no sentences of a user's own."""
    measured = [row for row in rows if row.get("cost")]
    if not measured:
        return []
    note = (
        "perplexity of the same held-out sentences between cue and query (planted) and as a "
        "document of their own (alone); bits/char: planted minus alone, 95 % interval"
    )
    return [Table("what planting costs the text's own sentences", COLUMNS, measured, note)]
