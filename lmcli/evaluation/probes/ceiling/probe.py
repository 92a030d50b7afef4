"""The memory that a text itself rewards, measured without a model.

**In:** runs, for their tokenizers and splits; their training text and a held-out one.
**Out:** for words, U(c): nats a token that caches of the last c words gain over an n-gram, with
intervals; for symbols that words are spelt of, the mutual information of two of them d apart.

U(c) = mean over held-out tokens of [ln mix(c) - ln KN], minus the same of words from elsewhere: see
`caches`. It is what this family of codes can use (the V-information of Xu et al. 2020), so a net
may gain more; that is the net's merit. Where a grammar has put items beside the text, the past
decides their answers, and what the n-gram loses there is shown too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmcli.evaluation.forced_choice import encode_words, first_unknown, group_items, main_kind
from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    bucket_name,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.ceiling.caches import edges, worth
from lmcli.evaluation.probes.ceiling.mutual_information import by_distance
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.sampling import Mean, stretches
from lmcli.evaluation.state_batches import Ids, documents
from lmcli.evaluation.statistics import Floats, half_width
from lmcli.grammars.base import read_items
from lmcli.models.ngram.kneser_ney import KneserNey
from lmcli.report.result import COUNT, Column, Figure, Metric, Point, Series, text
from lmcli.settings import setting
from lmcli.tokenizers.base import Tokenizer

ORDER = 5
"""of the n-gram"""
FEW_SYMBOLS = 512
"""up to which pairs of spelling symbols can be counted"""
SYMBOLS = {"char": "characters", "byte": "bytes"}
LEAST = 400
"""held-out tokens"""
LITTLE = 0.05
"""of the whole gain; a memory that adds less is not counted"""
ITEMS = 50
"""of each gap, at the most"""
SHORTEST = 64
"""tokens of a stretch, at the least"""


@dataclass(frozen=True)
class CeilingSettings:
    """How much text, and how far back."""

    tokens: int = setting(1_000_000, "training tokens that are counted, at the most", least=1000)
    held_out: int = setting(100_000, "held-out tokens, at the most", least=LEAST)
    longest: int = setting(2048, "farthest word, or distance of two symbols", least=8, most=65536)


class Ceiling(Probe):
    """One measurement for each tokenizer, whatever the models."""

    name = "ceiling"
    Settings = CeilingSettings
    x = "context"
    is_of_text = True
    picture = Figure(
        "what the text rewards: nats a token that words of the past gain over an n-gram", (), (),
        Metric("nats", 4), "up to N tokens back",
        read=(
            "This is about the text, not about a model: a point says how much better the next "
            "token can be guessed when words up to N tokens back are known too. Where the line no "
            "longer rises, longer memory has little to gain."
        ),
        caution=(
            "It counts words that return. A text may reward memory that no word which returns can "
            "show."
        ),
    )  # fmt: skip
    symbols_picture = Figure(
        "what the text rewards: nats that a symbol tells of one further on", (), (),
        Metric("nats", 0, "power"), "N symbols apart", scale="log",
        read=(
            "This is about the text, not about a model: a point says how many nats one symbol "
            "tells of another that is N symbols further on, on a logarithmic scale."
        ),
        caution=(
            "Pairs of symbols show only a part of what a long context tells; the line is a lower "
            "bound."
        ),
    )  # fmt: skip
    columns = (
        Column("tokenizer", text("tokens")),
        Column("bucket", text("back")),
        *interval_columns("gain", Metric("", 4)),
        Column("null", Metric("elsewhere", 4)),
        Column("chance", Metric("chance", 5)),
        Column("rest", Metric("beyond", 4)),
        Column("count", COUNT),
    )
    note = (
        "gain: nats a token, words from elsewhere subtracted; beyond: what still more words would "
        "add; a text may reward memory that no word which returns can show"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only where there is a training text to count."""
        return None if data.train else "the training text, which ceiling counts, is not at hand"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Rows of the first run with each tokenizer; a summary of every run."""
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for k, subject in enumerate(subjects):
            mine = subject.tokenizer.to_json()
            same = [s for s in summary[:k] if s["same"] == mine]
            if same:
                summary.append({**same[0], **subject.row()})
                continue
            own, about = measure(subject, data, settings, seed)
            rows += own
            summary.append({**about, "same": mine})
        summary = [{k: v for k, v in row.items() if k != "same"} for row in summary]
        said = "; ".join(dict.fromkeys(row["sentence"] for row in summary))
        table = [row | {"bucket": _distance(row)} for row in rows]
        notes = [self.note]
        result = ProbeResult(self.name, rows, said, summary, self.columns, table, notes=notes)
        middle = self.middle(subjects, summary)
        return replace(result, figures=self._figures(rows), middle=middle)

    def _figures(self, rows: Rows) -> list[Figure]:
        """A picture for words and one for symbols; a series for each tokenizer."""
        figures = []
        for x, picture in (("context", self.picture), ("lag", self.symbols_picture)):
            some = [row for row in rows if x in row]
            ticks = sorted({row[x] for row in some})
            names = dict.fromkeys((row["run"], row["tokenizer"]) for row in some)
            series = []
            for run, name in names:
                at = {row[x]: row for row in some if row["run"] == run}
                cells: list[Row] = [at.get(tick, {}) for tick in ticks]
                points = [Point(c.get("value"), c.get("low"), c.get("high")) for c in cells]
                series.append(Series(name, points))
            if series:
                figures.append(replace(picture, ticks=[*map(str, ticks)], series=series))
        return figures


def _distance(row: Row) -> str:
    """The tokens that a row adds, or their distance."""
    if "lag" in row:
        return str(row["lag"])
    return bucket_name(row["context_from"], row["context"])


def measure(
    subject: ProbedModel, data: ProbeData, settings: Any, seed: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a tokenizer, and what they come to."""
    tokenizer = subject.tokenizer
    train = documents(tokenizer, data.train, settings.tokens)
    held_out = documents(tokenizer, data.held_out, settings.held_out)
    held_out = [d for d in held_out if len(d) > 1]
    if sum(map(len, held_out)) < LEAST:
        said = "the held-out text is too short to tell what memory it rewards"
        return [], subject.row(reach=None, figure="too short", sentence=said)
    head = subject.row(tokenizer=tokenizer.name)
    if tokenizer.spells and tokenizer.size <= FEW_SYMBOLS:
        lags = [1 << k for k in range(settings.longest.bit_length())]
        rows = [head | row for row in by_distance([*train, *held_out], tokenizer.size, lags, seed)]
        return rows, head | _symbols(rows, SYMBOLS.get(tokenizer.name, "tokens"))
    rows, about = measure_words(tokenizer, train, held_out, data, settings.longest, seed)
    return [head | row for row in rows], head | about


