"""Runs + a text with a blank -> how likely each word is in it.

**In:** runs, a text with ``___``, candidates or none; or the held-out items of a grammar.
**Out:** a `ClozeResult`: probabilities of the candidates, or right answers by gap.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmcli.data.corpus import CorpusSpec, load_corpus, read_documents
from lmcli.data.text import TextOptions
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.forced_choice import check_vocabulary, encode_words, normalised, score_words
from lmcli.evaluation.item_accuracy import CONTROL, group_items, item_accuracy
from lmcli.evaluation.state_batches import advance
from lmcli.evaluation.statistics import Floats
from lmcli.grammars.base import Item, find_companions, read_items
from lmcli.models.base import LanguageModel, State
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import LOG_ODDS, PROBABILITY, WHOLE_PERCENT, Column, Result, Table
from lmcli.report.result import text as text_column
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer, warn_unknown

BLANK, PLACE = "___", "..."
FILLERS = 20
"""fillers that a gap is averaged over"""
QUESTIONS = {
    "country": ("does it still know the country? by words between cue and blank", "words"),
    "carry": ("does the carry arrive? by digits that it runs", "digits"),
}
"""kinds of items whose accuracy is shown by gap: the question, and what a gap is counted in"""


@dataclass(frozen=True)
class Cloze:
    """A text around a blank."""

    left: str
    right: str = ""

    @classmethod
    def parse(cls, text: str) -> Cloze:
        """Cut at the one ``___``; anything else is a UsageError."""
        if text.count(BLANK) != 1:
            raise UsageError(
                f"the text has {text.count(BLANK)} blanks ({BLANK}), not one",
                f'for example --text "I grew up in France . I speak fluent {BLANK}"',
            )
        left, _, right = text.partition(BLANK)
        return cls(left, right)

    def with_gap(self, filler: str) -> Cloze:
        """The same with `filler` in the place of ``...``."""
        if PLACE not in self.left:
            raise UsageError(
                f"--gaps needs a place for the filler: no '{PLACE}' before the blank",
                f'for example --text "I grew up in France . {PLACE} I speak fluent {BLANK}"',
            )
        before, _, after = self.left.partition(PLACE)
        middle = f" {filler} " if filler else " "
        return Cloze(before.rstrip(" ") + middle + after.lstrip(" "), self.right)

    def swapped(self, old: str, new: str) -> Cloze:
        """The same with one word replaced by another."""
        if old not in self.left:
            raise UsageError(
                f"--swap {old}={new}: no '{old}' before the blank", "swap a word of the text"
            )
        return Cloze(self.left.replace(old, new), self.right)


def filler_stretches(text: str, words: int, count: int, seed: int) -> list[str]:
    """`count` runs of `words` consecutive words, from random places of a text."""
    if words == 0:
        return [""]
    all_words = text.split()
    if len(all_words) < words:
        raise TextError(
            f"the filler has {len(all_words)} words, a gap of {words} needs more",
            "give a longer --filler text",
        )
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, len(all_words) - words + 1, size=count)
    return [" ".join(all_words[b : b + words]) for b in begins]


# ------------------------------------------------------------------ scores of candidates


def candidate_scores(
    model: LanguageModel, tokenizer: Tokenizer, cloze: Cloze, candidates: Sequence[str]
) -> Floats:
    """ln p of each candidate (and the text right of the blank) given the text left of it."""
    check_vocabulary(tokenizer, candidates, "choose words that occur in the training text")
    right = cloze.right if cloze.right.strip(" ") else ""  # a blank at the end is no word's
    scores: Floats = score_words(model, tokenizer, [cloze.left], [candidates], right)[0]
    return scores


def log_odds(p: Floats) -> Floats:
    """ln p / (1 - p), kept finite."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds


# ------------------------------------------------------------------ the likeliest words


@torch.inference_mode()
def top_words(
    model: LanguageModel, tokenizer: Tokenizer, cloze: Cloze, top: int
) -> list[tuple[str, float]]:
    """The likeliest words in the blank with their probabilities, best first (a beam search)."""
    spelled = tokenizer.spells
    edge, _ = encode_words(tokenizer, cloze.left, ["a"])  # a blank may belong to the word after it
    ids = [tokenizer.start, *tokenizer.encode(cloze.left[:edge]).tolist()]
    state = advance(model, [np.array(ids[:-1])], model.initial_state(1))
    beams: list[tuple[float, list[int], State]] = [(0.0, [], state)]
    probability: dict[str, float] = {}
    for _ in range(24 if spelled else 1):
        grown = []
        for log, word, state in beams:
            logits, new = model(torch.tensor([[word[-1] if word else ids[-1]]]), state)
            logs = logits[0, -1].double().log_softmax(-1)
            best = logs.topk(min(4 * top + 4, len(logs)))
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if token == tokenizer.unknown:
                    continue
                grown.append((log + value, [*word, token], new))
        beams = []
        for log, word, state in heapq.nlargest(4 * top + 4, grown, key=lambda g: g[0]):
            shown, ended = _word(tokenizer, word, spelled)
            if ended and shown:
                probability[shown] = probability.get(shown, 0.0) + math.exp(log)
            elif not ended:
                beams.append((log, word, state))
        enough = sorted(probability.values(), reverse=True)[:top]
        if not beams or (len(enough) == top and math.exp(beams[0][0]) < enough[-1]):
            break
    return sorted(probability.items(), key=lambda pair: -pair[1])[:top]


