"""Recall of what a grammar has hidden in its text: items with known answers, by gap.

**In:** runs, the items that lie beside a grammar's text, the grammar's optimum.
**Out:** a row a run, kind and gap: forced choice, the loss at the target, PPL / PPL*.

The loss is -ln p of the answer among the candidates: 0 is perfect, ln of their number is amnesic;
*retained* is 1 - loss / ln of their number. Half-memory is the largest gap up to which the skill
stays at least one half. A wrong answer is an *intrusion* where it, or what it belongs to, is named
before the blank, else a guess. PPL / PPL* is the run's perplexity over that of the grammar on the
same documents, both per word: it ranks models and hides memory, which shows at the targets only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmcli.evaluation.convergence import measure_learning
from lmcli.evaluation.forced_choice import (
    ItemAccuracy,
    first_unknown,
    group_items,
    item_accuracy,
    main_kind,
)
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    interval_columns,
    leading_run,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects, labels
from lmcli.evaluation.probes.recall.half_memory import HalfMemory
from lmcli.grammars.base import Item, grammar_of, read_items
from lmcli.report.result import COUNT, PERCENT, Column, Figure, Metric, text


class GrammarRecall(Probe):
    """Forced choice over the items beside the text, at most `items` of each kind and gap."""

    name = "recall"
    x = "gap"
    picture = Figure("", (), (), PERCENT, "gap")
    columns = (
        Column("kind", text("kind")),
        Column("gap", COUNT, "gap"),
        *interval_columns("right", PERCENT),
        Column("chance", PERCENT, "chance"),
        Column("order_free", PERCENT, "order-free"),
        Column("target_nats", Metric("nats", 2)),
        Column("retained", Metric("retained", 2)),
        Column("intrusions", PERCENT, "intruded"),
        Column("guesses", PERCENT, "guessed"),
        Column("count", COUNT),
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only a run with all candidates in its vocabulary."""
        assert data.items is not None  # noqa: S101 - `applies` has looked
        groups = group_items(read_items(data.items))
        words = {word for items in groups.values() for item in items for word in item.candidates}
        word = first_unknown(subject.tokenizer, sorted(words))
        return word and f"'{word}' of the items is not in the vocabulary of {subject.name}"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """A row a run, kind and gap; the curve is that of the main kind."""
        assert data.items is not None  # noqa: S101 - `applies` has looked
        groups = group_items(read_items(data.items), settings.items)
        kind = main_kind([kind for kind, _ in groups])
        best = best_perplexity(data)
        rows, summary = list[dict[str, Any]](), []
        for subject in subjects:
            model, tokenizer = subject.model, subject.tokenizer
            answers = {k: item_accuracy(model, tokenizer, group) for k, group in groups.items()}
            own = [_row(subject, groups[k], a, data.about, kind) for k, a in answers.items()]
            share = _over_optimum(subject, data, best)
            rows += [row | {"over_optimum": share} for row in own]
            asked = subject.run, model, tokenizer, groups, answers, data.train
            learning = measure_learning(*asked).to_json()
            summary.append(_summary(subject, own, share, seed) | {"learning": learning})
        notes = _notes(_of_main_kind(rows), zip(labels(subjects).values(), summary, strict=True))
        return self.result(subjects, rows, summary, notes=notes)

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """The curve of the main kind."""
        main = _of_main_kind(rows)
        title = f"right answers by gap: {main[0]['kind']}"
        return [self.curve(subjects, main, title=title, reference=main[0]["chance"])]

    def size(self, row: Row) -> float:
        """Half-memory, then the largest gap above chance."""
        gap = row["half_memory"]["gap"]
        return (0 if gap is None else gap + 1) + 1e-6 * super().size(row)

    def verdict(self, row: Row) -> str:
        """Half-memory, the largest gap above chance; what a run is told that has not learnt."""
        shown = row["accuracy"] is not None
        more = "at least " * row["reach"]["at_least"]
        said = f"above chance up to {more}gap {row['reach']['tokens']:,}" if shown else ""
        if row["half_memory"]["gap"] is not None:
            said = f"half-memory at gap {row['figure']}{'; ' * bool(said)}{said}"
        if remark := row["learning"]["remark"]:
            return f"{row['model']} {remark}{'; ' * bool(said)}{said}"
        return f"{row['model']}: {said or 'not above chance at the smallest gap'}"


def _of_main_kind(rows: Rows) -> list[Row]:
    kind = main_kind([row["kind"] for row in rows])
    return [row for row in rows if row["kind"] == kind]