# ------------------------------------------------------------------ words


def measure_words(
    tokenizer: Tokenizer,
    train: Sequence[Ids],
    held_out: Sequence[Ids],
    data: ProbeData,
    longest: int,
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """U(c) by the upper ends of the octaves, and what it comes to."""
    table = KneserNey.estimate(np.concatenate(train), tokenizer.size, ORDER)
    gained, null = worth(table, held_out, longest, tokenizer.unknown, seed)
    rows = _curve(gained, null, edges(longest), seed)
    return rows, _words(rows, at_answers(table, tokenizer, data))


def _curve(gained: Floats, null: Floats, upper: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """U(c) and what comes beyond, with intervals over stretches of the held-out text."""
    count, net = len(gained), gained - null
    stretch = stretches(np.arange(count), count, SHORTEST)
    rows = []
    for k, edge in enumerate(upper):
        row = {"context": edge, "context_from": upper[k - 1] + 1 if k else 1, "chance": 0.0}
        row |= Mean.of(net[:, k], stretch, seed).row()
        row |= {"null": float(null[:, k].mean()), "count": count}
        rows.append(row | Mean.of(net[:, -1] - net[:, k], stretch, seed).row("rest"))
    return rows


def _words(rows: Rows, answers: Row | None) -> dict[str, Any]:
    """How much in all, up to which word, and at the answers of items.

    The text rewards a memory of the fewest words beyond which 0 is in the interval of what more
    words add, or beyond which no more than a twentieth of it is to be had.
    """
    last = rows[-1]
    whole = {k: last[k] for k in ("value", "low", "high")}
    little = LITTLE * last["value"]
    within = next(r for r in rows if r is last or r["rest_low"] <= 0 or r["rest"] <= little)
    none = last["low"] <= 0
    reach = {"tokens": 0 if none else within["context"], "at_least": not none and within is last}
    value, low, high = (Metric("", 3).show(number) for number in whole.values())
    shown = f"{value} nats a token ({low} to {high})"
    if none:
        said = f"words that return reward no memory beyond an n-gram of order {ORDER}: {shown}"
        figure = "none shown"
    else:
        figure = f"{value} nats, up to {reach_words(reach)}"
        said = f"words that return reward a memory of up to {reach_words(reach)}"
        said += f": {shown} beyond an n-gram of order {ORDER}"
    if answers:
        said += "; at the answers of the items beside the text, which the past decides, "
        said += f"it is worth {answers['value']:.2f} nats"
    about = {"worth": whole, "reach": reach, "answers": answers}
    return about | {"figure": figure, "sentence": said}


def at_answers(table: KneserNey, tokenizer: Tokenizer, data: ProbeData) -> dict[str, Any] | None:
    """What the n-gram loses at answers further from their cue than it can see; None without items.

    The loss is -ln of the answer's share among the candidates; with the past it could be 0.
    """
    groups = group_items(read_items(data.items), ITEMS) if data.items else {}
    kind = main_kind([kind for kind, _ in groups]) if groups else ""
    far = [i for (k, gap), some in groups.items() if k == kind and gap >= ORDER - 1 for i in some]
    candidates = {word for item in far for word in item.candidates}
    if not far or first_unknown(tokenizer, sorted(candidates)):
        return None
    read, choices = list[Ids](), list[list[list[int]]]()
    for item in far:
        edge, words = encode_words(tokenizer, item.text, item.candidates)
        before = np.concatenate([[tokenizer.start] * ORDER, tokenizer.encode(item.text[:edge])])
        read.append(before[1 - ORDER :])
        choices.append(words)
    if any(len(word) != 1 for words in choices for word in words):
        return None
    p = table.distributions(np.stack(read), 1)[:, 0]  # (items, V)
    nats = []
    for row, item, words in zip(p, far, choices, strict=True):
        among = row[[word[0] for word in words]]
        nats.append(-np.log(among[item.candidates.index(item.answer)] / among.sum()))
    losses = np.array(nats)
    mean, half = float(losses.mean()), float(half_width(losses[:, None])[0])
    return {"value": mean, "low": mean - half, "high": mean + half, "count": len(losses)}


# ------------------------------------------------------------------ symbols


def _symbols(rows: Rows, unit: str) -> dict[str, Any]:
    """Up to which distance a symbol tells more of another than shifted ones do."""
    told, at_least = leading_run(rows, lambda row: row["value"] > row["chance"] and row["low"] > 0)
    reach = {"tokens": told[-1]["lag"] if told else 0, "at_least": at_least}
    figure = f"up to {reach_words(reach)}".replace("tokens", unit) if told else "none shown"
    far = figure.replace(f" {unit}", "")
    said = f"{unit} {far} apart tell of each other" if told else f"no {unit} tell of each other"
    return {"reach": reach, "figure": figure, "sentence": said}
