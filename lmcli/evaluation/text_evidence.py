"""A text that cannot show memory is told so: what it has too little of, in one line.

**In:** runs and the words they are asked about; or the names of a text and what was tried on it.
**Out:** a line for the user that also names the command which makes a text that has enough.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence

from lmcli.data.corpus import recorded_spec, reopen_corpus
from lmcli.errors import LmcliError
from lmcli.grammars.base import find_companions
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.run import Run

FEWEST = 10
"""times that a word occurs in a text it can be learnt from"""
NAMED = 3
"""words that are named, at the most"""
LARGEST = 1 << 25
"""characters of a training part in which words are counted; a larger one is taken to have enough"""
WORD = re.compile(r"[^\W\d_]+")


def demo_command(texts: Sequence[str]) -> str:
    """The command that makes a text which can show memory out of these.

    >>> demo_command(["my poems.txt"]), demo_command(["-"])
    ("lmcli demo 'my poems.txt'", 'lmcli demo my.txt')
    """
    return f"lmcli demo {shlex.join(['my.txt'] if '-' in texts or not texts else texts)}"


def no_reach(texts: Sequence[str], tried: int) -> str:
    """The line for a text in which no run reaches back."""
    return (
        f"no run reaches back: too few of the {tried:,} words that return here depend on memory, "
        f"or the training was too short; {demo_command(texts)} makes a text that shows memory"
    )


def note_rare_words(
    runs: Sequence[Run],
    text: str,
    words: Sequence[str] = (),
    on_progress: OnProgress = warnings_only,
) -> None:
    """Say which words of `text`, and which of `words`, are too rare to be learnt, once a text.

    Nothing is said of a text that has items, which is made for this, or that is not at hand. In a
    `text` without blanks words cannot be told apart: there only `words` are counted.
    """
    blanks = " " in text.strip()
    asked = dict.fromkeys([*words, *(WORD.findall(text) if blanks else ())])
    seen = set()
    for run in runs:
        spec = recorded_spec(run.record.corpus, run.path)
        if spec.sha256 not in seen and not find_companions(spec.texts, lambda event: None).items:
            seen.add(spec.sha256)
            if line := _rare(run, [w for w in asked if WORD.search(w)], blanks):
                on_progress(
                    Message(f"{line}; {demo_command(spec.texts)} makes a text that has enough")
                )


def _rare(run: Run, words: Sequence[str], blanks: bool) -> str | None:
    """Which words are rare in the training part of a run, None if none are."""
    try:
        part = reopen_corpus(run.record.corpus, run.path, (), lambda event: None).train
    except LmcliError:
        return None
    if part.chars > LARGEST or not words:
        return None
    either = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)" if blanks else either)
    counts = Counter(word for document in part.documents for word in pattern.findall(document))
    rare = sorted((w for w in words if counts[w] < FEWEST), key=lambda word: counts[word])
    return rare_words([(word, counts[word]) for word in rare]) if rare else None


def rare_words(rare: Sequence[tuple[str, int]]) -> str:
    """Words with their counts, the rarest first, as a sentence.

    >>> rare_words([("France", 2), ("fluent", 2)])
    "'France' and 'fluent' occur 2 times each in the training text: too few to learn from"
    >>> rare_words([("Oz", 0)])
    "'Oz' occurs 0 times in the training text: too few to learn from"
    >>> rare_words([("a", 1), ("b", 3), ("c", 4), ("d", 5)])
    "'a' (1), 'b' (3), 'c' (4) and 1 more occur too rarely in the training text to learn from"
    """
    named, counts = rare[:NAMED], {count for _, count in rare}
    if len(counts) == 1 and len(rare) <= NAMED:
        times = f"{rare[0][1]} time{'s' * (rare[0][1] != 1)}"
        occur = f"occurs {times}" if len(rare) == 1 else f"occur {times} each"
        words = _listed([f"'{word}'" for word, _ in named])
        return f"{words} {occur} in the training text: too few to learn from"
    parts = [f"'{word}' ({count})" for word, count in named]
    parts += [f"{len(rare) - NAMED} more"] if len(rare) > NAMED else []
    return f"{_listed(parts)} occur too rarely in the training text to learn from"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
