"""What of the past beyond the last k tokens is used: its words, or their order too.

**In:** runs, held-out text, the training part.
**Out:** by k: what tokens cost more when a span of text beyond the last k tokens is shuffled,
reversed, without its content words, without its function words, or that of another place.

    cost(k)        = mean [l(t) with x_(t-k-s) .. x_(t-k-1) disturbed - l(t)]
    order value(k) = cost(k) shuffled / cost(k) replaced

Each place of the text is disturbed once for all k: the tokens after it are read on, and the one k
further on has k undisturbed tokens before it. The text from another place is one that an n-gram of
the training part finds about as surprising, so that it is no easier or harder text. Words are moved
as wholes where they are spelt of smaller tokens. A model that sees n - 1 tokens has cost(k) = 0
exactly for k >= n - 1; one for which the past is a bag of words has 0 where it is shuffled or
reversed. Khandelwal, He, Qi and Jurafsky (2018); O'Connor and Andreas (2021).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lmcli.evaluation.probes.base import (
    CurveProbe,
    Row,
    Rows,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.recall.items import FREQUENT
from lmcli.evaluation.probes.sampling import (
    Mean,
    Places,
    Targets,
    draw_targets,
    drawn_sums,
    longest_span,
    powers,
    zero_noise,
)
from lmcli.evaluation.state_batches import Ids, advance, row_bytes, take, token_nll
from lmcli.evaluation.statistics import Floats, limits
from lmcli.models.base import LanguageModel
from lmcli.models.ngram.kneser_ney import KneserNey
from lmcli.report.result import COUNT, Column, Figure, Metric
from lmcli.settings import setting
from lmcli.tokenizers.base import SAFE_SPLIT, Tokenizer

CONDITIONS = ("shuffled", "reversed", "no_content", "no_function", "replaced")
PICTURED = {
    "shuffled": "shuffled: nats a token that the order of earlier words is worth",
    "replaced": "replaced: nats a token that earlier words are worth",
}
ORDER = 4
"""of the n-gram"""
CHARACTERS = 400_000
"""of the training part and of the held-out part that are read, at the most"""
WARM = 64
"""tokens read before those that are disturbed"""
SMALLEST_SPAN = 4
FEWEST = 8
"""places of a row"""
MEMORY = 1 << 27
"""bytes of states held at once"""
LONG_UNIT = 32
"""tokens; where words are longer in the mean, the text has none that blanks tell apart"""
WORD = re.compile(r"[^\W\d_](?:\S*[^\W\d_])?")


@dataclass(frozen=True)
class OrderSettings:
    """How many places, how much of the text is disturbed, how far from the target."""

    places: int = setting(256, "places where the text is disturbed; two targets a k", least=FEWEST)
    span: int = setting(128, "tokens that are disturbed", least=SMALLEST_SPAN, most=65536)
    longest: int = setting(256, "largest k, tokens kept", least=1, most=65536)


class Order(CurveProbe):
    """Extra loss after text beyond the last k tokens has been disturbed, by k."""

    name = "order"
    Settings = OrderSettings
    x = "kept"
    reach = "order"
    picture = Figure("", (), (), Metric("nats", 0, "power"), "last N tokens kept", scale="log")
    columns = (
        Column("kept", COUNT, "kept"),
        *interval_columns("shuffled", Metric("", 4)),
        Column("reversed", Metric("reversed", 4)),
        Column("no_content", Metric("no content", 4)),
        Column("no_function", Metric("no function", 4)),
        Column("replaced", Metric("replaced", 4)),
        *interval_columns("order value", Metric("", 2), "order_value"),
        Column("count", COUNT),
    )
    note = (
        "extra nats a token when the text beyond the last tokens is disturbed; order value: "
        "shuffled / replaced, the share of what is used that lies in the order of the words"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only with the training part, which decides what is surprising and frequent."""
        return None if data.train else "the training text, which order counts, is not at hand"

    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """One row a k."""
        texts = read_units(subject.tokenizer, data.held_out)
        rng = np.random.default_rng(seed)
        streams = [t.ids for t in texts]
        span = longest_span(streams, 2 * settings.span) // 2
        drawn = draw_targets(streams, settings.places, rng, max(1, span))
        if span < SMALLEST_SPAN or len(drawn) < FEWEST:
            return []
        places = disturb(subject.tokenizer, data.train, texts, drawn, span, rng)
        ks = powers(settings.longest)
        return _rows(subject, ks, costs(subject.model, places, ks), drawn.stretch, seed)

    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The last k of the leading runs in which order, and words at all, are of use."""
        reaches = {"order": _reach(rows, "low"), "words": _reach(rows, "replaced_low")}
        parts = [f"{n} {reach_words(r) if r['tokens'] else 'none'}" for n, r in reaches.items()]
        return subject.row(**reaches, figure=", ".join(parts))

    def verdict(self, row: Row) -> str:
        """How far back order is of use, and words at all."""
        order, words = row["order"], row["words"]
        if not order["tokens"] and not words["tokens"]:
            return f"{row['model']} uses nothing beyond its last token"
        ordered = f"up to {reach_words(order)} back" if order["tokens"] else "nowhere"
        any_order = f"up to {reach_words(words)} back" if words["tokens"] else "nowhere"
        return f"{row['model']} uses the order of words {ordered}, and words at all {any_order}"

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """A picture for order and one for words."""
        return [
            self.curve(subjects, [{**row, **_values(row, name)} for row in rows], title=title)
            for name, title in PICTURED.items()
        ]


def _reach(rows: Rows, low: str) -> dict[str, Any]:
    used, at_least = leading_run(rows, lambda row: row[low] > 0)
    return {"tokens": used[-1]["kept"] if used else 0, "at_least": at_least}


def _values(row: Row, name: str) -> dict[str, Any]:
    """A condition's cost and limits under the names that a picture takes."""
    if name == "shuffled":
        return {}
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def _rows(
    subject: ProbedModel, ks: Sequence[int], table: Floats, stretch: Places, seed: int
) -> list[dict[str, Any]]:
    """Costs with intervals. Shapes: table (conditions, places, ks, 2)."""
    rows = []
    for number, kept in enumerate(ks):
        now = dict(zip(CONDITIONS, table[:, :, number], strict=True))
        means = {name: Mean.of(values, stretch, seed) for name, values in now.items()}
        count = means["shuffled"].count
        if count < 2 * FEWEST:
            break
        row = subject.row(kept=kept, **means["shuffled"].row(), count=count, chance=0.0)
        for name in CONDITIONS[1:]:
            row |= means[name].row(name)
        row |= order_value(now["shuffled"], now["replaced"], means["replaced"], stretch, seed)
        rows.append(row)
    return rows


