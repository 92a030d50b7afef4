"""What a grammar gives: documents, held-out items with known answers, and the optimum.

**In:** a `Grammar` and a path for its text.
**Out:** three files: ``F.txt`` (one document a line), ``F.items.jsonl`` (one `Item` a line) and
``F.about.json`` (recipe, seed, checksum, counts, optimum, chance).

Words are separated by single blanks, so a word token is what stands between two blanks; the line
end counts as one more token, because a model has to predict where a document ends.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import math
import random
import shlex
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lmcli.errors import StorageError, TextError
from lmcli.grammars.about_checks import check_about
from lmcli.registry import GRAMMARS
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import COUNT, PERPLEXITY, Column, Facts, Metric, Reportable, Result, text
from lmcli.settings import Settings, update
from lmcli.storage import storage, write_files
from lmcli.write_lock import locked, sweep

FORMAT = 1
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Item:
    """A document with a blank: ``text + answer + rest``, without the line end."""

    text: str
    """everything before the answer, ending in a blank"""
    answer: str
    candidates: tuple[str, ...]
    gap: int
    """word tokens strictly between the cue and the answer"""
    kind: str
    """which memory it tests, such as ``country``, ``pronoun`` or ``control``"""
    rest: str = ""
    """what follows the answer in the document"""

    @property
    def document(self) -> str:
        return self.text + self.answer + self.rest


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best that any model can reach on average, as sums per document."""

    nats_per_document: float
    tokens_per_document: float
    """word tokens, the line end counted"""
    characters_per_document: float
    """characters, the line end counted"""

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats_per_document / self.tokens_per_document)

    @property
    def bits_per_char(self) -> float:
        return self.nats_per_document / math.log(2) / self.characters_per_document

    def as_dict(self) -> dict[str, float]:
        rates = {"perplexity": self.perplexity, "bits_per_char": self.bits_per_char}
        return dataclasses.asdict(self) | rates


