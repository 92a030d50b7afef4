"""What a model learns from and is measured on: texts that are read, split and tokenized.

**In:** a `CorpusSpec`: which texts, how to read and how to split them; a tokenizer.
**Out:** a `Dataset`, which all members of a comparison share, and as much of its held-out parts as
is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lmcli.data.corpus import CHECKSUMS, Corpus, CorpusSpec, load_rotations, reopen_corpus
from lmcli.data.split import Split
from lmcli.data.text_checks import text_remarks
from lmcli.data.token_cache import (
    TokenizedCorpus,
    cache_folder,
    count_targets,
    encode_corpus,
    encode_documents,
    tokenize_corpus,
)
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.settings import update
from lmcli.tokenizers.base import Ids, Tokenizer

MOST_SCORED = 1 << 20
"""tokens of a held-out part that are scored: of a bigger one an evenly spread sample"""


@dataclass(frozen=True)
class EvalSplit:
    """As much of a held-out part as is scored: all, or a sample that is always the same."""

    part: Split
    stream: Ids
    share: float
    """of the part's characters"""
    targets: int
    """how many tokens are predicted"""

    @classmethod
    def of(
        cls, part: Split, stream: Ids, tokenizer: Tokenizer, most: int = MOST_SCORED
    ) -> EvalSplit:
        """About `most` tokens of a part, which come from all over it.

        The texts are held in memory: a file may be edited while a model is trained on it.
        """
        share = 1.0
        if len(stream) <= most:
            sample = Split(tuple(part.documents))
        else:
            sample = part.sample(max(1, part.chars * most // len(stream)))
            share = sample.chars / part.chars
            stream = encode_documents(tokenizer, sample.documents)
        return cls(sample, stream, share, count_targets(stream, tokenizer.start))


@dataclass(frozen=True)
class Dataset:
    """A corpus that is read, split and tokenized.

    Sent to another process are the places of its ids and documents, and the texts to be scored.
    """

    corpus: Corpus
    tokenized: TokenizedCorpus
    tokenizer: str
    tokenizer_settings: dict[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        scored = {"valid": self.valid, "test": self.test}  # the file may be edited meanwhile
        return vars(self) | scored

    @property
    def spec(self) -> CorpusSpec:
        """How the text was read and split."""
        return self.corpus.spec

    @cached_property
    def valid(self) -> EvalSplit:
        """What is validated on."""
        return EvalSplit.of(self.corpus.valid, self.tokenized.valid, self.tokenized.tokenizer)

    @cached_property
    def test(self) -> EvalSplit | None:
        """What is tested on."""
        part, stream = self.corpus.test, self.tokenized.test
        if part is None or stream is None:
            return None
        return EvalSplit.of(part, stream, self.tokenized.tokenizer)

    def targets(self) -> int:
        """How many tokens of the training part are predicted: all but a start id a document."""
        return len(self.tokenized.train) - len(self.corpus.train.documents)

    def checksums(self) -> dict[str, str | None]:
        """Of the text, and of what was held out in files of its own."""
        return {name: getattr(self.spec, name) for name in CHECKSUMS}


def load_dataset(
    spec: CorpusSpec,
    tokenizer: str,
    pairs: Mapping[str, Any] | None = None,
    on_progress: OnProgress = warnings_only,
) -> Dataset:
    """Read, split and tokenize; ids come from the cache where they can."""
    return load_datasets(spec, [spec.rotation], tokenizer, pairs, on_progress)[spec.rotation]


def load_datasets(
    spec: CorpusSpec,
    rotations: Sequence[int],
    tokenizer: str,
    pairs: Mapping[str, Any] | None = None,
    on_progress: OnProgress = warnings_only,
) -> dict[int, Dataset]:
    """The same for several rotations of the blocks that are held out; the text is read once."""
    settings = update(TOKENIZERS.load(tokenizer).Settings(), pairs or {})
    corpora = load_rotations(spec, rotations, on_progress)
    for remark in text_remarks(corpora[0], tokenizer):
        on_progress(Message(remark))
    return {
        corpus.spec.rotation: _tokenized(corpus, tokenizer, settings, on_progress)
        for corpus in corpora
    }


def reopen_dataset(
    recorded: Mapping[str, Any],
    run: Path,
    tokenizer: Tokenizer,
    name: str,
    pairs: Mapping[str, Any],
    texts: Sequence[str] = (),
    on_progress: OnProgress = warnings_only,
    named: Sequence[str] = (),
) -> Dataset:
    """The dataset that a run was made from, with its own tokenizer; see `reopen_corpus`.

    The tokenizer that is trained on the text now can be another one: of another library, of another
    table of characters.
    """
    settings = update(TOKENIZERS.load(name).Settings(), pairs)
    corpus = reopen_corpus(recorded, run, texts, on_progress, named)
    dataset = _tokenized(corpus, name, settings, on_progress)
    if dataset.tokenized.tokenizer.to_json() != tokenizer.to_json():
        return replace(dataset, tokenized=encode_corpus(corpus, tokenizer, on_progress))
    return dataset


def _tokenized(corpus: Corpus, tokenizer: str, settings: Any, on_progress: OnProgress) -> Dataset:
    tokenized = tokenize_corpus(corpus, tokenizer, settings, cache_folder(), on_progress)
    return Dataset(corpus, tokenized, tokenizer, asdict(settings))
