"""Texts from anywhere, in a training, a validation and a test part.

**In:** a `CorpusSpec`: which texts, how to read and how to split them.
**Out:** a `Corpus`: the parts, and the spec with a sha256 of what was read.

A text is read once to see what it is and where it is to be cut. What stays in memory is where the
documents of each part lie; they are read when they are used.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

from lmcli.data.documents import Digest, DocumentOffsets, Documents, find_offsets
from lmcli.data.files import find_files, is_special
from lmcli.data.split import Split, split_documents, whole
from lmcli.data.text import Limits, Text, TextOptions, open_texts
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
    rotation: int = 0
    """which blocks of an interleaved text are held out"""

    @property
    def can_rotate(self) -> bool:
        """Whether other blocks can be held out: not where parts are given or are the last ones."""
        return self.split == "interleaved" and not self.valid and not self.test

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        lists = {name: list(getattr(self, name)) for name in ("texts", "valid", "test")}
        return asdict(self) | lists

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CorpusSpec:
        """The spec that a run was made with."""
        given: dict[str, Any] = {n: tuple(data[n]) for n in ("texts", "valid", "test")}
        given |= {name: data.get(name) for name in CHECKSUMS}
        given["rotation"] = data.get("rotation", 0)  # runs of before 0.2 have none
        return cls(options=TextOptions(**data["options"]), split=data["split"], **given)

    def identity(self) -> dict[str, Any]:
        """What decides which characters are in which part: all but the names of the files."""
        given = asdict(self)
        return {name: given[name] for name in ("options", "split", "rotation", *CHECKSUMS)}

    def cuts(self, part: str) -> bool:
        """Whether the part, "valid" or "test", is cut off TEXT."""
        return not self.valid and (part == "valid" or not self.test)

    def has_seen(self, part: str, other: CorpusSpec) -> bool:
        """Whether a run of it has learnt from the `part` that `other` holds out.

        To have chosen its weights on a "test" part counts as well. Texts are not known to be the
        same if their documents were cut in different ways, or if one is a piece of the other.
        """
        if not other.cuts(part):  # a file of its own, if there is one
            own = getattr(other, f"{part}_sha256")
            seen = {self.sha256, self.valid_sha256} if part == "test" else {self.sha256}
            return own is not None and own in seen
        if self.sha256 != other.sha256:
            return False
        if not self.cuts(part) or self.split != other.split:
            return True
        if self.split == "interleaved":
            return self.rotation != other.rotation
        return bool(self.test) and not other.test  # it holds out less


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
    skipped: int = 0
    """empty lines that are no documents, where each line is one"""

    def parts(self) -> dict[str, Split]:
        """Those that there are, by name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def check_unchanged(self) -> None:
        """A TextError if a file holds other bytes than when it was split."""
        for text in self.texts:
            text.check_unchanged()


def read_documents(texts: Sequence[str], options: TextOptions) -> list[str]:
    """The documents of TEXT arguments in order; a text that cannot be read is a TextError."""
    return list(find_documents(texts, options)[1])


def find_documents(
    texts: Sequence[str], options: TextOptions, on_progress: OnProgress = warnings_only
) -> tuple[Iterator[str], Documents]:
    """Names, ``file`` or ``file:line``, of the documents, and these, each read when it is taken."""
    files = _find(texts, options, Limits(), ProgressCounter(on_progress))
    names = ([f.text.name] if options.documents == "file" else f.names() for f in files)
    return chain.from_iterable(names), whole(files, options.documents == "file")


def load_corpus(
    spec: CorpusSpec, on_progress: OnProgress = warnings_only, limits: Limits | None = None
) -> Corpus:
    """Read and split."""
    return load_rotations(spec, [spec.rotation], on_progress, limits)[0]


