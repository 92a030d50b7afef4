"""What the state still holds, whether or not the predictions show it.

**In:** runs with a recurrent state, their training text and a held-out one; items of a grammar.
**Out:** by distance: how often a linear read-out of the state names what came N tokens ago; with
the controls: shuffled labels, and the same net before it was trained.

A run may answer wrongly although its state holds the answer: that is *not used*, and not
*forgotten*. On a text with items the read-out is asked for their answers
(`answers`). On any other it is asked which of two equally frequent words came k tokens ago: in a
held-out text, and in the same text with the other word in its place. What the rest of the text
makes likely (its topic) is the same in both, so that it adds as much to the one as it takes from
the other; and a model that has forgotten the word is right in exactly half of all cases.

Shuffled labels are the control task of Hewitt and Liang (2019). There a label is drawn for each
word type; here the label *is* the type, so that other names for it would change nothing: what is
shuffled is when each word came. A net that was not trained stores much as well (Jaeger 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.sampling import FEWEST_STRETCHES, Mean, powers
from lmcli.evaluation.probes.stored.answers import (
    AnswerTask,
    above_chance,
    answer_verdict,
    measure_answers,
    summarise_answers,
)
from lmcli.evaluation.probes.stored.ridge import Readout, Ridge
from lmcli.evaluation.probes.stored.states import is_recurrent, states_after, states_along
from lmcli.evaluation.probes.stored.words import (
    Excerpt,
    Swap,
    Vocabulary,
    came,
    find_swaps,
    groups,
    label,
    pieces,
    table,
)
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel
from lmcli.report.result import COUNT, PERCENT, Column, Figure, text
from lmcli.settings import setting
from lmcli.tokenizers.base import Tokenizer

STATES = 16_000
"""that the read-out is fitted to, about"""
FEWEST_WORDS, FEWEST = 10, 20
"""words of middling frequency, and swaps of a distance"""
CHANCE = 0.5


@dataclass(frozen=True)
class StoredSettings:
    """How much text, how many words, how far back."""

    tokens: int = setting(120_000, "training tokens in which the read-out is fitted", least=1000)
    words: int = setting(500, "words of middling frequency, at the most", least=FEWEST_WORDS)
    items: int = setting(128, "places of a distance, at the most", least=FEWEST)
    longest: int = setting(256, "farthest word in tokens", least=1, most=4096)


class Stored(Probe):
    """A linear read-out of the state, against distance."""

    name = "stored"
    Settings = StoredSettings
    x = "lag"
    picture = Figure(
        "what the state holds: right out of two words, by tokens since one came", (), (),
        PERCENT, "up to N tokens ago", CHANCE,
    )  # fmt: skip
    columns = (
        Column("bucket", text("ago")),
        *interval_columns("right", PERCENT),
        Column("untrained", PERCENT, "untrained"),
        Column("shuffled", PERCENT, "shuffled"),
        Column("count", COUNT),
    )
    answer_columns = (
        Column("gap", COUNT, "gap"),
        *interval_columns("stored", PERCENT),
        Column("answered", PERCENT, "answered"),
        Column("untrained", PERCENT, "untrained"),
        Column("shuffled", PERCENT, "shuffled"),
        Column("count", COUNT),
    )
    note = (
        "right: a linear read-out of the state tells which of two words came; untrained: of the "
        "net before training; shuffled: fitted to shuffled labels (chance 50 %)"
    )
    answer_note = (
        "stored: a linear read-out of the state names the answer; answered: the run itself does; "
        "untrained: the net before training; shuffled: fitted to shuffled answers"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only a recurrent state; a window, a cache or an n-gram keeps its last tokens as such."""
        if not is_recurrent(subject.model):
            return f"{subject.arch} keeps its last tokens themselves, and no other state"
        return None if data.train else "the training text, for the read-out, is not at hand"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """Answers where there are items, else words; the same for all runs with one tokenizer."""
        task = AnswerTask.of(data, settings.items) if data.items else None
        if task and not any(task.unknown_to(s.tokenizer) for s in subjects):
            return self._answers(subjects, task, seed)
        rows, summary, tasks = list[dict[str, Any]](), list[dict[str, Any]](), list[WordTask]()
        for subject in subjects:
            mine = subject.tokenizer.to_json()
            same = [t for t in tasks if t.tokenizer.to_json() == mine]
            if not same:
                same = [WordTask.of(subject.tokenizer, data, settings, seed)]
                tasks += same
            if own := measure(subject, same[0], seed):
                rows += own
                summary.append(_summary(subject, own))
        if not rows:
            said = "too few words of the held-out text are known to tell"
            return ProbeResult(self.name, [], said)
        return self.result(subjects, rows, summary)

    def _answers(self, subjects: Subjects, task: AnswerTask, seed: int) -> ProbeResult:
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for subject in subjects:
            own = measure_answers(subject, task, seed)
            rows += own
            summary.append(summarise_answers(subject, own))
        return _AnswersOfItems().result(subjects, rows, summary)

    def verdict(self, row: Row) -> str:
        """How long ago a word is still in the state, and how long before the training."""
        if not row["reach"]["tokens"]:
            return f"{row['model']}'s state tells no word of the past"
        stored = f"{row['model']}'s state tells a word {reach_words(row['reach'])} later"
        before = row["before"]["tokens"]
        return f"{stored} (before training: {before:,})"


