"""What probes work on: trained models, and a text that none of them was trained on.

**In:** runs, texts.
**Out:** `ProbedModel`s and their short names, `ProbeData`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lmcli.data.corpus import Corpus, CorpusSpec, find_documents, recorded_spec, reopen_corpus
from lmcli.data.split import Split
from lmcli.errors import LmcliError, TextError
from lmcli.grammars.base import find_companions
from lmcli.models.base import LanguageModel
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class ProbedModel:
    """A model under test."""

    name: str
    arch: str
    model: LanguageModel
    tokenizer: Tokenizer
    untrained: Callable[[], LanguageModel]
    """the same architecture as it was before it was trained"""
    run: Run | None = None  # with the record of its training
    label: str = ""
    """what it is called in pictures and sentences; runs with one label are seeds of one another"""

    @classmethod
    def of(cls, run: Run, label: str = "") -> ProbedModel:
        """A run with its best weights."""

        def untrained() -> LanguageModel:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.record.seed)
                return run.new_model().eval()

        path, model = str(run.path), run.model()
        return cls(path, run.record.arch, model, run.tokenizer, untrained, run, label)

    def row(self, **values: Any) -> dict[str, Any]:
        """A row of this run."""
        return {"run": self.name, "arch": self.arch, **values}


Subjects = Sequence[ProbedModel]


def labels(subjects: Subjects) -> dict[str, str]:
    """Short names: labels, architectures, or where two of these are alike folders or paths."""
    archs = [s.arch for s in subjects]
    folders = [Path(s.name).name for s in subjects]
    names = {}
    for s, folder in zip(subjects, folders, strict=True):
        short = folder if folders.count(folder) == 1 else s.name
        names[s.name] = s.label or (s.arch if archs.count(s.arch) == 1 else short)
    return names


@dataclass(frozen=True)
class ProbeData:
    """What the runs are tested on; each document begins from the start state."""

    held_out: tuple[str, ...]
    train: tuple[str, ...] = ()
    """what they were trained on, for controls that count words; empty if it is not at hand"""
    items: Path | None = None
    """held-out items of a grammar that belong to the text"""
    optimum: Mapping[str, float] = field(default_factory=dict)
    """the grammar's best possible figures per word, such as "perplexity" """
    texts: tuple[str, ...] = ()  # their names
    about: Mapping[str, Any] = field(default_factory=dict)
    """what the grammar says of its text"""

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        held_out: Sequence[str],
        train: Split | None = None,
        on_progress: OnProgress = warnings_only,
    ) -> ProbeData:
        """Documents of `texts`, with what a grammar has put beside these."""
        beside = find_companions(texts, on_progress)
        about = (beside.items and beside.about) or {}
        optimum = about.get("optimum") if about.get("tokenizer", "word") == "word" else None
        best = optimum if isinstance(optimum, dict) else {}
        train_part = _sample(train, MOST_TRAIN)
        return cls(tuple(held_out), train_part, beside.items, best, tuple(texts), about)

    @classmethod
    def of_corpus(cls, corpus: Corpus, on_progress: OnProgress = warnings_only) -> ProbeData:
        """The test part, as validation chose weights and rates; validation where there is none."""
        held_out = _sample(corpus.test or corpus.valid, MOST_HELD_OUT)
        return cls.of(corpus.spec.texts, held_out, corpus.train, on_progress)

    @classmethod
    def of_runs(
        cls, runs: Sequence[Run], texts: Sequence[str], on_progress: OnProgress = warnings_only
    ) -> ProbeData:
        """The given texts, or the test part of the text that all runs were trained on."""
        first = recorded_spec(runs[0].record.corpus, runs[0].path)
        if texts:
            train = None
            with suppress(LmcliError):
                train = reopen_corpus(runs[0].record.corpus, runs[0].path).train
            given = Split(find_documents(texts, first.options, on_progress)[1])
            return cls.of(texts, _sample(given, MOST_HELD_OUT), train, on_progress)
        for run in runs[1:]:
            same = run.record.corpus["sha256"] == runs[0].record.corpus["sha256"]
            if not same or CorpusSpec.from_json(run.record.corpus).identity() != first.identity():
                raise TextError(
                    f"'{run.path}' and '{runs[0].path}' were trained on different texts",
                    "name a text that both are to be tested on",
                )
        corpus = reopen_corpus(runs[0].record.corpus, runs[0].path, (), on_progress)
        return cls.of_corpus(corpus, on_progress)

    @property
    def chars(self) -> int:
        """Characters in all."""
        return sum(map(len, self.held_out)) + sum(map(len, self.train))


MOST_TRAIN, MOST_HELD_OUT = 1 << 25, 1 << 21
"""characters of each part; of a larger one an evenly spread sample is taken"""


def _sample(part: Split | None, characters: int) -> tuple[str, ...]:
    return tuple(part.sample(characters).documents) if part else ()