def order_value(
    shuffled: Floats, replaced: Floats, worth: Mean, stretch: Places, seed: int
) -> dict[str, float | None]:
    """The ratio of two costs with its limits; None where `worth`, that of `replaced`, may be 0."""
    names = "order_value", "order_value_low", "order_value_high"
    if not worth.low > 0:
        return dict.fromkeys(names)
    part, whole = (drawn_sums(values, stretch, seed)[0] for values in (shuffled, replaced))
    drawn = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    value = float(np.nansum(shuffled) / np.nansum(replaced))
    return dict(zip(names, (value, *limits(drawn)), strict=True))


# ------------------------------------------------------------------ words


@dataclass(frozen=True)
class _Text:
    """A document, the start id first. Shapes: (N,) each."""

    ids: Ids
    begins: npt.NDArray[np.bool_]
    """where a unit begins that is moved as a whole: a token, or a word with the blank before it"""
    words: Sequence[str]
    """of each unit the word in it, in small letters, or nothing"""

    def units(self, begin: int, end: int) -> list[Ids]:
        """The tokens from `begin` on, unit by unit."""
        inner = np.flatnonzero(self.begins[begin + 1 : end]) + 1
        return np.split(self.ids[begin:end], inner)

    def words_in(self, begin: int, end: int) -> Sequence[str]:
        """The word of each of these units."""
        number = np.cumsum(self.begins)
        return self.words[number[begin] - 1 : number[end - 1]]


def read_units(tokenizer: Tokenizer, texts: Sequence[str]) -> list[_Text]:
    """Documents as tokens and units, `CHARACTERS` in all."""
    left, read = CHARACTERS, list[_Text]()
    for text in texts:
        if left <= 0:
            break
        if text:
            read.append(_units(tokenizer, text[:left]))
        left -= len(text)
    return read


def _units(tokenizer: Tokenizer, text: str) -> _Text:
    encoded = tokenizer.encode_with_ends(text)
    starts = np.append(0, encoded.ends[:-1])
    begins = np.ones(len(starts), np.bool_)
    if tokenizer.spells:
        begins = np.diff(starts, prepend=-1) > 0  # not within a character
        cuts = np.array([0, *(m.start() for m in SAFE_SPLIT.finditer(text))])
        if len(cuts) * LONG_UNIT > len(starts):
            begins &= np.isin(starts, cuts)
    edges = [*starts[begins].tolist(), len(text)]
    found = [WORD.search(text, a, b) for a, b in itertools.pairwise(edges)]
    words = ["", *(m[0].lower() if m else "" for m in found)]  # the start id is a unit
    ids = np.append(tokenizer.start, encoded.ids).astype(np.int64)
    return _Text(ids, np.append(True, begins), words)


# ------------------------------------------------------------------ disturbed texts