def _word(tokenizer: Tokenizer, ids: list[int], spelled: bool) -> tuple[str, bool]:
    """The word that tokens spell, and whether it has come to its end."""
    if not spelled:
        return tokenizer.symbol(ids[0]).strip(), True
    text = tokenizer.decode(ids)
    word = text.lstrip(" ")
    end = next((i for i, c in enumerate(word) if not (c.isalnum() or c in "'-")), None)
    return (word if end is None else word[:end]), end is not None or not text.strip(" \ufffd")


# ------------------------------------------------------------------ runs side by side


@dataclass(frozen=True)
class ClozeResult:
    """What each run says to the blank, a row a run and gap."""

    rows: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The object of ``lmcli cloze --json``."""
        return self.result().to_json()

    def result(self) -> Result:
        """A table: a row a run, a column a gap."""
        table = _accuracy_table if "accuracy" in self.rows[0] else _candidate_table
        return Result("cloze", {"rows": self.rows}, [table(self.rows)])


def fill_blank(
    runs: Sequence[Run],
    text: str,
    *,
    candidates: Sequence[str] = (),
    swap: tuple[str, str] | None = None,
    gaps: Sequence[int] | None = None,
    filler: str | None = None,
    top: int = 5,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> ClozeResult:
    """The candidates, or the likeliest words, in the blank of a text.

    With `gaps`, averaged over places of the text `filler` that stand in the place of ``...``.
    """
    blank = Cloze.parse(text)
    if gaps is not None and filler is None:
        raise UsageError("--gaps needs a text to fill them with", "--filler my.txt")
    fillers: dict[int | None, list[str]] = {None: [""]}
    if gaps is not None and filler is not None:
        words = "\n".join(d.text for d in read_documents([filler], TextOptions()))
        fillers = {g: filler_stretches(words, g, FILLERS if g else 1, seed) for g in gaps}
    rows = []
    for run in runs:
        model = run.model()
        unfilled = blank.with_gap("") if PLACE in blank.left and gaps is not None else blank
        warn_unknown(run.tokenizer, unfilled.left.strip(" "), on_progress)
        warn_unknown(run.tokenizer, swap[1] if swap else "", on_progress)
        for gap, some in fillers.items():
            texts = [blank if gap is None else blank.with_gap(f) for f in some]
            found = _candidates(model, run.tokenizer, texts, candidates, swap, top)
            rows.append(
                {"run": str(run.path), "arch": run.record.arch, "gap": gap, "candidates": found}
            )
    return ClozeResult(rows)


def _candidates(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[Cloze],
    candidates: Sequence[str],
    swap: tuple[str, str] | None,
    top: int,
) -> list[dict[str, Any]]:
    """Mean probability of each candidate, best first, and what the swap does to its log-odds."""
    words = list(candidates)
    if not words:
        likeliest = top_words(model, tokenizer, texts[0], top)
        if len(texts) == 1 and not swap:
            return [{"text": w, "probability": p, "log_odds_swap": None} for w, p in likeliest]
        words = [word for word, _ in likeliest]

    def probabilities(cloze: Cloze) -> Floats:
        scores = candidate_scores(model, tokenizer, cloze, words)
        return normalised(scores) if candidates else np.exp(scores)

    real = np.stack([probabilities(t) for t in texts])  # (fillers, candidates)
    moved = [None] * len(words)
    if swap:
        other = np.stack([probabilities(t.swapped(*swap)) for t in texts])
        moved = (log_odds(real) - log_odds(other)).mean(0).tolist()
    columns = zip(words, real.mean(0).tolist(), moved, strict=True)
    rows = [{"text": w, "probability": p, "log_odds_swap": d} for w, p, d in columns]
    return sorted(rows, key=lambda r: -r["probability"])[: len(words) if candidates else top]


def _candidate_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    def line(c: Mapping[str, Any]) -> str:
        shown = f"{c['text']} {PROBABILITY.show(c['probability'])}"
        moved = c["log_odds_swap"]
        return shown if moved is None else f"{shown} ({'+' * (moved >= 0)}{LOG_ODDS.show(moved)})"

    by_run: dict[str, dict[str, Any]] = {}
    for row in rows:
        cell = "\n".join(map(line, row["candidates"]))
        by_run.setdefault(row["run"], {"run": row["run"]})[f"gap{row['gap']}"] = cell
    columns = [Column("run", text_column("run"))]
    for gap in dict.fromkeys(row["gap"] for row in rows):
        heading = "in the blank" if gap is None else f"gap {gap}"
        columns.append(Column(f"gap{gap}", text_column(heading)))
    swapped = any(c["log_odds_swap"] is not None for row in rows for c in row["candidates"])
    note = "in brackets: what the true cue adds to the log-odds, against the swapped one"
    return Table("", columns, list(by_run.values()), note if swapped else "")


# ------------------------------------------------------------------ items of a grammar


def answer_items(
    runs: Sequence[Run],
    items: Path | None = None,
    gaps: Sequence[int] | None = None,
    on_progress: OnProgress = warnings_only,
) -> ClozeResult:
    """Forced choice over held-out items: those beside the text that a run was trained on.

    A run whose text is not that of the items beside it is left out, with a warning.
    """
    rows = []
    for run in runs:
        path = items or items_of(run, on_progress)
        if path is None:
            continue
        model = run.model()
        for group in _by_gap(path, gaps):
            found = item_accuracy(model, run.tokenizer, group)
            low, high = found.interval
            row = {"run": str(run.path), "arch": run.record.arch, "gap": found.gap}
            row |= {"kind": found.kind, "accuracy": found.accuracy, "low": low, "high": high}
            row |= {"count": found.count, "chance": found.chance}
            rows.append(row | {"target_nats": found.target_nats, "candidates": []})
    if not rows:
        raise _no_text(runs[0])
    return ClozeResult(rows)


def items_of(run: Run, on_progress: OnProgress = warnings_only) -> Path | None:
    """The items beside a run's text; None, with a warning, where they belong to another text."""
    warnings: list[Message] = []
    found = find_companions(run.record.corpus["texts"], warnings.append)
    if found.items and found.about and not _text_is_unchanged(run):
        warnings.append(
            Message(f"the text of '{run.path}' has changed: its items are left out", "warning")
        )
        found = find_companions(())
    for warning in warnings:
        on_progress(warning)
    if found.items is None and not warnings:
        raise _no_text(run)
    return found.items


