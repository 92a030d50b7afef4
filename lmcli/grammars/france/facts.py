"""Facts: which cue goes with which answer, and the sentences that say so, in one language.

**In:** a TOML file, shipped or the user's own; or pairs in a CSV file and one frame.
**Out:** `Facts`; a file that is missing something is a TextError that names the field.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lmcli.errors import TextError, UsageError, did_you_mean

FOLDER = Path(__file__).with_name("facts")
FALLBACK = "en"
_SLOT = re.compile(r"\{(\w+)\}")
_HINT = "the fields are explained in docs/cookbook.md, 'Your own text'"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cue and the answer that follows from it."""

    cue: str
    """as it stands in the sentence, such as "France" or, with its preposition, "en France" """
    answer: str
    name: str
    """the cue as it stands alone"""
    also: tuple[str, ...] = ()
    """other forms of name or answer, such as cases"""

    @property
    def forms(self) -> tuple[str, ...]:
        """All by which a text can name the pair; the cue itself where no other form is in it."""
        forms = dict.fromkeys((self.name, self.answer, *self.also))
        return (*forms,) if any(form in self.cue for form in forms) else (*forms, self.cue)


@dataclasses.dataclass(frozen=True)
class Person:
    """A name, and the gender by which `Facts.words` agree with it."""

    name: str
    gender: str


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence around the word that matters: ``before + word + after``."""

    before: str
    word: str
    after: str

    def __str__(self) -> str:
        return self.before + self.word + self.after


@dataclasses.dataclass(frozen=True)
class Frame:
    """A cue and a query about one person, with room for a filler between them."""

    cue: Sentence
    query: Sentence
    joint: str

    def between(self, filler: str = "") -> str:
        """All between cue word and answer."""
        return self.cue.after + self.joint + filler + self.query.before

    def text(self, filler: str = "") -> str:
        """All before the answer."""
        return self.cue.before + self.cue.word + self.between(filler)

    def document(self, filler: str = "") -> str:
        return self.text(filler) + self.query.word + self.query.after


@dataclasses.dataclass(frozen=True)
class Facts:
    """Pairs, and the sentences in which cues are given and answers wanted."""

    source: str
    """the code of a shipped language, or the name of a file"""
    language: str
    pairs: tuple[Pair, ...]
    cues: tuple[str, ...]
    """sentences with {cue}"""
    queries: tuple[str, ...]
    """sentences with {answer}"""
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """by gender; they stand for {name}"""
    words: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """words that agree with the name, by slot and gender"""
    frequent_words: frozenset[str] = frozenset()
    """by which a text of this language is recognised"""

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """All names; nameless facts have one person who has none."""
        found = [Person(name, gender) for gender, some in self.names.items() for name in some]
        return tuple(found) or (Person("", ""),)

    def cue(self, template: str, pair: Pair, person: Person) -> Sentence:
        """A sentence that gives the cue."""
        return self._sentence(template, "cue", pair.cue, person)

    def query(self, template: str, pair: Pair, person: Person) -> Sentence:
        """A sentence that needs the answer."""
        return self._sentence(template, "answer", pair.answer, person)

    def _sentence(self, template: str, slot: str, word: str, person: Person) -> Sentence:
        values = {s: forms[person.gender] for s, forms in self.words.items()}
        values["name"] = person.name
        before, _, after = template.partition(f"{{{slot}}}")
        filled = (_SLOT.sub(lambda found: values[found[1]], part) for part in (before, after))
        return Sentence(next(filled), word, next(filled))

    def spaced(self) -> Facts:
        """The same with blanks before punctuation marks, for texts that are written so."""
        cues, queries = (
            tuple(re.sub(r"(?<=[\w}])([.,!?;:])(?=\s|$)", r" \1", t) for t in some)
            for some in (self.cues, self.queries)
        )
        return dataclasses.replace(self, cues=cues, queries=queries)


def shipped() -> list[str]:
    """The codes of the languages that lmcli brings facts for."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_facts(choice: str | Path) -> Facts:
    """The facts of a shipped language, by its code, or those of a TOML file."""
    if str(choice) in shipped():
        return _read(FOLDER / f"{choice}.toml", str(choice))
    path = Path(choice)
    if path.suffix != ".toml" and not path.exists():
        raise UsageError(
            f"--facts {choice}: no such language and no such file",
            did_you_mean(str(choice), ["auto", *shipped()]),
        )
    return _read(path, str(path))


LEAST_SHARE = 0.05
"""of a text's words that must be frequent words of a language for the text to be in it"""


def recognise(words: Sequence[str]) -> tuple[Facts, bool]:
    """The shipped facts whose frequent words make up most of the words, in lower case.

    False stands beside the facts of `FALLBACK`, where no language is recognised.
    """
    shares: dict[str, float] = {}
    known = {code: load_facts(code) for code in shipped()}
    for code, facts in known.items():
        shares[code] = sum(w in facts.frequent_words for w in words) / max(1, len(words))
    best = max(shares, key=lambda code: shares[code])
    found = shares[best] >= LEAST_SHARE
    return known[best if found else FALLBACK], found


