"""Runs + held-out items -> how often each knows the answer, by the gap between cue and answer.

**In:** runs, items with known answers: those beside the text that a run was trained on.
**Out:** `ItemAnswers`: right answers by gap, and which runs have not learnt the task; this is what
``lmcli cloze RUN`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.data.corpus import load_corpus, recorded_spec, reopen_corpus
from lmcli.data.files import is_special
from lmcli.errors import LmcliError, TextError, UsageError
from lmcli.evaluation.convergence import measure_learning, nearest_groups
from lmcli.evaluation.forced_choice import (
    CONTROL,
    ItemAccuracy,
    group_items,
    item_accuracy,
    main_kind,
)
from lmcli.grammars.base import Item, find_companions, read_items
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import WHOLE_PERCENT, Block, Column, Passage, Reportable, Result, Table
from lmcli.report.result import text as text_column
from lmcli.run import Run

QUESTIONS = {
    "country": ("does it still know the country? by words between cue and blank", "words"),
    "carry": ("does the carry arrive? by digits that it runs", "digits"),
    "closer": ("is the bracket still open? by characters since it opened", "characters"),
}
"""kinds of items whose accuracy stands by gap: the question, and what a gap is counted in"""


@dataclass(frozen=True)
class ItemAnswers(Reportable):
    """How often each run is right, a row a run and group of items."""

    rows: Sequence[Mapping[str, Any]]
    learning: Sequence[Mapping[str, Any]]
    """whether each run has learnt the task at all"""

    def result(self) -> Result:
        """A table: a row a run, a column a gap; a sentence on each run that has not learnt."""
        archs = [one["arch"] for one in self.learning]
        blocks: list[Block] = [_accuracy_table(self.rows)]
        for one in (one for one in self.learning if one["remark"]):
            name = one["arch"] if archs.count(one["arch"]) == 1 else one["run"]
            blocks.append(Passage(f"{name} {one['remark']}"))
        return Result("cloze", {"rows": self.rows, "learning": self.learning}, blocks)


def answer_items(
    runs: Sequence[Run],
    items: Path | None = None,
    gaps: Sequence[int] | None = None,
    on_progress: OnProgress = warnings_only,
) -> ItemAnswers:
    """Forced choice over held-out items: those beside the text that a run was trained on.

    A run whose text is not that of the items beside it is left out, with a warning.
    """
    rows, learning = list[dict[str, Any]](), list[dict[str, Any]]()
    for run in runs:
        path = items or items_of(run, on_progress)
        if path is None:
            continue
        model, tokenizer, groups = run.model(), run.tokenizer, _groups(path)
        asked = [key for key in groups if not gaps or key[0] == CONTROL or key[1] in gaps]
        if all(kind == CONTROL for kind, _ in asked):
            raise TextError(
                f"'{path}' has no items with these gaps", "leave --gaps out to see which"
            )
        keys = dict.fromkeys([*asked, *nearest_groups(groups)])
        answers = {key: item_accuracy(model, tokenizer, groups[key]) for key in keys}
        named = {"run": str(run.path), "arch": run.record.arch}
        rows += [named | _row(answers[key]) for key in asked]
        known = run, model, tokenizer, groups, answers, _training_documents(run)
        learning.append(named | measure_learning(*known).to_json())
    if not rows:
        raise _no_text(runs[0])
    return ItemAnswers(rows, learning)


def _row(answer: ItemAccuracy) -> dict[str, Any]:
    low, high = answer.interval
    row = {"gap": answer.gap, "kind": answer.kind, "accuracy": answer.accuracy}
    row |= {"low": low, "high": high, "count": answer.count, "chance": answer.chance}
    return row | {"target_nats": answer.target_nats, "candidates": []}


def _training_documents(run: Run) -> Sequence[str]:
    """Those that the run was trained on, none where they are not at hand."""
    with suppress(LmcliError):
        return reopen_corpus(run.record.corpus, run.path, (), lambda event: None).train.documents
    return ()


def items_of(run: Run, on_progress: OnProgress = warnings_only) -> Path | None:
    """The items beside a run's text; None, with a warning, where they belong to another text."""
    warnings: list[Message] = []
    beside = find_companions(recorded_spec(run.record.corpus, run.path).texts, warnings.append)
    if beside.items and beside.about and not _text_is_unchanged(run):
        problem = f"the text of '{run.path}' has changed: its items are left out"
        warnings.append(Message(problem, "warning"))
        beside = find_companions(())
    for warning in warnings:
        on_progress(warning)
    if beside.items is None and not warnings:
        raise _no_text(run)
    return beside.items


def _text_is_unchanged(run: Run) -> bool:
    """Whether a run's text is what it was trained on; a text that is gone has not changed."""
    spec = recorded_spec(run.record.corpus, run.path)
    if any(map(is_special, (*spec.texts, *spec.valid, *spec.test))):
        return True  # addresses are opened only if the user names them
    with suppress(TextError):
        checksum: str = run.record.corpus["sha256"]
        return load_corpus(spec).spec.sha256 == checksum
    return True


def _no_text(run: Run) -> UsageError:
    return UsageError("no text with a blank", f'lmcli cloze {run.path} --text "... ___"')


def _groups(path: Path) -> dict[tuple[str, int], list[Item]]:
    """Items by kind and gap: the control, and the kinds of `QUESTIONS` or else the main kind."""
    groups = group_items(read_items(path))
    kinds = [kind for kind, _ in groups]
    shown = {CONTROL} | (set(kinds) & set(QUESTIONS) or {main_kind(kinds)})
    return {key: some for key, some in groups.items() if key[0] in shown}


def _accuracy_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    by_run: dict[str, dict[str, Any]] = {}
    chance: dict[str, Any] = {"arch": "chance"}
    for row in rows:
        key = CONTROL if row["kind"] == CONTROL else f"gap{row['gap']}"
        by_run.setdefault(row["run"], {"arch": row["arch"]})[key] = row["accuracy"]
        chance[key] = row["chance"]
    by_gap = [r for r in rows if r["kind"] != CONTROL]
    kind = by_gap[0]["kind"]
    title, unit = QUESTIONS.get(kind, (f"right answers by gap: {kind}", "words"))
    headings = {CONTROL: CONTROL} if CONTROL in chance else {}
    headings |= {f"gap{r['gap']}": f"{r['gap']} {unit}" for r in by_gap}
    columns = [Column(path, WHOLE_PERCENT, heading) for path, heading in headings.items()]
    columns.insert(0, Column("arch", text_column("model")))
    widest = max(r["high"] - r["low"] for r in rows) / 2
    note = (
        f"right answers out of {int(1 / by_gap[0]['chance'] + 0.5)}, {by_gap[0]['count']} texts "
        f"a gap (95 % intervals of ± {100 * widest:.0f} points or less)"
    )
    if CONTROL in chance:
        nearest = next(row["gap"] for row in rows if row["kind"] == CONTROL)
        note += f"; control: {nearest} words back"
    return Table(title, columns, [*by_run.values(), chance], note)
