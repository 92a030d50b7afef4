"""The textbook's sentence on a text of the user's own, in one go: make, train, ask, say.

**In:** the options of `api.demo`.
**Out:** a `Demo`: the comparison, right answers by gap, three sentences. In its folder lie the text
that was made, its items, and a run for each training.

The trainings are those of `compare`. This file decides which text they get, how large it is, and
how long they take.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.comparison import Comparison
from lmcli.evaluation.filler_cost import cost_tables
from lmcli.evaluation.forced_choice import CONTROL, check_answers
from lmcli.evaluation.memory_curves import MemoryTask, recall_by_gap, recall_chart
from lmcli.evaluation.memory_sentences import memory_sentences
from lmcli.evaluation.ranking_table import ranking_table, training_table
from lmcli.grammars.base import (
    Grammar,
    companions,
    find_companions,
    is_made,
    read_items,
    write_grammar,
)
from lmcli.grammars.france.facts import shipped
from lmcli.grammars.france.grammar import France, FranceSettings
from lmcli.grammars.france.natural import NaturalFrance, NaturalSettings, SourceText, choose_facts
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.report.progress import Message, OnProgress, Stage, without_notes
from lmcli.report.result import Block, Passage, Reportable, Result
from lmcli.settings import names, update
from lmcli.training.comparison_folder import RESULT
from lmcli.training.speed import minutes_to_read, training_speed
from lmcli.training.sweep import Sweep, check_options, prepare, run_sweep
from lmcli.training.trials import StoppedError

TEXT = "text.txt"
"""the name of the text that is made, in the folder of the demo"""
MOST_MINUTES, MADE_MINUTES = 4.75, 1.75
"""of each training on a fast machine: at most, on a text of the user's own; on one made by rule"""
ENOUGH, LEAST = 3.0, 2.0
"""the minutes of a training, as multiples of those that the LSTM needs: the others take longer.
On a text made by rule, which is small, the GRU took 59 s where 0.2 min are counted for the LSTM."""
MINUTES_IN_ALL = 5.0
"""of all trainings, within which `lmcli demo` also trains what it has time for only then"""
SIZES = ("words", "longest")
"""settings of the text that is made from the user's own"""
LEAST_GAP, LONG_GAP = 50, 200
"""a text whose held-out part cannot fill the first is too short, and short up to the second"""


# ------------------------------------------------------------------ which text


def text_settings(options: Mapping[str, Any]) -> NaturalSettings:
    """How much text, and how long the fillers."""
    given = {name: value for name, value in _pairs(options).items() if name in SIZES}
    return update(NaturalSettings(seed=options["seed"]), given)