def facts_of_pairs(path: str | Path, frame: str) -> Facts:
    """Facts from a CSV file of cue and answer, and a frame with {a}, "..." and {b}."""
    cue, dots, query = frame.replace("…", "...").partition("...")
    cue, query = cue.strip(), query.strip()
    if not dots or cue.count("{a}") != 1 or query.count("{b}") != 1 or "{b}" in cue:
        raise UsageError(
            f"--frame '{frame}': no {{a}} ... {{b}} in it",
            '--frame "I grew up in {a}. ... I speak fluent {b}."',
        )
    pairs = []
    for number, row in enumerate(csv.reader(_text(Path(path)).splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2 or not all(cells):
            problem = f"'{path}' line {number} is not a cue and an answer"
            raise TextError(problem, "two columns, such as France,French")
        pairs.append(Pair(cells[0], cells[1], cells[0]))
    cues, queries = (cue.replace("{a}", "{cue}"),), (query.replace("{b}", "{answer}"),)
    return _checked(Facts(str(path), "", tuple(pairs), cues, queries))


# ------------------------------------------------------------------ reading a file


def _read(path: Path, source: str) -> Facts:
    try:
        table = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise TextError(f"'{path}' is not TOML: {_lower(str(error))}", _HINT) from error
    fields = _Fields(path, table)
    pairs = tuple(_pair(path, n, row) for n, row in enumerate(fields.get("pairs", list), 1))
    names = fields.get("names", dict, {})
    words = fields.get("words", dict, {})
    facts = Facts(
        source,
        fields.get("language", str),
        pairs,
        fields.texts("cues"),
        fields.texts("queries"),
        {gender: _texts(path, f"names.{gender}", some) for gender, some in names.items()},
        {slot: _by_gender(path, slot, forms, names) for slot, forms in words.items()},
        frozenset(fields.get("frequent_words", str, "").casefold().split()),
    )
    return _checked(facts)


_KINDS: dict[type[Any], str] = {str: "a text", list: "a list", dict: "a table"}


class _Fields:
    """The fields of a table, each of the type that is expected of it."""

    def __init__(self, path: Path, table: Any, place: str = "") -> None:
        self.path, self.table, self.place = path, table, place

    def get(self, name: str, kind: type[Any], default: Any = None) -> Any:
        value: Any = self.table.get(name, default) if isinstance(self.table, dict) else None
        if value is None:
            raise TextError(f"'{self.path}' has no '{self.place}{name}'", _HINT)
        if not isinstance(value, kind) or value == "" != default:
            wanted = _KINDS[kind]
            raise TextError(f"'{self.path}': '{self.place}{name}' is not {wanted}", _HINT)
        return value

    def texts(self, name: str, default: Any = None) -> tuple[str, ...]:
        return _texts(self.path, self.place + name, self.get(name, list, default))


def _pair(path: Path, number: int, row: Any) -> Pair:
    fields = _Fields(path, row, f"pairs {number}: ")
    cue, answer = fields.get("cue", str), fields.get("answer", str)
    name = fields.get("name", str, cue)
    return Pair(cue.strip(), answer.strip(), name, fields.texts("also", []))


def _texts(path: Path, field: str, some: Any) -> tuple[str, ...]:
    if not isinstance(some, list) or not all(isinstance(t, str) and t.strip() for t in some):
        raise TextError(f"'{path}': '{field}' is not a list of texts", _HINT)
    return tuple(some)


def _by_gender(path: Path, slot: str, forms: Any, names: Mapping[str, Any]) -> dict[str, str]:
    fields = _Fields(path, forms, f"words.{slot}.")
    return {gender: fields.get(gender, str) for gender in names}


def _checked(facts: Facts) -> Facts:
    """The facts, if every sentence can be filled and every answer told from the others."""
    for field, slot in (("cues", "cue"), ("queries", "answer")):
        templates = getattr(facts, field)
        if not templates:
            raise TextError(f"'{facts.source}': '{field}' is empty", _HINT)
        for template in templates:
            _check_slots(facts, template, slot)
    if len(facts.pairs) < 2:
        raise TextError(f"'{facts.source}' has {len(facts.pairs)} pairs", "at least 2 are needed")
    for field in ("cue", "answer"):
        seen: dict[str, int] = {}
        for number, pair in enumerate(facts.pairs, start=1):
            word = getattr(pair, field)
            first = seen.setdefault(" ".join(word.split()), number)
            if first != number:
                problem = f"'{facts.source}': pairs {first} and {number} have the {field} '{word}'"
                raise TextError(problem, f"each pair needs {_article(field)} of its own")
    return facts


def _check_slots(facts: Facts, template: str, slot: str) -> None:
    found = _SLOT.findall(template)
    if found.count(slot) != 1:
        problem = f"'{facts.source}': '{template}' has {found.count(slot)} times {{{slot}}}"
        raise TextError(problem, f"it needs {{{slot}}} once")
    known = {slot, *facts.words, *(["name"] if facts.names else [])}
    for other in found:
        if other not in known:
            problem = f"'{facts.source}': '{template}' has {{{other}}}, which nothing stands for"
            raise TextError(problem, did_you_mean(other, known))


def _article(field: str) -> str:
    return f"an {field}" if field[0] in "aeiou" else f"a {field}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"'{path}' is not UTF-8 at byte {error.start}", "save it as UTF-8"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TextError(f"cannot read '{path}': {reason}", "check the name") from None