class Draws:
    """Random draws that are the same in every version of Python.

    They use ``random.Random(text).random()`` only, the one stream that Python guarantees.

    >>> Draws("a").index(1000) == Draws("a").index(1000)
    True
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random  # noqa: S311 - no secrets here

    def index(self, count: int) -> int:
        """A number from 0 to count - 1, all equally likely."""
        return int(self._random() * count)

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.index(len(options))]

    def weighted(self, cumulative: Sequence[float]) -> int:
        """The place i with probability (cumulative[i] - cumulative[i-1]) / cumulative[-1]."""
        place = bisect_right(cumulative, self._random() * cumulative[-1])
        return min(place, len(cumulative) - 1)


class Grammar(abc.ABC):
    """A text made by rule. Its `Settings` may have any fields; `size` and `seed` are usual."""

    name: ClassVar[str]
    Settings: ClassVar[type[Settings]]

    @abc.abstractmethod
    def documents(self) -> Iterator[str]:
        """The documents of the text, without line ends; the same every time."""

    @abc.abstractmethod
    def items(self) -> Iterator[Item]:
        """Held-out items, none of which is in the text; the same every time."""

    @abc.abstractmethod
    def optimum(self) -> Optimum | None:
        """The entropy of a document in closed form; None where it is unknown."""

    @abc.abstractmethod
    def about(self) -> dict[str, Any]:
        """Entries of ``F.about.json`` beside checksum and counts: at least `recipe` and `seed`."""


def companions(text: Path) -> tuple[Path, Path]:
    """The items and the about file that belong to a text.

    >>> [str(p.name) for p in companions(Path("data/france.txt"))]
    ['france.items.jsonl', 'france.about.json']
    """
    return text.with_suffix(".items.jsonl"), text.with_suffix(".about.json")


@dataclasses.dataclass(frozen=True)
class Companions:
    """What `write_grammar` has put beside a text; None where there is no such file."""

    items: Path | None = None
    about: dict[str, Any] | None = None


def find_companions(texts: Iterable[str], on_progress: OnProgress = warnings_only) -> Companions:
    """The companions of the first text that has any.

    Those of a text that has been edited or made again since are left out, with a warning.
    """
    for path in map(Path, filter(_has_name, texts)):
        items, about_path = companions(path)
        about = read_about(about_path) if _is_file(about_path) else None
        if about is None and not _is_file(items):
            continue
        checksum = about.get("sha256") if about else None
        if isinstance(checksum, str) and _is_file(path) and checksum != _sha256(path):
            problem = f"'{path}' is not the text that '{about_path}' was made with"
            on_progress(Message(f"{problem}: its items and its optimum are left out", "warning"))
            continue
        return Companions(items if _is_file(items) else None, about)
    return Companions()


def is_made(text: str) -> bool:
    """Whether an about file lies beside a text, which has then a document a line."""
    return _has_name(text) and _is_file(companions(Path(text))[1])


def _has_name(text: str) -> bool:
    """Whether a TEXT is a path with a name; neither ``-``, nor an address, nor ``.``"""
    return text != "-" and "://" not in text and bool(Path(text).name)


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class MadeText(Reportable):
    """A text of a grammar on disk, and what its about file says."""

    text: Path
    about: dict[str, Any]

    def result(self) -> Result:
        """The facts, and the next command."""
        columns = [
            Column("text", text("text")),
            Column("counts", text("items")),
            Column("about", text("about")),
            Column("documents", COUNT, "documents"),
            Column("tokens", COUNT, "tokens"),
            Column("characters", COUNT, "characters"),
        ]
        if "optimum" in self.about:
            columns += [
                Column("optimum.perplexity", PERPLEXITY, "best perplexity"),
                Column("optimum.bits_per_char", Metric("bits/char", 4), "best bits/char"),
                Column("amnesic.perplexity", PERPLEXITY, "without memory"),
            ]
        if "filler" in self.about:
            columns += [
                Column("filler.times_used", Metric("text used", 1), "times your text is used"),
                Column("asked", text("gaps")),
            ]
        items, about = companions(self.text)
        values = {"text": str(self.text), "about": str(about), **self.about}
        counts = ", ".join(f"{COUNT.show(n)} {kind}" for kind, n in values["items"].items())
        gaps = f"{', '.join(map(str, values.get('gaps', ())))} {values.get('unit', '')}"
        facts = Facts(columns, values | {"counts": f"{items} ({counts})", "asked": gaps})
        path, tokenizer = shlex.quote(str(self.text)), values.get("tokenizer", "word")
        return Result("make", values, [facts], [f"lmcli compare {path} --tokenizer {tokenizer}"])


def write_grammar(grammar: Grammar, output: Path, force: bool = False) -> MadeText:
    """Write the text and its two companions; each appears complete or not at all.

    Raises StorageError if one of the three exists without `force`, or cannot be written.
    """
    paths = (output, *companions(output))
    _check_free(paths, force)
    text = "".join(document + "\n" for document in grammar.documents())
    items = list(grammar.items())
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    lines = "".join(encode(dataclasses.asdict(item)) + "\n" for item in items)
    about = _about(grammar, text, items)
    contents = (text, lines, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    with storage(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output):  # three renames are not one: the about file, which tells, is the last
        _check_free(paths, force)  # once more: another process may have written it meanwhile
        sweep(output.parent, [path.name for path in paths])
        write_files({path: content.encode() for path, content in zip(paths, contents, strict=True)})
    return MadeText(output, about)


def _check_free(paths: Iterable[Path], force: bool) -> None:
    for path in paths:
        if path.exists() and not force:
            raise StorageError(f"'{path}' exists", "--force overwrites it")


def _about(grammar: Grammar, text: str, items: Sequence[Item]) -> dict[str, Any]:
    words, documents = text.split(), text.count("\n")
    optimum = grammar.optimum()
    about = {
        "format": FORMAT,
        **grammar.about(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "documents": documents,
        "tokens": len(words) + documents,
        "characters": len(text),
        "vocabulary": len(set(words)) + 1,
        "items": dict(Counter(item.kind for item in items)),
    }
    return about | ({"optimum": optimum.as_dict()} if optimum else {})


def most_named(named: Iterable[str], item: Item) -> float:
    """How likely a reader is right who takes the answer named most often, ties by lot.

    `named` has an answer for each time that it, or what it belongs to, is named before the blank.
    """
    counts = Counter(named)
    most = [answer for answer, n in counts.items() if n == max(counts.values())]
    likely = most or item.candidates
    return (item.answer in likely) / len(likely)


def grammar_of(about: dict[str, Any] | None) -> Any:
    """The grammar that made a text and knows the optimum of a document; None without one."""
    recipe = dict(about["recipe"]) if about else {}
    if not recipe or "filler" in recipe:  # the text of a user has no known optimum
        return None
    cls = GRAMMARS.load(recipe.pop("grammar"))
    grammar = cls(update(cls.Settings(), recipe))
    return grammar if hasattr(grammar, "token_log_probabilities") else None


def read_items(path: Path) -> list[Item]:
    """The items of an ``F.items.jsonl``; a missing file or a wrong item is a TextError."""
    items: list[Item] = []
    for line in _read(path).removesuffix("\n").split("\n"):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        wrong = _what_is_wrong(fields)
        if wrong is not None:
            hint = f"an item is a line such as {EXAMPLE_ITEM}"
            raise TextError(f"'{path}' line {len(items) + 1}: {wrong}", hint)
        known = {name: fields[name] for name in _TYPES if name in fields}
        items.append(Item(**known | {"candidates": tuple(fields["candidates"])}))
    return items


def read_about(path: Path) -> dict[str, Any]:
    """What an ``F.about.json`` says; a missing, damaged or newer file is a TextError."""
    try:
        about = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise TextError(f"'{path}' is not JSON", _AGAIN) from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise TextError(f"'{path}' has no format number", _AGAIN)
    if about["format"] > FORMAT:
        problem = f"'{path}' has format {about['format']}, this lmcli reads up to {FORMAT}"
        raise TextError(problem, "install a newer lmcli")
    try:
        check_about(about)
    except ValueError as error:
        raise TextError(f"'{path}': {error}", _AGAIN) from None
    return about


_AGAIN = "make it again with 'lmcli make'"
EXAMPLE_ITEM = (
    '{"text": "Anna grew up in France. Now she speaks fluent ", "answer": "French", '
    '"candidates": ["French", "German"], "gap": 4, "kind": "country", "rest": "."}'
)
_TYPES = {"text": str, "answer": str, "candidates": list, "gap": int, "kind": str, "rest": str}
_SAID = {str: "a text in quotes", list: "a list of words", int: "a whole number from 0 on"}


def _what_is_wrong(fields: Any) -> str | None:
    """With one line of an items file: the first field that is missing or wrong."""
    if not isinstance(fields, dict):
        return "no JSON object"
    for name, kind in _TYPES.items():
        if name not in fields and name != "rest":  # which has a default
            return f"the field '{name}' is missing"
        value = fields.get(name, "")
        right = isinstance(value, kind) and not isinstance(value, bool)
        if right and kind is int:
            right = value >= 0
        if right and kind is list:
            right = all(isinstance(word, str) and word for word in value)
        if not right:
            return f"'{name}' is not {_SAID[kind]}"
    return _what_does_not_fit(fields["text"], fields["answer"], fields["candidates"])


def _what_does_not_fit(text: str, answer: str, candidates: Sequence[str]) -> str | None:
    """Between the fields of an item."""
    if answer not in candidates:
        return f"'candidates' lacks the answer '{answer}'"
    twice = next((c for c in candidates if candidates.count(c) > 1), None)
    if twice is not None:
        return f"'candidates' has '{twice}' twice"
    last, first = text[-1:], answer[0]
    if last.lower() != last.upper() and first.isalpha():
        return f"'text' ends in '{last}', not in a blank, so that the answer goes on with its word"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TextError(f"'{path}' is not UTF-8 at byte {error.start}", _AGAIN) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TextError(f"cannot read '{path}': {reason}", _AGAIN) from error


def entropy(weights: Iterable[float]) -> float:
    """The entropy of a distribution given by weights, in nats.

    >>> round(entropy([1, 1, 2]) / math.log(2), 6)
    1.5
    """
    sizes = [w for w in weights if w > 0]
    total = sum(sizes)
    return -sum(w / total * math.log(w / total) for w in sizes)