@dataclass(frozen=True)
class DemoText:
    """The text that is trained on: made before, or by a grammar that has still to write it."""

    path: Path
    name: str
    """in a sentence"""
    about: Mapping[str, Any]
    grammar: Grammar | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], on_progress: OnProgress) -> DemoText:
        """From the texts of the user's own, or without them; nothing is written."""
        texts, path = options["texts"], Path(options["output"]) / TEXT
        if _is_own(options):
            on_progress(Stage("making the text", 0, 0, ""))
            return cls._own(options, path, on_progress)
        if options["facts"] not in (None, "auto"):
            raise UsageError("--facts is for a text of your own", "lmcli demo my.txt --facts de")
        if not texts:
            grammar = France(FranceSettings(size="small", seed=options["seed"]))
            return cls(path, "a text made by rule", grammar.about(), grammar)
        if len(texts) > 1:
            problem = f"'{next(filter(is_made, texts))}' is a text of lmcli make"
            raise UsageError(problem, "give it alone")
        found = find_companions(texts, on_progress)
        recipe = (found.about or {}).get("recipe", {})
        if found.items is None or found.about is None or recipe.get("grammar") != France.name:
            problem = f"'{texts[0]}' has no items of lmcli make france"
            raise TextError(problem, f"lmcli compare {shlex.quote(texts[0])}")
        return cls(Path(texts[0]), Path(texts[0]).name, found.about)

    @classmethod
    def _own(cls, options: Mapping[str, Any], path: Path, on_progress: OnProgress) -> DemoText:
        """Cue and query around sentences of the user's own."""
        texts = options["texts"]
        source = SourceText.of(load_corpus(CorpusSpec(tuple(texts)), on_progress))
        facts = choose_facts(source, options["facts"], None, None, on_progress)
        grammar = NaturalFrance(source, facts, text_settings(options))
        about, name = grammar.about(), Path(texts[0]).name
        longest = max(about["gaps"], default=0)
        reach = f"its held-out sentences fill gaps of at most {longest} {about['unit']}"
        if longest < LEAST_GAP:
            raise TextError(f"'{name}' is too short: {reach}", "give 10,000 characters or more")
        if longest < LONG_GAP:
            on_progress(Message(f"'{name}' is short: {reach}", "warning"))
        name += f" and {len(texts) - 1} more" if len(texts) > 1 else ""
        return cls(path, name, about, grammar)

    def write(self, force: bool) -> None:
        """Write the text with its companions, unless it was made before."""
        if self.grammar:
            write_grammar(self.grammar, self.path, force)

    @property
    def tokenizer(self) -> str:
        """Words, or characters where the text does not separate its words."""
        return str(self.about.get("tokenizer", "word"))

    def settings(self, tokenizer: str, archs: Sequence[str]) -> dict[str, Any]:
        """What such a text is trained with, of the settings of tokenizer and architectures."""
        classes = [TOKENIZERS.load(tokenizer), *map(MODELS.load, archs)]
        known = set().union(*(names(cls.Settings) for cls in classes))
        dropout = 0.0 if self.is_planted else None  # which is read few times
        fitting = {"min_count": self.about.get("min_count"), "dropout": dropout}
        return {name: v for name, v in fitting.items() if v is not None and name in known}

    @property
    def is_spaced(self) -> bool:
        """Whether blanks separate its words."""
        return bool(self.about.get("unit", "words") == "words")

    @property
    def is_planted(self) -> bool:
        """Whether the sentences stand in a text of the user's own."""
        return "filler" in self.about

    def task(self, minutes: float, needed: float = 0.0) -> MemoryTask:
        """What is asked of models that were trained for these minutes, and need those."""
        facts = self.about["recipe"].get("facts", "en")
        return MemoryTask(
            self.name,
            minutes,
            "country" if facts in shipped() else "cue",
            self.about.get("unit", "words"),
            self.is_planted,
            {int(gap): share for gap, share in self.about.get("order_free", {}).items()},
            needed,
        )

    def cloze_options(self) -> list[str]:
        """Its sentence with a blank and two cues to swap, as `lmcli cloze` takes them.

        None where no item has the first cue right before its query: then `cloze` asks the items.
        """
        if not self.is_planted:
            sentence = "Anna grew up in France . now she speaks fluent ___"
            return ["--text", sentence, "--swap", "France=Germany"]
        (first, _), (second, _), *_ = self.about["facts"]["pairs"]
        lines = companions(self.path)[0].read_text(encoding="utf-8").splitlines()
        asked = (json.loads(line) for line in lines)
        cue = re.compile(
            rf"(?<!\w){re.escape(first)}(?!\w)" if self.is_spaced else re.escape(first)
        )
        found = (i for i in asked if i["kind"] == CONTROL and cue.search(i["text"]))
        if (item := next(found, None)) is None:
            return []
        before, after = item["text"][: item["filler"][0]], item["text"][item["filler"][0] :]
        filler = self.about["filler"]["texts"][0]
        if not self.is_spaced or not Path(filler).is_file():  # cloze counts words
            return ["--text", f"{before}{after}___", "--swap", f"{first}={second}"]
        gap = ["--gaps", "0,10,100", "--filler", filler]
        sentence = f"{before.rstrip()} ... {after.lstrip()}___"
        return ["--text", sentence, "--swap", f"{first}={second}", *gap]


