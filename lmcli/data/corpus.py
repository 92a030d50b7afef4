"""Texts from anywhere, in a training, a validation and a test part.

**In:** a `CorpusSpec`: which texts, how to read and how to split them.
**Out:** a `Corpus`: the parts, and the spec with a sha256 of what was read.

A text is read once to see what it is and where it is to be cut. What stays in memory is where the
documents of each part lie; they are read when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from lmcli.data.documents import DocumentOffsets, Documents, find_offsets
from lmcli.data.files import find_files
from lmcli.data.split import Split, split_documents, whole
from lmcli.data.text import Digest, Limits, Text, TextOptions, open_texts
from lmcli.errors import TextError
from lmcli.report.progress import OnProgress, ProgressCounter, warnings_only

CHECKSUMS = {"sha256": "text", "valid_sha256": "validation text", "test_sha256": "test text"}
"""fields of a CorpusSpec, and what each is the checksum of"""


@dataclass(frozen=True)
class CorpusSpec:
    """Which texts, how to read and how to split them; `corpus` in run.json.

    Parts given as files are taken whole and not cut off TEXT. With `valid` alone there is no test
    part; with `test` alone validation is cut off TEXT.
    """

    texts: tuple[str, ...]
    options: TextOptions = field(default_factory=TextOptions)
    split: str = "interleaved"
    """interleaved or tail"""
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    sha256: str | None = None
    """of the content of TEXT, never of its path; None until it has been read"""
    valid_sha256: str | None = None
    """of a part that came from files of its own"""
    test_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        lists = {name: list(getattr(self, name)) for name in ("texts", "valid", "test")}
        return asdict(self) | lists

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CorpusSpec:
        """The spec that a run was made with."""
        given: dict[str, Any] = {n: tuple(data[n]) for n in ("texts", "valid", "test")}
        given |= {name: data.get(name) for name in CHECKSUMS}
        return cls(options=TextOptions(**data["options"]), split=data["split"], **given)

    def identity(self) -> dict[str, Any]:
        """What decides which characters are in which part: all but the names of the files."""
        given = asdict(self)
        return {name: given[name] for name in ("options", "split", *CHECKSUMS)}


@dataclass(frozen=True)
class Corpus:
    """A text in parts."""

    spec: CorpusSpec
    names: tuple[str, ...]
    """of the files of TEXT"""
    train: Split
    valid: Split
    test: Split | None
    texts: tuple[Text, ...] = ()
    """of all parts"""

    @property
    def sha256(self) -> str:
        """Of the content of TEXT, never of its path."""
        return self.spec.sha256 or ""

    def parts(self) -> dict[str, Split]:
        """Those that there are, by name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def check_unchanged(self) -> None:
        """A TextError if a file holds other bytes than when it was split."""
        for text in self.texts:
            text.check_unchanged()


class Document(NamedTuple):
    """A text that is read from the start state. The name is a file, or file:line."""

    name: str
    text: str


def read_documents(texts: Sequence[str], options: TextOptions) -> list[Document]:
    """The documents of TEXT arguments in order; a text that cannot be read is a TextError."""
    names, documents = find_documents(texts, options)
    return [Document(name, text) for name, text in zip(names, documents, strict=True)]


def find_documents(
    texts: Sequence[str], options: TextOptions, on_progress: OnProgress = warnings_only
) -> tuple[Iterator[str], Documents]:
    """Names of the documents of TEXT, and the documents, each read when it is taken."""
    found = _find(texts, options, Limits(), ProgressCounter(on_progress))
    names = ([f.text.name] if options.documents == "file" else f.names() for f in found)
    documents = whole(found, options.documents == "file").documents
    assert isinstance(documents, Documents)
    return chain.from_iterable(names), documents


def load_corpus(
    spec: CorpusSpec, on_progress: OnProgress = warnings_only, limits: Limits | None = None
) -> Corpus:
    """Read and split."""
    limits, counter = limits or Limits(), ProgressCounter(on_progress)
    options, blocks = spec.options, spec.options.documents == "file"
    given = {"train": spec.texts, "valid": spec.valid, "test": spec.test}
    given = {name: texts for name, texts in given.items() if texts or name == "train"}
    digests = {name: Digest() for name in given}
    found = {
        name: _find(texts, options, limits, counter, digests[name]) for name, texts in given.items()
    }
    texts = {name: tuple(f.text for f in files) for name, files in found.items()}
    _check_apart(texts)
    checksums = {name: digest.hexdigest() for name, digest in digests.items()}
    own = () if spec.valid else ("valid",) if spec.test else ("valid", "test")
    parts = split_documents(found["train"], blocks, spec.split, ("train", *own))
    parts |= {name: whole(files, blocks) for name, files in found.items() if name != "train"}
    spec = replace(
        spec,
        sha256=checksums["train"],
        valid_sha256=checksums.get("valid"),
        test_sha256=checksums.get("test"),
    )
    names = tuple(text.name for text in texts["train"])
    opened = tuple(chain.from_iterable(texts.values()))
    return Corpus(spec, names, parts["train"], parts["valid"], parts.get("test"), opened)


def reopen_corpus(
    recorded: Mapping[str, Any],
    run: object,
    texts: Sequence[str] = (),
    on_progress: OnProgress = warnings_only,
) -> Corpus:
    """The corpus that a run was made from, read again; it must be what it was.

    `recorded` is `corpus` of run.json; `run` names the run in errors; `texts` are where TEXT lies
    now, if elsewhere.
    """
    spec = CorpusSpec.from_json(recorded)
    if "-" in spec.texts and not texts:
        raise TextError(
            f"'{run}' was trained on standard input, which is gone",
            "name the text in the command, or pipe it in again and name -",
        )
    corpus = load_corpus(replace(spec, texts=tuple(texts) or spec.texts), on_progress)
    for name, what in CHECKSUMS.items():
        if getattr(corpus.spec, name) != getattr(spec, name):
            raise TextError(
                f"the {what} has changed since '{run}' was trained on it",
                "train a new run on the new text",
            )
    return corpus


def _find(
    texts: Sequence[str],
    options: TextOptions,
    limits: Limits,
    counter: ProgressCounter,
    digest: Digest | None = None,
) -> list[DocumentOffsets]:
    """Where the documents of each file lie."""
    opened = open_texts(find_files(texts), options, limits, counter)
    return [find_offsets(text, options.documents, counter, digest) for text in opened]


def _check_apart(parts: Mapping[str, Sequence[Text]]) -> None:
    """A file in two parts would be trained and tested on; files are compared by content."""
    seen: list[tuple[str, Text]] = []
    for part, texts in parts.items():
        for text in texts:
            for other_part, other in seen:
                if part != other_part and text.equals(other):
                    raise TextError(
                        f"the same text is in two parts: '{other.name}' and '{text.name}'",
                        "training, validation and test texts must differ: leave it out of one",
                    )
        seen += [(part, text) for text in texts]