@dataclass(frozen=True)
class _Place:
    """The text around a place: read first, disturbed or not, read on."""

    before: Ids
    spans: Sequence[Ids]
    """the real one, then one a condition"""
    after: Ids


def disturb(
    tokenizer: Tokenizer,
    train: Sequence[str],
    texts: Sequence[_Text],
    drawn: Targets,
    span: int,
    rng: np.random.Generator,
) -> list[_Place]:
    """All conditions at each place; spans begin and end where units do."""
    counted = read_units(tokenizer, train)
    frequency = Counter(word for text in counted for word in text.words if word)
    function = {word for word, _ in frequency.most_common(FREQUENT)}
    spans = _spans(texts, drawn, span)
    table = KneserNey.estimate(np.concatenate([t.ids for t in counted]), tokenizer.size, ORDER)
    others = _alike(table, texts, spans)
    places = []
    for (document, begin, end), other in zip(spans.tolist(), spans[others].tolist(), strict=True):
        text, (elsewhere, *edges) = texts[document], other
        units, words = text.units(begin, end), text.words_in(begin, end)
        orders = [
            [units[i] for i in rng.permutation(len(units))],
            units[::-1],
            [u for u, word in zip(units, words, strict=True) if not word or word in function],
            [u for u, word in zip(units, words, strict=True) if word not in function],
            texts[elsewhere].units(*edges),
        ]
        disturbed = [np.concatenate([text.ids[:0], *some]) for some in orders]
        before = text.ids[max(0, begin - WARM) : begin]
        places.append(_Place(before, [text.ids[begin:end], *disturbed], text.ids[end:]))
    return places


def _spans(texts: Sequence[_Text], drawn: Targets, length: int) -> Places:
    """Document, begin and end of the units in about `length` tokens before each target.

    Shapes: -> (N, 3).
    """
    spans = []
    for document, place in zip(drawn.document.tolist(), drawn.place.tolist(), strict=True):
        starts = np.flatnonzero(texts[document].begins[: place + 1])[1:]  # not the start id
        end = int(starts[-1]) if len(starts) > 1 else place
        begin = int(starts[max(0, np.searchsorted(starts, end - length, "right") - 1)])
        spans.append((document, begin, end))
    return np.array(spans)


def _alike(table: KneserNey, texts: Sequence[_Text], spans: Places) -> Places:
    """For each span one of the half that lies farthest off: the nearest in mean surprisal."""
    sums, firsts, length = list[Floats](), list[int](), 0
    for text in texts:
        logs = table.log_probabilities(text.ids[None, :-1], text.ids[None, 1:])[0]
        sums.append(np.append(0.0, np.cumsum(logs)))
        firsts.append(length)
        length += len(text.ids)
    mean = np.array([(sums[d][e - 1] - sums[d][b - 1]) / (e - b) for d, b, e in spans])
    place = np.array(firsts)[spans[:, 0]] + spans[:, 1]
    chosen = []
    for own, here in zip(mean, place, strict=True):
        far = np.argsort(-np.abs(place - here), kind="stable")[: len(place) // 2]
        chosen.append(far[np.abs(mean[far] - own).argmin()])
    return np.array(chosen)


# ------------------------------------------------------------------ losses


def scored(ks: Sequence[int]) -> list[int]:
    """Where scoring stops and goes on, so that targets with k and k + 1 tokens are scored.

    >>> scored([1, 2, 4, 8, 16])
    [6, 8, 10, 16, 18]
    """
    far = [k for k in ks if k > 4]
    return [6, *(spot for k in far for spot in (k, k + 2))]


@torch.inference_mode()
def costs(model: LanguageModel, places: Sequence[_Place], ks: Sequence[int]) -> Floats:
    """Extra nats of the tokens that have k and k + 1 undisturbed ones before them; nan: none.

    Shapes: -> (conditions, places, ks, 2).
    """
    several = len(CONDITIONS) + 1
    table = np.full((several, len(places), max(ks) + 2), np.nan)
    some = max(1, min(256, MEMORY // (several * row_bytes(model))))
    for first in range(0, len(places), some):
        group = places[first : first + some]
        state = model.initial_state(len(group))
        state = advance(model, [p.before[:-1] for p in group], state)
        read = [np.append(p.before[-1:], p.spans[c]) for c in range(several) for p in group]
        state = take(state, np.tile(np.arange(len(group)), several))
        state = advance(model, [row[:-1] for row in read], state)
        rows = [
            np.append(row[-1:], places[first + i % len(group)].after[: max(ks) + 2])
            for i, row in enumerate(read)
        ]
        for i, nats in enumerate(token_nll(model, rows, state, scored(ks))):
            table[i // len(group), first + i % len(group), : len(nats)] = nats
    apart = zero_noise(table[1:] - table[:1])
    return np.stack([apart[:, :, k : k + 2] for k in ks], axis=2)


Member = Order