# ------------------------------------------------------------------ what `lmcli demo` does


@dataclass(frozen=True)
class Demo(Reportable):
    """A comparison on such a text, and what it showed."""

    comparison: Comparison
    text: DemoText
    order: Sequence[str]
    """the architectures as they were named"""
    minutes: float
    """of each training"""
    needed: float
    """minutes that this machine needs for one"""
    timings: Mapping[str, float]
    """seconds of its parts"""
    page: Path | None = None
    """that shows all of it"""

    def result(self) -> Result:
        """Ranking, right answers by gap, chart, sentences; the next commands."""
        ranking, task = self.comparison.values(), self.text.task(self.minutes, LEAST * self.needed)
        rows, folder = self.comparison.rows, self.comparison.folder
        shown = sorted(rows, key=lambda row: (*self.order, row["name"]).index(row["name"]))
        said = memory_sentences(shown, task)
        items, about = companions(self.text.path)
        paths = {"folder": folder, "text": self.text.path, "items": items, "about": about}
        paths |= {"page": self.page} if self.page else {}
        values = {
            **ranking,
            "sentences": said,
            "order_free": {str(gap): share for gap, share in task.order_free.items()},
            "paths": {n: str(path) for n, path in {**paths, "comparison": folder / RESULT}.items()},
            "timings": self.timings,
        }
        blocks: list[Block] = [ranking_table(ranking)]
        if self.text.is_planted:  # the held-out part of such a text repeats what was trained on
            blocks = [training_table(ranking), *cost_tables(shown)]
        blocks += [*recall_by_gap(shown, task), recall_chart(shown, task)]
        blocks.append(Passage("\n" + "\n".join(said)))
        return Result("demo", values, blocks, self._next_commands())

    def _next_commands(self) -> list[str]:
        """The sentence with other cues; more of the same text; the ranking again."""
        runs = [result.run for row in self.comparison.ranking.rows for result in row.results]
        folder, path = (shlex.quote(str(p)) for p in (self.comparison.folder, self.text.path))
        cloze = shlex.join(self.text.cloze_options())
        tokenizer = self.comparison.corpus["tokenizer"]
        return [
            f"lmcli cloze {folder}/* {cloze}",
            f"lmcli sample {shlex.quote(runs[0])}",
            f"lmcli compare {path} --tokenizer {tokenizer} --run {folder}",
        ]


def demo(options: Mapping[str, Any], on_progress: OnProgress) -> Demo:
    """Make the text, train, ask; all that is made lies in the folder of the demo."""
    began = time.monotonic()
    trained = _training_options(options)
    specs, *_ = check_options(trained)  # a wrong name shows before the text is made
    text = DemoText.of(options, on_progress)
    trained["tokenizer"] = options["tokenizer"] or text.tokenizer
    fitting = text.settings(trained["tokenizer"], [spec.arch for spec in specs])
    trained["settings"] = fitting | trained["settings"]
    text.write(options["force"])
    sweep = prepare(trained, on_progress)
    check_answers(sweep.dataset.tokenized.tokenizer, read_items(companions(text.path)[0]))
    needed = minutes_needed(sweep, on_progress)
    minutes = choose_minutes(needed, options["minutes"], text.is_planted, on_progress)
    more = fitting_more(sweep, minutes, options, on_progress)
    if more or minutes != options["minutes"]:
        arch = ",".join(filter(None, [trained["arch"], more]))
        sweep = prepare(trained | {"minutes": minutes, "arch": arch}, without_notes(on_progress))
    sweep = replace(sweep, minutes_needed=needed)
    made = time.monotonic()
    try:
        comparison = run_sweep(sweep, options["seed"], False, on_progress)
    except StoppedError as error:
        raise _with_use_of(error.finished, error) from None
    ended = time.monotonic()
    timings = {"making": made - began, "training": ended - made, "total": ended - began}
    return Demo(comparison, text, [spec.name for spec in sweep.specs], minutes, needed, timings)


