"""Quality at evaluation time: several runs as one model, a cache of what was read, adaptation.

**In:** a run, others to be mixed with it, which methods to use.
**Out:** an `Ensemble`, which gives the nats of a stream of ids, and says what it is made of.

Each token is scored before anything is learnt from it. Weights of a mixture are fitted on the
validation part of the first run's own text, by the models as they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lmcli.data.corpus import Corpus, CorpusSpec, reopen_corpus
from lmcli.data.split import Split
from lmcli.errors import RunError, TextError, UsageError
from lmcli.evaluation.count_cache import CacheSettings, CountCache
from lmcli.evaluation.dynamic import AdaptSettings, adapted_log_probabilities
from lmcli.evaluation.log_likelihood import Nats, stream_log_probabilities, stream_nats
from lmcli.evaluation.mixture import Mixture, found_lengths
from lmcli.evaluation.unknown_words import UnknownTexts, UnknownWords
from lmcli.models.base import LanguageModel
from lmcli.report.progress import Message, OnProgress, ProgressCounter
from lmcli.run import Run
from lmcli.tokenizers.base import Tokenizer

Ids = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

MOST_FITTED = 1 << 20
"""characters of the validation part that weights are fitted on: of a longer one a sample"""

MOST_BEFORE = {"train": 1 << 20, "valid": 1 << 18}
"""characters, and tokens, of the parts that a cache reads before the text at most, of longer ones a
sample: the first is counted, the second is scored too, which takes longer"""


class EarlierText(NamedTuple):
    """A part of a run's own text that a cache has read before what is scored, or a sample of it."""

    documents: Sequence[str]
    share: float = 1.0
    """of the part's characters"""


