"""Does a model know what is still open? The probability of a closer, with and without its opener.

**In:** runs, held-out text with brackets, quotation marks or tags.
**Out:** by gap, the tokens strictly between opener and closer: the gain of the closer.

    D = ln p(closer | text) - ln p(closer | text with another token in place of the opener)

The closer is scored where it stands, by all tokens that hold it. The other token is about as
frequent as the opener and has a letter or a digit, no mark. Causal, hence the same question for
every member: exactly 0 beyond a window or the order of an n-gram.

Control: D when a word of the text between is exchanged and not the opener, at a random place of
the half next to the opener. It is what any exchange so far back does; a model that knows nothing of
openers has D equal to it on average, and both are 0 where the model sees neither. A row counts as
memory of the opener where the lower limits of D and of D - control are above 0.

After Linzen, Dupoux and Goldberg (2016), who ask the same of subject and verb; Karpathy, Johnson
and Li (2015) found units that are on inside quotes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lmcli.evaluation.probes.base import (
    CurveProbe,
    ProbeResult,
    Row,
    Rows,
    bucket_bound,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.closing.pairs import MARKS, Pair, find_pairs
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.sampling import Mean, stretches, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, documents, take, token_nll
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel
from lmcli.report.result import COUNT, Column, Figure, Metric, text
from lmcli.settings import setting
from lmcli.tokenizers.base import Offsets, Tokenizer

WARM = 64
"""tokens read before the opener"""
SIMILAR = 8
"""of the tokens with a letter or a digit those nearest in frequency, from which one is drawn"""
COUNTED = 200_000
"""tokens in which frequencies are counted, at the most"""
READ = 1 << 21
"""characters in which pairs are looked for, at the most"""
GROUP = 128
"""pairs read side by side"""
FEWEST, FEWEST_STRETCHES = 20, 8
"""pairs of a gap, and stretches of text that they come from; fewer are not shown"""


@dataclass(frozen=True)
class ClosingSettings:
    """How many pairs, how far apart."""

    pairs: int = setting(100, "random pairs of each gap", least=FEWEST)
    longest: int = setting(1024, "largest gap in tokens", least=1, most=65536)


@dataclass(frozen=True)
class Case:
    """A pair in tokens, and what is exchanged."""

    ids: Ids
    """of the document"""
    opener: int
    between: int
    """the first token after the opener"""
    closer: int
    end: int
    """the first token after the closer"""
    others: Ids
    """in place of those of the opener"""
    control: tuple[int, int] | None
    """the place of another token and what comes in its place; None where there is none"""
    stretch: int

    @property
    def gap(self) -> int:
        """Tokens strictly between."""
        return self.closer - self.between


class Closing(CurveProbe):
    """What the opener adds to the probability of its closer, by gap."""

    name = "closing"
    Settings = ClosingSettings
    x = "gap"
    picture = Figure(
        "what the opener adds to ln p of its closer, by tokens between", (), (),
        Metric("nats", 1), "tokens between", 0.0,
    )  # fmt: skip
    columns = (
        Column("bucket", text("gap")),
        *interval_columns("D", Metric("", 3)),
        Column("control", Metric("control", 3)),
        Column("control_low", Metric("from", 3)),
        Column("control_high", Metric("to", 3)),
        Column("count", COUNT, "pairs"),
    )
    note = (
        "D: nats that a closer loses when its opener is another token; control: when a word "
        "between is another"
    )
    too_short = "too few brackets, quotation marks and tags at any one gap"

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only to a text with enough pairs."""
        count = sum(len(find_pairs(document)) for document in _excerpt(data.held_out))
        if count >= FEWEST:
            return None
        return f"pairs of brackets, quotation marks or tags: {count}, too few for closing"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Beside the curves a note on what was found in the text."""
        result = super().run(subjects, data, settings, seed)
        found = Counter(p.kind for d in _excerpt(data.held_out) for p in find_pairs(d))
        kinds = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in sorted(found.items()))
        return replace(result, notes=[*result.notes, f"in the text: {kinds}"])

    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """The same pairs and exchanges for all runs with one tokenizer."""
        cases = find_cases(subject.tokenizer, data, settings, np.random.default_rng(seed))
        d, control = gains(subject.model, cases)
        blocks = np.array([case.stretch for case in cases])
        edges = np.array([bucket_bound(case.gap) for case in cases])
        rows = []
        for edge in np.unique(edges):
            mine = edges == edge
            mean = Mean.of(d[mine], blocks[mine], seed)
            row = subject.row(gap=int(edge), gap_from=int(edge) // 2 + 1, chance=0.0)
            row |= {"count": mean.count, **mean.row()}
            row |= Mean.of(control[mine], blocks[mine], seed).row("control")
            row |= Mean.of((d - control)[mine], blocks[mine], seed).row("over_control")
            rows.append(row)
        return rows

    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The smallest gap in the last bucket up to which the opener is remembered."""
        known, at_least = leading_run(rows, remembered)
        reach = {"tokens": known[-1]["gap_from"] if known else 0, "at_least": at_least}
        return subject.row(reach=reach, figure=reach_words(reach) if known else "none shown")

    def verdict(self, row: Row) -> str:
        """How long an opener is remembered."""
        if not row["reach"]["tokens"]:
            return f"{row['model']} is not shown to know what is open"
        return f"{row['model']} knows what is open {row['figure']} after its opener"


