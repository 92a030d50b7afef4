"""What a model learns from and is measured on: the texts chosen, read, split and tokenized.

**In:** a `CorpusSpec`: which texts, how to read and how to split them.
**Out:** a `Dataset`, which all members of a comparison share, and as much of its held-out parts as
is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from lmcli.data.corpus import Corpus, Split, load_corpus
from lmcli.data.reading import Reader, TextOptions
from lmcli.data.token_cache import Stream, TokenizedCorpus, encode_pieces
from lmcli.tokenizers.base import Tokenizer

MOST_SCORED = 1 << 20
"""tokens of a held-out part that are scored: of a bigger one an evenly spread sample"""


@dataclass(frozen=True)
class CorpusSpec:
    """Which texts, how to read and how to split them."""

    texts: tuple[str, ...]
    options: TextOptions = field(default_factory=TextOptions)
    split: str = "interleaved"
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def load(self, reader: Reader | None = None) -> Corpus:
        """Read and split."""
        split: Any = "tail" if self.split == "tail" else "interleaved"
        return load_corpus(self.texts, self.options, split, self.valid, self.test, reader)

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return {
            "texts": list(self.texts),
            "options": asdict(self.options),
            "split": self.split,
            "valid": list(self.valid),
            "test": list(self.test),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CorpusSpec:
        """The choice a run was made with."""
        return cls(
            texts=tuple(data["texts"]),
            options=TextOptions(**data["options"]),
            split=data["split"],
            valid=tuple(data["valid"]),
            test=tuple(data["test"]),
        )


@dataclass(frozen=True)
class EvalSplit:
    """As much of a held-out part as is scored: all, or a sample that is always the same."""

    part: Split
    stream: Stream
    share: float
    """of the part's characters"""

    @classmethod
    def of(
        cls, part: Split, stream: Stream, tokenizer: Tokenizer, most: int = MOST_SCORED
    ) -> EvalSplit:
        """About `most` tokens of a part, which come from all over it."""
        if len(stream) <= most:  # in memory: a file may be edited while it is trained on
            return cls(Split(tuple(part.documents)), stream, 1.0)
        sample = part.sample(max(1, part.chars * most // len(stream)))
        ids = encode_pieces(tokenizer, sample.documents)
        return cls(sample, ids, sample.chars / part.chars)

    @property
    def targets(self) -> int:
        """How many tokens are predicted: all but the start ids."""
        return len(self.stream) - len(self.part.documents)


@dataclass(frozen=True)
class Dataset:
    """A corpus in hand: read, split, tokenized."""

    spec: CorpusSpec
    corpus: Corpus
    tokenized: TokenizedCorpus
    tokenizer: str
    tokenizer_settings: dict[str, Any]

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
        """How many tokens of the training part are predicted: all but the start ids."""
        return len(self.tokenized.train) - len(self.corpus.train.documents)

    def checksums(self) -> dict[str, str | None]:
        """Of the text, and of what was held out in files of its own."""
        return self.corpus.checksums()