@dataclass(frozen=True)
class Ensemble:
    """One or several models over one vocabulary, and what they learn while they read."""

    runs: Sequence[Run]
    models: Sequence[LanguageModel]
    mixture: Mixture | None = None
    cache: CacheSettings | None = None
    adapt: AdaptSettings | None = None
    earlier: Mapping[str, EarlierText] = field(default_factory=dict)
    """what the cache has read before the text: of "train", "valid" or both"""
    rows: int | None = field(default=None, compare=False)
    """places of a stream read side by side by models that do not adapt: a matter of speed only"""

    def nats(self, ids: Ids, excluded: int | None, counter: ProgressCounter) -> Nats:
        """-ln p of every id but the first; 0 for start ids. Not for one with a cache.

        The counter is begun by the caller.
        """
        if self.cache is not None:
            raise ValueError("with a cache the nats are those of `cached_nats`")
        counter.expect((len(self.models) - 1) * (len(ids) - 1))
        how: Any = {"counter": counter, "excluded": excluded}
        if self.adapt is None:
            each = [stream_nats(model, ids, self.rows, **how) for model in self.models]
            if self.mixture is None:
                return each[0]
            return self.mixture.nats(np.stack(each), self.lengths(ids)).astype(np.float32)
        parts = self.log_probabilities(ids, excluded, counter)
        return _chosen(parts, ids, self.models[0].vocabulary)

    def cached_nats(
        self,
        ids: Ids,
        counted: Ids,
        texts: UnknownTexts,
        excluded: int | None,
        counter: ProgressCounter,
    ) -> Floats:
        """With the cache: -ln p, without spelling; that of spelling; what "it is known" costs.

        Of every id but the first; the last figure, if the token is known, is part of the first.
        `counted` are the ids in which unknown tokens have ids of their own. The counter is begun by
        the caller. Shapes: (N,) -> (3, N - 1).
        """
        if self.cache is None:
            raise ValueError("without a cache the nats are those of `nats`")
        counter.expect((len(self.models) - 1) * (len(ids) - 1))
        tokenizer, spelt = self.runs[0].tokenizer, None if excluded is None else texts
        cache = CountCache(self.models[0].vocabulary, self.cache, excluded, spelt)
        for part, (documents, _) in self.earlier.items():
            encoded = [tokenizer.encode_with_ends(text) for text in documents]
            pairs = zip(documents, encoded, strict=True)
            before = stream_of(tokenizer, [texts.ids(text, e) for text, e in pairs])
            if part == "train":  # which the models know too well to learn weights from it
                counter.expect(len(before) - 1)
                cache.count(before, counter)
            else:
                plain = stream_of(tokenizer, [e.ids for e in encoded])
                counter.expect(len(self.models) * (len(plain) - 1))
                trained = replace(self, adapt=None)
                cache.nats(trained.log_probabilities(plain, excluded, counter), before)
        scores = cache.scores(self.log_probabilities(ids, excluded, counter), counted)
        is_unknown = ids[1:] == (-1 if excluded is None else excluded)
        chance = np.where(is_unknown, scores.unknown, scores.nats)
        return np.stack([chance, scores.nats - chance, scores.known])

    def log_probabilities(
        self, ids: Ids, excluded: int | None, counter: ProgressCounter
    ) -> Iterator[npt.NDArray[np.floating[Any]]]:
        """ln p of all tokens after each id but the last, before the cache. Shapes: parts (n, V)."""
        each = [self._member(model, ids, excluded, counter) for model in self.models]
        if self.mixture is None:
            yield from each[0]
            return
        lengths, place = self.lengths(ids), 0
        for parts in _aligned(each):
            end = place + len(parts[0])
            some = None if lengths is None else lengths[place:end]
            yield self.mixture.log_probabilities(parts, some)
            place = end

    def _member(
        self, model: LanguageModel, ids: Ids, excluded: int | None, counter: ProgressCounter
    ) -> Iterator[Nats]:
        if self.adapt is not None and not model.is_count_based:
            return adapted_log_probabilities(model, ids, self.adapt, excluded, counter)
        return stream_log_probabilities(model, ids, self.rows, counter, excluded)

    def lengths(self, ids: Ids) -> Ids | None:
        """Of the context that the first n-gram model has found before each id but the first."""
        found = (found_lengths(model, ids) for model in self.models)
        return next((lengths for lengths in found if lengths is not None), None)

    def new_unknown_texts(self) -> UnknownTexts:
        """None of them read yet, for `cached_nats`."""
        if self.cache is None:
            raise ValueError("only a cache counts unknown texts")
        return UnknownTexts(self.runs[0].tokenizer, self.cache.discount, self.cache.strength)

    def weights(self) -> tuple[Floats, int | None]:
        """Of the mixture, by context length, and the id that has no share in it."""
        weights = np.ones((1, 1)) if self.mixture is None else self.mixture.weights
        return weights, UnknownWords(self.runs[0].tokenizer).excluded

    # -------------------------------------------------------------- what is said of it

    @property
    def adaptive(self) -> list[str]:
        """What it learns from the text that it is scored on."""
        return [name for name in ("cache", "adapt") if getattr(self, name) is not None]

    def describe(self) -> str:
        """All of it in words."""
        names = [str(run.path) for run in self.runs[1:]]
        said = [f"mixed with {' and '.join(names)}"] if names else []
        if self.cache:
            parts = (
                name if text.share == 1 else f"{text.share:.2g} of {name}"
                for name, text in self.earlier.items()
            )
            begun = ", begun on " + " and ".join(parts) if self.earlier else ""
            said.append(f"with a cache of the held-out text read so far{begun}")
        if self.adapt:
            said.append("with weights adapted to the held-out text read so far")
        return ", ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Keys of ``eval --json``."""
        values: dict[str, Any] = {"method": self.describe(), "adaptive": self.adaptive}
        if self.mixture is not None:
            weights = self.mixture.to_json()
            values["mix"] = [
                {"run": str(run.path), "arch": run.record.arch, "weights": [w[m] for w in weights]}
                for m, run in enumerate(self.runs)
            ]
            values["mix_weights_by"] = "found context length" if len(weights) > 1 else None
        for name in self.adaptive:
            values[name] = getattr(self, name).to_json()
        if self.cache is not None:
            values["cache"]["begun_on"] = list(self.earlier)
            values["cache"]["begun_share"] = [text.share for text in self.earlier.values()]
        return values


def open_ensemble(
    run: Run,
    mix: Sequence[Run] = (),
    cache: bool = False,
    adapt: bool = False,
    device: str = "cpu",
    rows: int | None = None,
    on_progress: OnProgress = lambda event: None,
    begin: Sequence[str] = ("train", "valid"),
    corpus: Corpus | None = None,
    scored: str | None = None,
) -> Ensemble:
    """Load the models, and fit the weights of a mixture; runs that do not fit are a RunError.

    A cache first reads the parts of the run's own text that `begin` names, if they are there. What
    is scored must hold nothing of them: `scored` is its name, if it is a part of that text. That
    text is opened unless it is given as `corpus`.
    """
    runs = [run, *mix]
    check_vocabularies(runs)
    check_parts(runs, scored)
    models = [one.model(device) for one in runs]
    if adapt and all(model.is_count_based for model in models):
        what = f"--adapt: '{run.path}' learns by counting and has no weights to adapt"
        raise UsageError(what, "--cache counts the text that was read, over any model")
    mixture = fit_mixture(runs, models, rows, on_progress, corpus) if mix else None
    settings = CacheSettings.of(models[0].vocabulary) if cache else None
    earlier = earlier_text(run, begin, on_progress, corpus) if cache and begin else {}
    adapting = AdaptSettings.of(models[0].vocabulary) if adapt else None
    return Ensemble(runs, models, mixture, settings, adapting, earlier, rows)


