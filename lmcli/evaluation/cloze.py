"""Runs + a text with a blank -> how likely each word is in it.

**In:** runs, a text with ``___``, candidates or none; filler for a gap before the blank; another
word for the cue.
**Out:** a `ClozeResult`: probabilities of words, as means over fillers, and what the cue changes.
Held-out items: `item_answers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmcli.data.corpus import read_documents
from lmcli.data.text import TextOptions
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.cloze_blocks import blocks_of
from lmcli.evaluation.cue_effect import CueEffect
from lmcli.evaluation.forced_choice import check_vocabulary, normalised, score_words
from lmcli.evaluation.likeliest_words import top_words
from lmcli.evaluation.statistics import Floats
from lmcli.evaluation.text_evidence import note_rare_words
from lmcli.models.base import LanguageModel
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.report.result import Reportable, Result
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer, warn_unknown

BLANK, PLACE = "___", "..."
FILLERS = 20
"""fillers that a gap is averaged over"""
EXAMPLE_WORDS = 3
"""likeliest words of each run in the example"""
SHOWN = 32
"""characters of a filler at each end of the gap of the example"""


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
        """The same with one word replaced by another, where it is not a part of a longer one."""
        before, after = (r"(?<!\w)" * _is_cased(old[0]), r"(?!\w)" * _is_cased(old[-1]))
        left, count = re.subn(before + re.escape(old) + after, lambda _: new, self.left)
        if not count:
            raise UsageError(
                f"--swap {old}={new}: no '{old}' before the blank", "swap a word of the text"
            )
        return Cloze(left, self.right)


def _is_cased(c: str) -> bool:
    """Whether words of such characters are set apart; Chinese ones, for example, are not."""
    return c.isdigit() or c.lower() != c.upper()


def shortened(filler: str) -> str:
    """The first and the last words of a long filler.

    >>> shortened("It was the best of times, it was the worst of times, it was the age of wisdom,")
    'It was the best of times, it was ... it was the age of wisdom,'
    """
    if len(filler) <= 2 * SHOWN + len(PLACE):
        return filler
    first, last = filler[: SHOWN + 1], filler[-SHOWN - 1 :]
    return f"{first.rsplit(' ', 1)[0]} {PLACE} {last.split(' ', 1)[-1]}"


def random_fillers(text: str, words: int, count: int, seed: int) -> list[str]:
    """`count` stretches of `words` consecutive words, from random places of a text.

    They do not overlap, so that each is independent of the others; a short text gives fewer.
    """
    if words == 0:
        return [""]
    all_words = text.split()
    if len(all_words) < words:
        raise TextError(
            f"the filler has {len(all_words)} words, a gap of {words} needs more",
            "give a longer --filler text",
        )
    count = min(count, len(all_words) // words)
    rng = np.random.default_rng(seed)
    free = rng.integers(0, len(all_words) - count * words + 1, size=count)
    begins = np.sort(free) + words * np.arange(count)
    return [" ".join(all_words[b : b + words]) for b in begins]


# ------------------------------------------------------------------ scores of candidates


def candidate_scores(
    model: LanguageModel, tokenizer: Tokenizer, clozes: Sequence[Cloze], candidates: Sequence[str]
) -> Floats:
    """ln p of candidates (and the text right of the blank) given the text left of it.

    Shapes: B texts around the same blank, C words -> (B, C).
    """
    check_vocabulary(tokenizer, candidates, "choose words that occur in the training text")
    right = clozes[0].right
    right = right if right.strip(" ") else ""  # a blank at the end is no word's
    lefts = [cloze.left for cloze in clozes]
    return score_words(model, tokenizer, lefts, [candidates] * len(lefts), right)


# ------------------------------------------------------------------ runs side by side


@dataclass(frozen=True)
class ClozeResult(Reportable):
    """What each run says to the blank, a row a run and gap."""

    rows: Sequence[Mapping[str, Any]]
    swap: tuple[str, str] | None
    example: Mapping[str, Any] | None
    """one text with a filled gap, and the likeliest words of each run in its blank"""

    def result(self) -> Result:
        """The example, tables of probabilities, and what another cue changes."""
        values = {"rows": self.rows, "example": self.example}
        return Result("cloze", values, blocks_of(self.rows, self.swap, self.example))


@dataclass(frozen=True)
class Question:
    """What every run is asked."""

    blank: Cloze
    swap: tuple[str, str] | None
    words: Sequence[str]
    """candidates; none for the likeliest words"""
    fillers: Mapping[int | None, Sequence[str]]
    """by gap; None stands for the text as it is"""
    top: int

    @classmethod
    def of(
        cls,
        text: str,
        candidates: str | Sequence[str] | None,
        swap: str | None,
        fillers: Mapping[int, Sequence[str]] | None,
        top: int,
    ) -> Question:
        """From what a user gives; what does not fit is a UsageError."""
        words, pair, blank = _candidates(candidates), _cues(swap), Cloze.parse(text)
        by_gap: dict[int | None, Sequence[str]] = {None: [""]}
        return cls(blank, pair, words, by_gap if fillers is None else dict(fillers.items()), top)

    def texts(self, gap: int | None) -> tuple[list[Cloze], list[Cloze]]:
        """The texts of a gap, and the same with the other cue, if there is one."""
        cues = [self.blank, *([self.blank.swapped(*self.swap)] if self.swap else [])]
        filled = [
            [cue if gap is None else cue.with_gap(filler) for filler in self.fillers[gap]]
            for cue in cues
        ]
        return filled[0], filled[1] if self.swap else []

    @property
    def longest(self) -> int | None:
        """The longest gap, if one is filled."""
        return max((gap for gap in self.fillers if gap), default=None)

    def example(self) -> str:
        """The first text of the longest gap as a reader would read it."""
        shown = self.blank.with_gap(shortened(self.fillers[self.longest][0]))
        return shown.left + BLANK + shown.right


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
    question = Question.of(text, candidates, swap, None, top)
    if gaps is not None and filler is None:
        raise UsageError("--gaps needs a text to fill them with", "--filler my.txt")
    if gaps is not None and filler is not None:
        source = "\n".join(read_documents([str(filler)], TextOptions()))
        fillers = {g: random_fillers(source, g, FILLERS, seed) for g in gaps}
        question = Question.of(text, candidates, swap, fillers, top)
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for run in runs:
        answers = answer(run, question, on_progress)
        rows += answers.rows
        said += [{"run": str(run.path), "words": answers.words}] if question.longest else []
    asked = [*question.words, *(question.swap or ())]
    note_rare_words(runs, question.blank.left, asked, on_progress)
    if question.longest is None:
        return ClozeResult(rows, question.swap, None)
    example = {"gap": question.longest, "text": question.example(), "answers": said}
    return ClozeResult(rows, question.swap, example)


@dataclass(frozen=True)
class Answers:
    """What one run says."""

    rows: Sequence[dict[str, Any]]
    """one a gap"""
    words: Sequence[Mapping[str, Any]]
    """its likeliest words in the example, the first text of the longest gap"""


def answer(run: Run, question: Question, on_progress: OnProgress = warnings_only) -> Answers:
    """The answers of one run; warns of what it cannot know."""
    unfilled = question.blank if None in question.fillers else question.blank.with_gap("")
    warn_unknown(run.tokenizer, unfilled.left.strip(" "), on_progress)
    warn_unknown(run.tokenizer, question.swap[1] if question.swap else "", on_progress)
    model, about = run.model(), {"run": str(run.path), "arch": run.record.arch}
    rows = []
    for gap, some in question.fillers.items():
        row = about | {"gap": gap, "count": len(some)}
        rows.append(row | _answer(model, run.tokenizer, question, gap))
    best: list[tuple[str, float]] = []
    if question.longest is not None:
        left = question.texts(question.longest)[0][0].left
        best = top_words(model, run.tokenizer, [left], EXAMPLE_WORDS)
    return Answers(rows, [{"text": word, "probability": p} for word, p in best])


def _candidates(candidates: str | Sequence[str] | None) -> list[str]:
    listed = candidates.split(",") if isinstance(candidates, str) else candidates or ()
    words = list(dict.fromkeys(word.strip() for word in listed if word.strip()))
    if len(words) == 1:
        raise UsageError(
            f"--candidates {words[0]}: one word alone has all the probability",
            "give two or more, with commas, or leave --candidates out",
        )
    return words


def _cues(swap: str | None) -> tuple[str, str] | None:
    old, _, new = (swap or "").partition("=")
    if swap and not (old and new):
        raise UsageError(f"--swap {swap}: not OLD=NEW", "for example --swap France=Germany")
    return (old, new) if swap else None


def _answer(
    model: LanguageModel, tokenizer: Tokenizer, question: Question, gap: int | None
) -> dict[str, Any]:
    """The words of one gap with their mean probabilities, and what the swap changes.

    Candidates and likeliest words come by probability, the likeliest first; with a swap, words
    that are no candidates come by how much it changes them.
    """
    true, swapped = question.texts(gap)
    words, free = list(question.words), not question.words
    if free:  # no word changes by more than the larger of its two probabilities
        true, swapped = ([Cloze(text.left) for text in texts] for texts in (true, swapped))
        lefts = [[text.left for text in texts] for texts in (true, swapped) if texts]
        found = [top_words(model, tokenizer, some, 4 * question.top) for some in lefts]
        words = list(dict.fromkeys(word for some in found for word, _ in some))

    def probabilities(texts: Sequence[Cloze]) -> Floats:
        scores = candidate_scores(model, tokenizer, texts, words)
        return np.exp(scores) if free else normalised(scores)

    real = probabilities(true)  # (fillers, words)
    most = question.top if free else None
    if question.swap is None:
        nothing = dict.fromkeys(("probability_swapped", "log_odds_swap", "low", "high"))
        mean = real.mean(0)
        best = np.argsort(-mean, kind="stable")[:most].tolist()
        rows = [{"text": words[i], "probability": float(mean[i])} | nothing for i in best]
        return {"candidates": rows, "verdict": None, "sentence": None}
    effect = CueEffect(words, real, probabilities(swapped))
    size = np.abs(effect.differences) if free else real.mean(0)
    rows = effect.candidates()
    rows = [rows[i] for i in np.argsort(-size, kind="stable")[:most]]
    sentence = effect.sentence(*question.swap)
    return {"candidates": rows, "verdict": effect.verdict, "sentence": sentence}
