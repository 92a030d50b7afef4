"""What the slider begins with: texts to take filler from, and questions whose answers are known.

**In:** the runs that are served; the texts they were trained on, with the items beside them.
**Out:** `OwnText`s by name, with stretches of words as ``lmcli cloze --filler`` takes them; a
`Question` from the items of a grammar, with the cues that may be exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmcli.data.corpus import read_documents, recorded_spec
from lmcli.data.text import TextOptions
from lmcli.errors import LmcliError
from lmcli.grammars.base import Item, find_companions, read_items
from lmcli.web.models import Model, Models

PLACE, BLANK = "...", "___"
EXAMPLE = f"I grew up in France. {PLACE} I speak fluent {BLANK}"
PROMPT_WORDS = 8
LOOKED_AT = 1000
"""items, at most"""


class OwnText:
    """A text of the user's, read when filler is first wanted from it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fillers: dict[int, list[str]] = {}

    @cached_property
    def text(self) -> str:
        """All its documents, as ``lmcli cloze --filler`` reads them."""
        return "\n".join(read_documents([self.path], TextOptions()))

    def fillers(self, gap: int) -> list[str]:
        """Stretches of `gap` words, the same as those of ``lmcli cloze``."""
        from lmcli.evaluation.cloze import FILLERS, random_fillers

        if gap not in self._fillers:
            if len(self._fillers) > 64:
                self._fillers.clear()
            self._fillers[gap] = random_fillers(self.text, gap, FILLERS, seed=0)
        return self._fillers[gap]


@dataclass(frozen=True)
class KnownQuestion:
    """A sentence with a cue, a place for filler and a blank."""

    text: str
    cue: str
    answer: str
    pairs: Sequence[tuple[str, str]]
    """cues that may stand in the place of this one, and the answer to each"""

    def to_json(self) -> dict[str, Any]:
        """For the page."""
        pairs = [{"cue": cue, "answer": answer} for cue, answer in self.pairs]
        return {"text": self.text, "cue": self.cue, "answer": self.answer, "pairs": pairs}


def own_texts(models: Models) -> dict[str, OwnText]:
    """The texts of the runs by file name; of a text that facts were put into the one before."""
    found: dict[str, OwnText] = {}
    for model in models.values():
        texts = _texts_of(model)
        for path in [*_before_planting(texts), *texts]:
            with suppress(OSError, ValueError):
                if Path(path).is_file():
                    found.setdefault(Path(path).name, OwnText(str(path)))
    return found


def _texts_of(model: Model) -> Sequence[str]:
    """What the run was trained on, where it lies now."""
    return recorded_spec(model.run.record.corpus, model.run.path).texts


def _before_planting(texts: Sequence[str]) -> list[str]:
    """The user's own texts that ``make france --filler`` was given."""
    with suppress(LmcliError):
        about = find_companions(texts, lambda event: None).about or {}
        return [str(text) for text in (about.get("filler") or {}).get("texts") or []]
    return []


def known_question(models: Models) -> KnownQuestion | None:
    """From the items beside the text of the first run that has some."""
    for model in models.values():
        beside = find_companions(_texts_of(model), lambda event: None)
        facts = ((beside.about or {}).get("facts") or {}).get("pairs")
        if beside.items is None or not facts:
            continue
        pairs = [(str(cue), str(answer)) for cue, answer in facts]
        with suppress(LmcliError):
            questions = [
                q for item in read_items(beside.items)[:LOOKED_AT] if (q := _of(item, pairs))
            ]
            if questions:
                return min(questions, key=lambda q: _preference(q, pairs))
    return None


def _of(item: Item, pairs: Sequence[tuple[str, str]]) -> KnownQuestion | None:
    """An item without filler and without another cue as a question, None if it is no such."""
    cues = [cue for cue, answer in pairs if answer == item.answer and item.text.count(cue) == 1]
    named = [w for pair in pairs for w in pair if w in item.text]
    if len(cues) != 1 or set(named) != {cues[0]}:
        return None
    end = _sentence_end(item.text, item.text.index(cues[0]))
    before, after = item.text[:end], item.text[end:].strip(" ")
    if not after or re.search(r"[.!?。！？]", after):  # sentences stand between cue and blank
        return None
    text = f"{before} {PLACE} {after} {BLANK}"
    return KnownQuestion(text, cues[0], item.answer, pairs)


def _preference(
    question: KnownQuestion, pairs: Sequence[tuple[str, str]]
) -> tuple[bool, bool, int]:
    """The first pair, the sentence of the textbook, a short one."""
    textbook = "grew up in" in question.text and "speak" in question.text
    return question.cue != pairs[0][0], not textbook, len(question.text)


def _sentence_end(text: str, begin: int) -> int:
    """Where the sentence ends that the place `begin` is in, or the text.

    >>> _sentence_end("Anna grew up in Rome . now she", 16)
    22
    """
    found = re.search(r"[.!?。！？]+", text[begin:])
    return len(text) if found is None else begin + found.end()


def first_prompt(models: Models, question: KnownQuestion | None) -> str:
    """Something to begin with: the question without its blank, or words the text begins with."""
    if question is not None:
        return question.text.replace(f"{PLACE} ", "").replace(BLANK, "")
    for text in own_texts(models).values():
        with suppress(LmcliError):
            return " ".join(text.text[:400].split()[:PROMPT_WORDS])
    return ""


def command(models: Sequence[str], values: Mapping[str, Any]) -> str:
    """The command line that gives the same numbers."""
    import shlex

    options = [
        word for name, value in values.items() if value for word in (f"--{name}", str(value))
    ]
    return shlex.join(["lmcli", "cloze", *models, *options])