def earlier_text(
    run: Run, parts: Sequence[str], on_progress: OnProgress, corpus: Corpus | None = None
) -> dict[str, EarlierText]:
    """Parts of a run's own text by name; none, with a remark, where it is gone."""
    try:
        corpus = corpus or reopen_corpus(run.record.corpus, run.path, (), on_progress)
    except TextError as error:
        on_progress(Message(f"the cache begins empty: {error.problem}"))
        return {}
    return {
        name: _sample(getattr(corpus, name), run.tokenizer, MOST_BEFORE[name]) for name in parts
    }


def _sample(split: Split, tokenizer: Tokenizer, most: int) -> EarlierText:
    """A part, or of a longer one a sample, of about `most` characters and tokens."""
    sample = split.sample(most)
    tokens = sum(len(tokenizer.encode(text)) for text in sample.documents)
    if tokens > most:
        sample = split.sample(most * sample.chars // tokens)
    return EarlierText(sample.documents, min(1.0, sample.chars / max(1, split.chars)))


def stream_of(tokenizer: Tokenizer, documents: Sequence[Ids], as_one: bool = False) -> Ids:
    """The ids of documents end to end, the start id before each or, of all as one, the first."""
    start = np.array([tokenizer.start], np.int32)
    parts = [part for ids in documents for part in (start, ids)]
    return np.concatenate([start, *(documents if as_one else parts[1:])])


def check_vocabularies(runs: Sequence[Run]) -> None:
    """A RunError if runs do not share one tokenizer."""
    first = runs[0]
    for other in runs[1:]:
        if other.tokenizer.to_json() != first.tokenizer.to_json():
            raise RunError(
                f"'{other.path}' and '{first.path}' have different vocabularies: "
                "their probabilities cannot be mixed",
                "train both on the same text with the same --tokenizer",
            )


def check_parts(runs: Sequence[Run], scored: str | None = None) -> None:
    """A RunError if a run was trained on what the first one holds out of the same text.

    On its validation part the weights are fitted; `scored` is the part to be scored, if it is one.
    """
    first = CorpusSpec.from_json(runs[0].record.corpus)
    for run in runs[1:]:
        spec = CorpusSpec.from_json(run.record.corpus)
        for part, what in (("valid", "validation"), ("test", "test")):
            if part in ("valid", scored) and spec.has_seen(part, first):
                raise RunError(
                    f"'{run.path}' was trained on the {what} part of '{runs[0].path}', so their "
                    "mixture would seem better than it is",
                    "train both with the same --rotation, --split, --valid and --test; each seed "
                    "of a comparison has a rotation of its own",
                )


def fit_mixture(
    runs: Sequence[Run],
    models: Sequence[LanguageModel],
    rows: int | None,
    on_progress: OnProgress,
    corpus: Corpus | None = None,
) -> Mixture:
    """Weights fitted on the validation part of the first run's own text."""
    run = runs[0]
    corpus = corpus or reopen_corpus(run.record.corpus, run.path, (), on_progress)
    documents = corpus.valid.sample(MOST_FITTED).documents
    return fit_documents(runs, models, documents, rows, on_progress)


def fit_documents(
    runs: Sequence[Run],
    models: Sequence[LanguageModel],
    documents: Sequence[str],
    rows: int | None,
    on_progress: OnProgress,
) -> Mixture:
    """Weights fitted on some documents."""
    tokenizer = runs[0].tokenizer
    ids = stream_of(tokenizer, [tokenizer.encode(text) for text in documents])
    excluded = UnknownWords(tokenizer).excluded
    counter = ProgressCounter(on_progress)
    counter.begin("fitting the mixture", len(models) * (len(ids) - 1), "M tokens")
    how: Any = {"counter": counter, "excluded": excluded}
    nats = np.stack([stream_nats(model, ids, rows, **how) for model in models]).astype(np.float64)
    lengths, targets = Ensemble(runs, models).lengths(ids), ids[1:]
    real = (targets != tokenizer.start) & (targets != (-1 if excluded is None else excluded))
    return Mixture.fit(nats[:, real], None if lengths is None else lengths[real])


def _aligned(streams: Sequence[Iterator[Nats]]) -> Iterator[list[Nats]]:
    """Parts of several streams cut at the same places."""
    held = [np.zeros((0, 0), np.float32) for _ in streams]
    while True:
        for m, stream in enumerate(streams):
            if not len(held[m]):
                following = next(stream, None)
                if following is None:
                    return
                held[m] = following
        size = min(map(len, held))
        yield [part[:size] for part in held]
        held = [part[size:] for part in held]


def _chosen(parts: Iterator[npt.NDArray[Any]], ids: Ids, vocabulary: int) -> Nats:
    """-ln p of each id but the first; 0 for start ids."""
    nats, place = np.zeros(len(ids) - 1, np.float32), 0
    for part in parts:
        targets = ids[place + 1 : place + 1 + len(part)]
        some = np.flatnonzero(targets < vocabulary)
        nats[place + some] = -part[some, targets[some]]
        place += len(part)
    return nats