def minutes_needed(sweep: Sweep, on_progress: OnProgress) -> float:
    """Minutes in which the LSTM learns the task on this machine, as it is now.

    0 where nothing is trained; without an LSTM another model is measured in its place.
    """
    trained = [trial.job for trial in sweep.trials if not trial.job.is_count_based]
    if not trained:
        return 0.0
    on_progress(Stage("measuring the speed", 0, 0, ""))
    job = next((job for job in trained if job.arch == "lstm"), trained[-1])
    speed = training_speed(job)
    needed = minutes_to_read(job, speed)
    reads = f"this machine trains the {job.arch} on {speed:,.0f} tokens a second"
    on_progress(Message(f"{reads}, and needs about {needed:.1f} min"))
    return needed


def choose_minutes(
    needed: float, given: float | None, is_planted: bool, on_progress: OnProgress
) -> float:
    """Minutes for each training: those given, or some more than this machine needs.

    A smaller net or shorter documents would not make it faster: at a width of 128 instead of 192
    700 steps were too few (15 to 35 % right) where they gave 73 % and more, and with fillers of 60
    words at most instead of 300, 450 steps were too few as well.
    """
    if given and given < needed:
        problem = f"in {given:g} min it may not learn the task: --minutes"
        on_progress(Message(f"{problem} {math.ceil(LEAST * needed)} gives it time", "warning"))
    if given:
        return given
    usual = min(MOST_MINUTES, ENOUGH * needed or MOST_MINUTES) if is_planted else MADE_MINUTES
    return math.ceil(10 * max(LEAST * needed, usual)) / 10


def fitting_more(
    sweep: Sweep, minutes: float, options: Mapping[str, Any], on_progress: OnProgress
) -> str:
    """The architecture of the option `if_time` if there is time to train it too, else no name."""
    more: str = options.get("if_time") or ""
    count = options["seeds"] + sum(not trial.job.is_count_based for trial in sweep.trials)
    if not more or minutes * -(-count // sweep.jobs) > MINUTES_IN_ALL:
        return ""
    on_progress(Message(f"there is time to train {more} too"))
    return more


def _with_use_of(finished: Sequence[str], error: StoppedError) -> StoppedError:
    """The error, with a hint at what can be done with the finished runs."""
    if not finished:
        return error
    return StoppedError(error.problem, f"lmcli cloze {shlex.join(finished)}")


def _pairs(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return options["settings"] or {}


def _training_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `api.compare` that train what is wanted, tokenizer and minutes left open."""
    pairs = {n: v for n, v in _pairs(options).items() if n not in SIZES or not _is_own(options)}
    texts = options["texts"] if _is_made(options) else [str(Path(options["output"]) / TEXT)]
    same = ("arch", "seeds", "seed", "minutes", "device", "output", "force")
    return {
        **{name: options[name] for name in same},
        **{"texts": texts, "tokenizer": options["tokenizer"] or "word", "settings": pairs},
        **dict.fromkeys(("steps", "epochs", "jobs", "valid", "test")),
        **{"match": "params", "runs": [], "plan": False, "documents": "line", "newlines": "keep"},
        **{"split": "interleaved", "encoding": "utf-8", "errors": "strict"},
        **{"stop_when_recalled": True, "search": False},
    }


def _is_made(options: Mapping[str, Any]) -> bool:
    """Whether a text of lmcli make is given."""
    return any(map(is_made, options["texts"]))


def _is_own(options: Mapping[str, Any]) -> bool:
    """Whether texts of the user's own are given."""
    return bool(options["texts"]) and not _is_made(options)