def remembered(row: Row) -> bool:
    """Whether the opener, and no other word, makes the closer likelier."""
    return bool(row["low"] > 0 and not row["over_control_low"] <= 0)  # nan: without a control


# ------------------------------------------------------------------ pairs in tokens


def _excerpt(held_out: Sequence[str]) -> list[str]:
    """The first documents, `READ` characters in all."""
    some, left = list[str](), READ
    for document in held_out:
        some.append(document[:left])
        left -= len(some[-1])
        if not left:
            break
    return some


def find_cases(
    tokenizer: Tokenizer, data: ProbeData, settings: Any, rng: np.random.Generator
) -> list[Case]:
    """At most `pairs` random pairs of each bucket of gaps that has enough."""
    counted = documents(tokenizer, data.train or data.held_out, COUNTED)
    similar = SimilarTokens(counted, tokenizer)
    if len(similar.pool) < 2:
        return []
    found: dict[int, list[tuple[Ids, tuple[int, ...], int]]] = {}
    before = 0
    for document in _excerpt(data.held_out):
        encoded = tokenizer.encode_with_ends(document)
        ids = np.concatenate([[tokenizer.start], encoded.ids]).astype(np.int64)
        for pair in find_pairs(document):
            spans = _token_spans(document, pair, encoded.ends)
            if spans is None or not 1 <= spans[2] - spans[1] <= settings.longest:
                continue
            known = ids[[*range(*spans[:2]), *range(*spans[2:])]]
            if tokenizer.unknown not in known:
                bound = bucket_bound(spans[2] - spans[1])
                found.setdefault(bound, []).append((ids, spans, before + spans[0]))
        before += len(ids)
    cases = list[Case]()
    for _, some in sorted(found.items()):
        drawn = np.sort(rng.permutation(len(some))[: settings.pairs])
        blocks = stretches(np.array([some[k][2] for k in drawn]), before)
        if len(drawn) >= FEWEST and len(np.unique(blocks)) >= FEWEST_STRETCHES:
            for k, block in zip(drawn, blocks, strict=True):
                ids, spans, _ = some[k]
                cases.append(similar.case(ids, spans, int(block), rng))
    return cases


def _token_spans(document: str, pair: Pair, ends: Offsets) -> tuple[int, int, int, int] | None:
    """First tokens of the opener, after it, of the closer and after it; 0 is the start id.

    None where a token holds more than the opener and blanks.
    """
    begin, after = _tokens(ends, *pair.opener)
    edge = int(ends[begin - 1]) if begin else 0
    if document[edge : int(ends[after - 1])].strip() != document[slice(*pair.opener)]:
        return None
    first, end = _tokens(ends, *pair.closer)
    return begin + 1, after + 1, first + 1, end + 1