def _row(
    subject: ProbedModel,
    items: Sequence[Item],
    result: ItemAccuracy,
    about: Mapping[str, Any],
    main: str,
) -> dict[str, Any]:
    low, high = result.interval
    row = subject.row(gap=result.gap, kind=result.kind, value=result.accuracy, low=low, high=high)
    row |= {"count": result.count, "right": result.right, "chance": result.chance}
    nats, half, amnesic = result.target_nats, result.target_half, result.amnesic_nats
    row |= {"target_nats": nats, "target_low": nats - half, "target_high": nats + half}
    row |= {"amnesic_nats": amnesic, "retained": 1 - nats / amnesic}
    row |= {
        "retained_low": 1 - (nats + half) / amnesic,
        "retained_high": 1 - (nats - half) / amnesic,
    }
    free = about.get("order_free", {}) if result.kind == main else {}
    return row | {"order_free": free.get(str(result.gap))} | wrong_answers(items, result, about)


def wrong_answers(
    items: Sequence[Item], result: ItemAccuracy, about: Mapping[str, Any]
) -> dict[str, float | None]:
    """Shares of all answers that are intrusions and guesses; None where facts are not known.

    `intrusions_by_lot` is the share of intrusions if each wrong answer were drawn by lot.
    """
    cues = {answer: cue for cue, answer in about.get("facts", {}).get("pairs", ())}
    if not all(word in cues for item in items for word in item.candidates):
        return dict.fromkeys(("intrusions", "guesses", "intrusions_by_lot"))
    whole = about.get("unit", "words") == "words"
    intrusions, wrong, by_lot = 0, 0, 0.0
    for item, chosen in zip(items, result.chosen, strict=True):
        if chosen != item.answer:
            others = [word for word in item.candidates if word != item.answer]
            named = {
                w
                for w in others
                if is_named(w, item.text, whole) or is_named(cues[w], item.text, whole)
            }
            wrong += 1
            intrusions += chosen in named
            by_lot += len(named) / len(others)
    shares = {"intrusions": intrusions, "guesses": wrong - intrusions, "intrusions_by_lot": by_lot}
    return {name: number / len(items) for name, number in shares.items()}


def is_named(word: str, text: str, whole: bool) -> bool:
    """Whether a text has a word, as a whole one or anywhere."""
    if not whole:
        return word in text
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def best_perplexity(data: ProbeData) -> float | None:
    """The grammar's own perplexity per word of the held-out documents (line ends count).

    Where it did not make them, that of its texts on average; None where it is not known per word.
    """
    known = data.optimum.get("perplexity")
    grammar, tokens = grammar_of(dict(data.about) or None), _words(data)
    if not known or not tokens or grammar is None:
        return known
    lines = [line for document in data.held_out for line in document.splitlines()]
    try:
        nats = -math.fsum(math.fsum(grammar.token_log_probabilities(line)) for line in lines)
    except ValueError:
        return known
    return math.exp(nats / tokens)


def _words(data: ProbeData) -> int:
    return sum(len(d.split()) + d.count("\n") for d in data.held_out)


def _over_optimum(subject: ProbedModel, data: ProbeData, best: float | None) -> float | None:
    """Perplexity per word of the same documents over the best possible one."""
    tokens = _words(data)
    if not best or not tokens:
        return None
    scored = score_documents(subject.model, subject.tokenizer, data.held_out)
    nats = math.fsum(float(s.nats.sum(dtype=np.float64)) for s in scored)
    return math.exp(min(700.0, nats / tokens)) / best


def _summary(
    subject: ProbedModel, rows: Sequence[dict[str, Any]], share: float | None, seed: int
) -> dict[str, Any]:
    """Half-memory, and the largest gap up to which every lower limit is above chance."""
    mine = sorted(_of_main_kind(rows), key=lambda r: int(r["gap"]))
    gaps, right, counts, chances = (
        [r[n] for r in mine] for n in ("gap", "right", "count", "chance")
    )
    half = HalfMemory.of(gaps, [right], counts, chances, seed)
    above, at_least = leading_run(mine, lambda r: r["low"] > r["chance"])
    reach = {"tokens": above[-1]["gap"] if above else 0, "at_least": at_least}
    accuracy = above[-1]["value"] if above else None
    row = subject.row(
        reach=reach, half_memory=half.to_json(), kind=mine[0]["kind"], accuracy=accuracy
    )
    return row | {"over_optimum": share, "figure": str(half)}


def _notes(main: Sequence[Row], named: Iterable[tuple[str, Row]]) -> list[str]:
    kind, amnesic = main[0]["kind"], main[0]["amnesic_nats"]
    notes = [
        f"nats of the answer: 0 is perfect, {amnesic:.2f} is amnesic ({kind}); retained: 1 and 0"
    ]
    if any(row["intrusions"] is not None for row in main):
        notes.append("wrong answers: intruded, named before the blank; guessed, not named there")
    if any(row["order_free"] is not None for row in main):
        notes.append("order-free: a reader who takes what is named most often")
    shares = [f"{name} {row['over_optimum']:.3f}" for name, row in named if row["over_optimum"]]
    return notes + ([f"PPL/PPL*: {', '.join(shares)}"] if shares else [])
