"""Runs + a text with a blank -> how likely each word is in it.

**In:** runs, a text with ``___``, candidates or none.
**Out:** a `ClozeResult`: probabilities of the candidates. Held-out items: `item_answers`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmcli.data.corpus import read_documents
from lmcli.data.text import TextOptions
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.forced_choice import (
    check_vocabulary,
    encode_words,
    normalised,
    score_words,
)
from lmcli.evaluation.state_batches import advance
from lmcli.evaluation.statistics import Floats
from lmcli.evaluation.text_evidence import note_rare_words
from lmcli.models.base import LanguageModel, State
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.report.result import LOG_ODDS, PROBABILITY, Column, Result, Table
from lmcli.report.result import text as text_column
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer, warn_unknown

BLANK, PLACE = "___", "..."
FILLERS = 20
"""fillers that a gap is averaged over"""


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


def random_fillers(text: str, words: int, count: int, seed: int) -> list[str]:
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
    """ln p / (1 - p), finite also for 0 and 1."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds


# ------------------------------------------------------------------ the likeliest words


@torch.inference_mode()
def top_words(
    model: LanguageModel, tokenizer: Tokenizer, cloze: Cloze, top: int
) -> list[tuple[str, float]]:
    """The likeliest words in the blank with their probabilities, best first (a beam search)."""
    edge, _ = encode_words(tokenizer, cloze.left, ["a"])  # a blank may belong to the word after it
    ids = [tokenizer.start, *tokenizer.encode(cloze.left[:edge]).tolist()]
    state = advance(model, [np.array(ids[:-1])], model.initial_state(1))
    beams: list[tuple[float, list[int], State]] = [(0.0, [], state)]
    width, probability = 4 * top + 4, dict[str, float]()
    for _ in range(24 if tokenizer.spells else 1):
        grown = []
        for log, word, state in beams:
            logits, after = model(torch.tensor([[word[-1] if word else ids[-1]]]), state)
            logs = logits[0, -1].double().log_softmax(-1)
            best = logs.topk(min(width, len(logs)))
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if token != tokenizer.unknown:
                    grown.append((log + value, [*word, token], after))
        beams = []
        for log, word, state in heapq.nlargest(width, grown, key=lambda g: g[0]):
            text, ended = _word(tokenizer, word)
            if ended and text:
                probability[text] = probability.get(text, 0.0) + math.exp(log)
            elif not ended:
                beams.append((log, word, state))
        enough = sorted(probability.values(), reverse=True)[:top]
        if not beams or (len(enough) == top and math.exp(beams[0][0]) < enough[-1]):
            break
    return sorted(probability.items(), key=lambda pair: -pair[1])[:top]


def _word(tokenizer: Tokenizer, ids: list[int]) -> tuple[str, bool]:
    """The word that tokens spell, and whether it has come to its end."""
    if not tokenizer.spells:
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
        return Result("cloze", {"rows": self.rows}, [_candidate_table(self.rows)])


def whole_numbers(gaps: str | Sequence[int] | None) -> list[int] | None:
    """Gaps as numbers; they may be given in one text, separated by commas."""
    if gaps is None:
        return None
    try:
        numbers = [int(g) for g in (gaps.split(",") if isinstance(gaps, str) else gaps)]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise UsageError(f"--gaps {gaps}: not whole numbers", "for example --gaps 0,10,100")
    return numbers


def fill_blank(
    runs: Sequence[Run],
    text: str,
    *,
    candidates: str | Sequence[str] | None = None,
    swap: str | None = None,
    gaps: Sequence[int] | None = None,
    filler: str | Path | None = None,
    top: int = 5,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> ClozeResult:
    """The candidates, or likeliest words, in a blank, with `gaps` words of `filler` at ``...``."""
    listed = candidates.split(",") if isinstance(candidates, str) else candidates or ()
    words = [word.strip() for word in listed if word.strip()]
    old, _, new = (swap or "").partition("=")
    if swap and not (old and new):
        raise UsageError(f"--swap {swap}: not OLD=NEW", "for example --swap France=Germany")
    blank = Cloze.parse(text)
    if gaps is not None and filler is None:
        raise UsageError("--gaps needs a text to fill them with", "--filler my.txt")
    fillers: dict[int | None, list[str]] = {None: [""]}
    if gaps is not None and filler is not None:
        source = "\n".join(read_documents([str(filler)], TextOptions()))
        fillers = {g: random_fillers(source, g, FILLERS if g else 1, seed) for g in gaps}
    rows: list[dict[str, Any]] = []
    for run in runs:
        model = run.model()
        unfilled = blank.with_gap("") if PLACE in blank.left and gaps is not None else blank
        warn_unknown(run.tokenizer, unfilled.left.strip(" "), on_progress)
        warn_unknown(run.tokenizer, new, on_progress)
        for gap, some in fillers.items():
            texts = [blank if gap is None else blank.with_gap(f) for f in some]
            row = {"run": str(run.path), "arch": run.record.arch, "gap": gap}
            pair = (old, new) if swap else None
            best = _candidates(model, run.tokenizer, texts, words, pair, top)
            rows.append(row | {"candidates": best})
    note_rare_words(runs, blank.left, [*words, new], on_progress)
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
