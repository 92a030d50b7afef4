"""What `train` and `compare` say of a text in one line: how long a memory it rewards.

**In:** the text, as probes get it; how long was trained on it.
**Out:** the figures of `probe ceiling` in words, whatever the tokenizer of the run, and a sentence.

It takes about a fiftieth of the time of the training, at the most: of a long text a sample is
counted. After a training of less than 20 seconds nothing is said, nor of a text that has too little
to tell, or no blanks between its words.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from lmcli.data.corpus import Corpus
from lmcli.errors import LmcliError
from lmcli.evaluation.probes.ceiling.probe import LEAST, ORDER, CeilingSettings, measure_words
from lmcli.evaluation.probes.data import ProbeData
from lmcli.evaluation.probes.sampling import random_slices
from lmcli.evaluation.state_batches import documents
from lmcli.registry import TOKENIZERS
from lmcli.report.result import Metric

SHORTEST = 20.0
"""seconds of training after which the line is worth its time"""
PER_SECOND = 8000
"""training words that are counted per second of training: in about 20 ms"""
LETTERS = 6
"""characters of a word with its blank, about"""
HELD_OUT = 50_000
"""held-out words, at the most"""


def describe_ceiling(data: ProbeData, seconds: float, seed: int = 0) -> dict[str, Any] | None:
    """What memory a text rewards; None after too short a training, or where there is too little."""
    defaults = CeilingSettings()
    words = min(defaults.tokens, int(PER_SECOND * seconds))
    if seconds < SHORTEST or not data.train:
        return None
    rng, train, chars = np.random.default_rng(seed), list[str](), 0
    for part in random_slices(data.train, rng):
        train.append(part)
        chars += len(part)
        if chars >= words * LETTERS:
            break
    cls = TOKENIZERS.load("word")
    tokenizer = cls.train(train, cls.Settings())
    counted = documents(tokenizer, train, words)
    held_out = [d for d in documents(tokenizer, data.held_out, HELD_OUT) if len(d) > 1]
    known = sum(int((d != tokenizer.unknown).sum()) for d in held_out)
    total = sum(map(len, held_out))
    if total < LEAST or 2 * known < total:
        return None
    _, about = measure_words(tokenizer, counted, held_out, data, defaults.longest, seed)
    kept = {name: about[name] for name in ("reach", "worth", "answers")}
    return kept | {"sentence": _sentence(kept)}


def ceiling_of_corpus(corpus: Corpus, seconds: float, seed: int = 0) -> dict[str, Any] | None:
    """The same of a corpus; None, too, where its text has changed since it was read."""
    if seconds >= SHORTEST:
        with suppress(LmcliError):
            return describe_ceiling(ProbeData.of_corpus(corpus, lambda event: None), seconds, seed)
    return None


def _sentence(about: dict[str, Any]) -> str:
    reach, answers = about["reach"], about["answers"]
    value, low, high = (Metric("", 3).show(about["worth"][k]) for k in ("value", "low", "high"))
    figures = f"{value} nats a word, {low} to {high}"
    if not reach["tokens"]:
        said = f"on this text no word that returns rewards a memory beyond {ORDER - 1} words"
    elif reach["at_least"]:
        said = f"this text rewards a memory of {reach['tokens']:,} words and more"
    else:
        said = f"on this text a memory beyond {reach['tokens']:,} words has little to do"
    said += f" (words that return: {figures})"
    if answers:
        said += f"; but at the answers of its items memory is worth {answers['value']:.2f} nats"
    return said
