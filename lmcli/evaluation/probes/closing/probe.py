"""Does a model know what is still open? The probability of a closer, with and without its opener.

**In:** runs, held-out text with brackets, quotation marks or tags.
**Out:** by gap, the tokens strictly between opener and closer: the gain of the closer.

    D = ln p(closer | text) - ln p(closer | text with another token in place of the opener)

The closer is scored where it stands, by all tokens that hold it. The other token is about as
frequent as the opener and has a letter or a digit, no mark. Causal, hence the same question for
every member: exactly 0 beyond a window or the order of an n-gram.

Control: the same when not the opener is exchanged but a word shortly before it. It is what any
exchange so far back does: for a model that knows nothing of openers D is no larger, and where it
does not see the opener both are 0. (A word between would stand nearer to the closer.) A row counts
as memory of the opener where the lower limits of D and of D - control are above 0.

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
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.closing.cases import (
    FEWEST,
    Case,
    SimilarTokens,
    find_token_pairs,
    ranges,
)
from lmcli.evaluation.probes.closing.pairs import find_pairs
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects, labels
from lmcli.evaluation.probes.sampling import Mean, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, documents, take, token_nll
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State
from lmcli.report.result import COUNT, Column, Figure, Metric, text
from lmcli.settings import setting

WARM = 64
"""tokens read before what is exchanged"""
COUNTED = 200_000
"""tokens in which frequencies are counted, at the most"""
READ = 1 << 21
"""characters in which pairs are looked for, at the most"""
GROUP = 128
"""pairs read side by side"""


@dataclass(frozen=True)
class ClosingSettings:
    """How many pairs, how far apart."""

    pairs: int = setting(100, "random pairs of each range of gaps", least=FEWEST)
    longest: int = setting(1024, "largest gap in tokens", least=1, most=65536)


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
        *interval_columns("control", Metric("", 3), "control"),
        Column("count", COUNT, "pairs"),
    )
    note = (
        "D: nats that a closer loses when its opener is another token; control: when instead a "
        "word just before it is another"
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
        notes = [*result.notes, f"in the text: {kinds}, none within another of its sort"]
        names = labels(subjects)
        for row in (row for row in result.summary if row["merged"]):
            name = names[row["run"]]
            notes.append(f"{name}: {row['merged']} openers are part of a longer token, left out")
        return replace(result, notes=notes)

    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """The same pairs and exchanges for all runs with one tokenizer."""
        tokenizer, texts = subject.tokenizer, _excerpt(data.held_out)
        rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
        similar = SimilarTokens(documents(tokenizer, data.train or texts, COUNTED), tokenizer)
        found, merged, total = find_token_pairs(tokenizer, texts, settings.longest)
        for some in ranges(found, total) if similar.possible else ():
            drawn = np.sort(rng.permutation(len(some.pairs))[: settings.pairs])
            cases = [similar.exchange(some.pairs[k], rng) for k in drawn]
            d, control = gains(subject.model, cases)
            blocks = some.stretches[drawn]
            mean = Mean.of(d, blocks, seed)
            row = subject.row(gap=some.high, gap_from=some.low, chance=0.0, count=mean.count)
            row |= mean.row() | Mean.of(control, blocks, seed).row("control")
            row |= Mean.of(d - control, blocks, seed).row("over_control")
            rows.append(row | {"merged": merged})
        return rows

    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The smallest gap in the last bucket up to which the opener is remembered."""
        known, at_least = leading_run(rows, remembered)
        reach = {"tokens": known[-1]["gap_from"] if known else 0, "at_least": at_least}
        figure = reach_words(reach) if known else "none shown"
        return subject.row(reach=reach, figure=figure, merged=rows[0]["merged"])

    def verdict(self, row: Row) -> str:
        """How long an opener is remembered."""
        if not row["reach"]["tokens"]:
            return f"{row['model']} is not shown to know what is open"
        return f"{row['model']} knows what is open {row['figure']} after its opener"


def remembered(row: Row) -> bool:
    """Whether the opener, and no other word, makes the closer likelier."""
    return bool(row["low"] > 0 and not row["over_control_low"] <= 0)  # nan: without a control


def _excerpt(held_out: Sequence[str]) -> list[str]:
    """The first documents, `READ` characters in all."""
    some, left = list[str](), READ
    for document in held_out:
        some.append(document[:left])
        left -= len(some[-1])
        if not left:
            break
    return some


# ------------------------------------------------------------------ the measurement


@torch.inference_mode()
def gains(model: LanguageModel, cases: Sequence[Case]) -> tuple[Floats, Floats]:
    """D and its control for each pair, nan where there is no control. Shapes: (N,) each."""
    table = np.empty((len(cases), 3))
    for first in range(0, len(cases), GROUP):
        group = cases[first : first + GROUP]
        warm = [c.pair.ids[max(0, c.begin - WARM) : c.begin] for c in group]
        before = advance(model, warm, model.initial_state(len(group)))
        rows = [row for case in group for row in case.rows()]
        state = take(before, np.repeat(np.arange(len(group)), 3))
        closers = np.repeat([case.pair.end - case.pair.closer for case in group], 3)
        nats = closer_nats(model, rows, closers.tolist(), state)
        table[first : first + len(group)] = nats.reshape(-1, 3)
    real, exchanged, control = table.T
    away = zero_noise(control - real)
    away[[case.place is None for case in cases]] = np.nan
    return zero_noise(exchanged - real), away


def closer_nats(
    model: LanguageModel, rows: Sequence[Ids], closers: Sequence[int], state: State
) -> Floats:
    """-ln p of the closer that ends each row, given the states before the rows. Shapes: -> (N,)."""
    cuts = [len(row) - n - 1 for row, n in zip(rows, closers, strict=True)]
    state = advance(model, [row[:cut] for row, cut in zip(rows, cuts, strict=True)], state)
    tails = [row[cut:] for row, cut in zip(rows, cuts, strict=True)]
    return np.array([nats.sum(dtype=np.float64) for nats in token_nll(model, tails, state)])