def _text_is_unchanged(run: Run) -> bool:
    """Whether a run's text is what it was trained on; a text that is gone has not changed."""
    with suppress(TextError):
        checksum: str = run.record.corpus["sha256"]
        return load_corpus(CorpusSpec.from_json(run.record.corpus)).sha256 == checksum
    return True


def _no_text(run: Run) -> UsageError:
    return UsageError("no text with a blank", f'lmcli cloze {run.path} --text "... ___"')


def _by_gap(path: Path, gaps: Sequence[int] | None) -> list[list[Item]]:
    """Items by kind and gap: the control first, then what is asked by gap."""
    groups = {
        (kind, gap): items
        for (kind, gap), items in group_items(read_items(path)).items()
        if kind == CONTROL or (kind in QUESTIONS and (not gaps or gap in gaps))
    }
    if not any(kind in QUESTIONS for kind, _ in groups):
        raise TextError(f"'{path}' has no items with these gaps", "leave --gaps out to see which")
    return list(groups.values())


def _accuracy_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    by_run: dict[str, dict[str, Any]] = {}
    chance: dict[str, Any] = {"arch": "chance"}
    for row in rows:
        key = CONTROL if row["kind"] == CONTROL else f"gap{row['gap']}"
        by_run.setdefault(row["run"], {"arch": row["arch"]})[key] = row["accuracy"]
        chance[key] = row["chance"]
    asked = [r for r in rows if r["kind"] in QUESTIONS]
    title, unit = QUESTIONS[asked[0]["kind"]]
    columns = [Column("arch", text_column("model"))]
    columns += [Column(CONTROL, WHOLE_PERCENT, CONTROL)] if CONTROL in chance else []
    gaps = dict.fromkeys(r["gap"] for r in asked)
    columns += [Column(f"gap{g}", WHOLE_PERCENT, f"{g} {unit}") for g in gaps]
    widest = max(r["high"] - r["low"] for r in rows) / 2
    note = (
        f"right answers out of {int(1 / asked[0]['chance'] + 0.5)}, {asked[0]['count']} texts "
        f"a gap (95 % intervals of ± {100 * widest:.0f} points or less)"
    )
    if CONTROL in chance:
        note += "; control: 3 words back, within everyone's reach"
    return Table(title, columns, [*by_run.values(), chance], note)