class _AnswersOfItems(Stored):
    """The same read-out, asked for the answers of items."""

    x = "gap"
    columns = Stored.answer_columns
    note = Stored.answer_note
    picture = Figure(
        "what the state holds: right answers of a read-out, by gap", (), (), PERCENT, "gap in words"
    )

    def verdict(self, row: Row) -> str:
        """Whether what is stored is used."""
        return answer_verdict(row)


# ------------------------------------------------------------------ which of two words came


@dataclass(frozen=True)
class WordTask:
    """What all runs with one tokenizer are asked."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    fitted: list[Excerpt]
    swaps: list[Swap]
    lags: list[int]
    """upper ends of the buckets"""

    @classmethod
    def of(cls, tokenizer: Tokenizer, data: ProbeData, settings: Any, seed: int) -> WordTask:
        """Random pieces of the training text, and pairs of held-out ones."""
        rng = np.random.default_rng(seed)
        train = pieces(tokenizer, data.train, settings.tokens, rng)
        vocabulary = Vocabulary([part for part, _, _ in train], settings.words)
        lags = powers(settings.longest)
        if len(vocabulary) < FEWEST_WORDS:
            return cls(tokenizer, vocabulary, [], [], lags)
        tested = label(vocabulary, pieces(tokenizer, data.held_out, settings.tokens, rng))
        swaps = find_swaps(tokenizer, vocabulary, tested, settings.longest, settings.items, rng)
        return cls(tokenizer, vocabulary, label(vocabulary, train), swaps, lags)


def measure(subject: ProbedModel, task: WordTask, seed: int) -> list[dict[str, Any]]:
    """One row a bucket, up to the first with too few places."""
    if not task.swaps:
        return []
    nets = {"value": subject.model, "untrained": subject.untrained()}
    stride = max(1, sum(len(e.ids) for e in task.fitted) // STATES)
    ridges, places = {}, np.empty((0, 2), np.int64)
    for name, model in nets.items():
        states, places = states_along(model, [e.ids for e in task.fitted], stride)
        ridges[name] = Ridge(states, groups(places))
    words, rng, rows = len(task.vocabulary), np.random.default_rng(seed), list[dict[str, Any]]()
    for high in task.lags:
        swaps = [s for s in task.swaps if s.bucket == high]
        stretch = np.array([s.stretch for s in swaps])
        if len(swaps) < FEWEST or len(np.unique(stretch)) < FEWEST_STRETCHES:
            break
        low = high // 2 + 1
        at, which = came(task.fitted, places, low, high)
        labels = table(at, which, len(places), words)
        moved = (at + rng.integers(len(places), size=words)[which]) % len(places)
        fits = {name: ridge.fit(labels) for name, ridge in ridges.items()}
        fits["shuffled"] = ridges["value"].fit(table(moved, which, len(places), words))
        row = subject.row(lag=high, lag_from=low, count=len(swaps), chance=CHANCE)
        for name, fit in fits.items():
            right = _right(nets.get(name, subject.model), fit, swaps)
            row |= Mean.of(right, stretch, seed).row("" if name == "value" else name)
        rows.append(row)
    return rows


def _right(model: LanguageModel, fit: Readout, swaps: list[Swap]) -> Floats:
    """Whether the word that came scores above the other, in both texts. Shapes: -> (N, 2)."""
    rests = [[s.real for s in swaps], [s.swapped for s in swaps]]
    real, swapped = states_after(model, [s.before for s in swaps], rests)
    pair = np.array([(s.word, s.foil) for s in swaps])
    margins = []
    for states in (real, swapped):
        scores = np.take_along_axis(fit.scores(states), pair, axis=1)
        margins.append(scores[:, 0] - scores[:, 1])
    right: Floats = np.stack([np.sign(margins[0]), -np.sign(margins[1])], axis=1) / 2 + 0.5
    return right


def _summary(subject: ProbedModel, rows: Rows) -> dict[str, Any]:
    """The smallest distance in the last bucket of the leading run above chance."""
    summary = subject.row()
    for name, low in (("reach", "low"), ("before", "untrained_low")):
        shown, at_least = leading_run(rows, above_chance(low))
        tokens = shown[-1]["lag_from"] if shown else 0
        summary[name] = {"tokens": tokens, "at_least": bool(shown) and at_least}
    reach = summary["reach"]
    return summary | {"figure": reach_words(reach) if reach["tokens"] else "none shown"}