def _tokens(ends: Offsets, begin: int, end: int) -> tuple[int, int]:
    """The tokens that hold some characters; those without characters belong to what follows."""
    first = int(np.searchsorted(ends, begin)) if begin else 0
    if begin and ends[first] == begin:
        first += 1
    return first, int(np.searchsorted(ends, end)) + 1


class SimilarTokens:
    """Tokens that are about as frequent as another, have a letter or a digit, and no mark."""

    def __init__(self, counted: Sequence[Ids], tokenizer: Tokenizer) -> None:
        counts = np.bincount(np.concatenate(counted), minlength=tokenizer.size + 1)
        texts = [tokenizer.decode([i]) for i in range(tokenizer.size)]
        self.words = np.array([any(map(str.isalnum, t)) and not MARKS & {*t} for t in texts])
        self.logs = np.log(np.maximum(counts[:-1], 1))
        some = np.flatnonzero(self.words & (counts[:-1] > 0))
        self.pool = some[np.argsort(self.logs[some], kind="stable")]
        """the least frequent first"""

    def draw(self, token: int, rng: np.random.Generator) -> int:
        """One of the nearest in frequency."""
        middle = int(np.searchsorted(self.logs[self.pool], self.logs[token]))
        near = self.pool[max(0, middle - SIMILAR) : middle + SIMILAR + 1]
        near = near[near != token]
        apart = np.abs(self.logs[near] - self.logs[token])
        return int(rng.choice(near[np.argsort(apart, kind="stable")[:SIMILAR]]))

    def case(
        self, ids: Ids, spans: tuple[int, ...], stretch: int, rng: np.random.Generator
    ) -> Case:
        """A pair with what is exchanged in it."""
        opener, between, closer, end = spans
        others = np.array([self.draw(int(i), rng) for i in ids[opener:between]])
        half = ids[between : between + (closer - between + 1) // 2]
        places = np.flatnonzero(self.words[half])
        control = None
        if len(places):
            place = between + int(rng.choice(places))
            control = place, self.draw(int(ids[place]), rng)
        return Case(ids, opener, between, closer, end, others, control, stretch)


# ------------------------------------------------------------------ the measurement


@torch.inference_mode()
def gains(model: LanguageModel, cases: Sequence[Case]) -> tuple[Floats, Floats]:
    """D and its control for each pair, nan where there is no control. Shapes: (N,) each."""
    d, control = np.full((2, len(cases)), np.nan)
    for first in range(0, len(cases), GROUP):
        group = cases[first : first + GROUP]
        begins = [max(0, case.opener - WARM) for case in group]
        warm = [case.ids[b : case.opener] for case, b in zip(group, begins, strict=True)]
        state = advance(model, warm, model.initial_state(len(group)))
        real = [case.ids[case.opener : case.end] for case in group]
        exchanged = [
            np.concatenate([case.others, case.ids[case.between : case.end]]) for case in group
        ]
        elsewhere = {}
        for k, case in enumerate(group):
            if case.control:
                place, token = case.control
                elsewhere[k] = real[k].copy()
                elsewhere[k][place - case.opener] = token
        whose = [*range(len(group)), *range(len(group)), *elsewhere]
        closers = [group[k].end - group[k].closer for k in whose]
        rows = [*real, *exchanged, *elsewhere.values()]
        nats = closer_nats(model, rows, closers, take(state, whose))
        own, other, away = np.split(nats, [len(group), 2 * len(group)])
        d[first : first + len(group)] = zero_noise(other - own)
        some = [*elsewhere]
        control[[first + k for k in some]] = zero_noise(away - own[some])
    return d, control


def closer_nats(
    model: LanguageModel, rows: Sequence[Ids], closers: Sequence[int], state: Any
) -> Floats:
    """-ln p of the closer that ends each row, given the states before the rows. Shapes: -> (N,)."""
    cuts = [len(row) - n - 1 for row, n in zip(rows, closers, strict=True)]
    state = advance(model, [row[:cut] for row, cut in zip(rows, cuts, strict=True)], state)
    tails = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
    return np.array([nats.sum(dtype=np.float64) for nats in token_nll(model, tails, state)])