def load_rotations(
    spec: CorpusSpec,
    rotations: Sequence[int],
    on_progress: OnProgress = warnings_only,
    limits: Limits | None = None,
) -> list[Corpus]:
    """Read once, and split in several ways that hold out other blocks."""
    limits, counter = limits or Limits(), ProgressCounter(on_progress)
    blocks = spec.options.documents == "file"
    named = {"train": spec.texts, "valid": spec.valid, "test": spec.test}
    files, texts = dict[str, list[DocumentOffsets]](), dict[str, tuple[Text, ...]]()
    checksums: dict[str, Any] = dict.fromkeys(CHECKSUMS)
    for name, field_name in zip(named, CHECKSUMS, strict=True):
        if named[name] or name == "train":
            digest = Digest()
            files[name] = _find(named[name], spec.options, limits, counter, digest)
            texts[name] = tuple(f.text for f in files[name])
            checksums[field_name] = digest.hexdigest()
    _check_apart(texts)
    skipped = sum(offsets.skipped for offsets in chain.from_iterable(files.values()))
    if skipped:
        counter.note(f"{skipped:,} empty lines are left out: they are no documents")
    own = () if spec.valid else ("valid",) if spec.test else ("valid", "test")
    names = tuple(text.name for text in texts["train"])
    opened = tuple(chain.from_iterable(texts.values()))
    given = {n: Split(whole(offsets, blocks)) for n, offsets in files.items() if n != "train"}
    corpora = list[Corpus]()
    for rotation in rotations:
        whole_text = files["train"]
        if len(corpora) < len(rotations) - 1:  # of the last one no copy is kept
            whole_text = list(whole_text)
        split = spec.split, ("train", *own), rotation
        parts = given | split_documents(whole_text, blocks, *split)
        own_spec = replace(spec, **checksums, rotation=rotation)
        held_out = parts["valid"], parts.get("test")
        corpora.append(Corpus(own_spec, names, parts["train"], *held_out, opened, skipped))
    return corpora


def recorded_spec(recorded: Mapping[str, Any], run: Path) -> CorpusSpec:
    """The spec that a run was made with, its files at the places where they are now.

    They are looked for from the run's folder, for both may have been moved; where they were; and
    from the working folder.
    """
    spec, folders = CorpusSpec.from_json(recorded), recorded.get("folders")
    if not folders:  # runs of before 0.2 have none
        return spec
    places = [run / folders.get("from_run", ""), Path(folders.get("absolute", ""))]

    def found(text: str) -> str:
        for place in [] if is_special(text) else places:
            there = os.path.normpath(place / text)
            if Path(there).exists() or (glob.has_magic(text) and glob.glob(there)):  # noqa: PTH207
                return text if Path(there).absolute() == Path(text).absolute() else there
        return text

    texts, valid, test = (tuple(map(found, n)) for n in (spec.texts, spec.valid, spec.test))
    return replace(spec, texts=texts, valid=valid, test=test)


def folders(run: Path) -> dict[str, str]:
    """What `recorded_spec` needs to find the texts again: the working folder, in two ways."""
    here = Path.cwd()
    try:
        from_run = os.path.relpath(here, run.resolve())
    except ValueError:  # another drive
        from_run = str(here)
    return {"absolute": str(here), "from_run": from_run}


def reopen_corpus(
    recorded: Mapping[str, Any],
    run: Path,
    texts: Sequence[str] = (),
    on_progress: OnProgress = warnings_only,
    named: Sequence[str] = (),
) -> Corpus:
    """The corpus that a run was made from, read again; it must be what it was.

    `recorded` is `corpus` of run.json, `run` the run's folder; `texts` are where TEXT lies now, if
    elsewhere. Whoever made the run wrote its addresses, so those alone are opened that are `named`
    on the command line.
    """
    spec = recorded_spec(recorded, run)
    if texts:
        spec = replace(spec, texts=tuple(texts))
    elif "-" in spec.texts:
        raise TextError(
            f"'{run}' was trained on standard input, which is gone",
            "name the text in the command, or pipe it in again and name -",
        )
    for name in (*spec.texts, *spec.valid, *spec.test):
        if is_special(name) and name not in (*texts, *named):
            raise TextError(
                f"'{run}' was trained on {name}: an address is opened only if you name it",
                f"name it in the command: {shlex.quote(name)}",
            )
        if not texts and Path(name).exists() and not (Path(name).is_file() or Path(name).is_dir()):
            raise TextError(f"'{run}' was trained on '{name}', which is no file", "name the text")
    corpus = load_corpus(spec, on_progress)
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
    found: list[DocumentOffsets] = []
    blank: Text | None = None
    for text in open_texts(find_files(texts), options, limits, counter):
        if text.name not in texts and text.is_blank():  # one of a folder or a pattern
            counter.note(f"'{text.name}' is empty and left out", "warning")
            blank = text
            continue
        found.append(find_offsets(text, options.documents, counter, digest))
    if blank and not found:
        find_offsets(blank, options.documents, counter)  # raises the error
    return found


def _check_apart(parts: Mapping[str, Sequence[Text]]) -> None:
    """A file in two parts would be trained and tested on; files are compared by content."""
    for one, other in combinations(parts.values(), 2):
        for text, twin in product(one, other):
            if text.equals(twin):
                raise TextError(
                    f"the same text is in two parts: '{text.name}' and '{twin.name}'",
                    "training, validation and test texts must differ: leave it out of one",
                )
