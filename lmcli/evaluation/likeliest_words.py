"""Texts -> the words that are likeliest to come next, by a beam search.

**In:** a model, a tokenizer, texts that are read side by side.
**Out:** words with their mean probabilities. A word has a letter or a digit: neither a line end, a
punctuation mark nor the unknown word is one. Where words are spelt, the probability that a word
ends is included, as in `forced_choice`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmcli.evaluation.forced_choice import encode_words, word_ends
from lmcli.evaluation.state_batches import advance, take
from lmcli.models.base import LOGITS, LanguageModel
from lmcli.tokenizers.base import Tokenizer

LONGEST_WORD = 24
"""tokens, where words are spelt"""


def top_words(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], top: int
) -> list[tuple[str, float]]:
    """The likeliest next words with their mean probabilities over the texts, best first."""
    search = _Search(model, tokenizer, top)
    batch = max(1, LOGITS // (search.width * model.vocabulary))
    mean: dict[str, float] = {}
    for begin in range(0, len(texts), batch):
        for found in search.words_after(texts[begin : begin + batch]):
            for word, probability in found.items():
                mean[word] = mean.get(word, 0.0) + probability / len(texts)
    return sorted(mean.items(), key=lambda pair: -pair[1])[:top]


@dataclass(frozen=True)
class _Beam:
    """The beginning of a word after a text."""

    text: int
    log: float
    ids: tuple[int, ...] = ()
    row: int = 0
    """of the state that it grew from"""


class _Search:
    """A beam search for whole words."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, top: int) -> None:
        self.model, self.tokenizer, self.top = model, tokenizer, top
        self.width = 4 * top + 4  # beams a text
        self.ends = word_ends(tokenizer) if tokenizer.spells else None
        texts = (tokenizer.decode([i]) for i in range(tokenizer.size))
        self.joins = tokenizer.spells and any(t.startswith(" ") and t != " " for t in texts)
        """whether some tokens are a blank and the letters after it"""

    @torch.inference_mode()
    def words_after(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Words with their probabilities, for each text."""
        ids = []
        for text in texts:
            edge, _ = encode_words(self.tokenizer, text, ["a"])
            if self.joins and text.endswith(" "):
                edge = min(edge, len(text) - 1)  # the blank may belong to the word
            before = self.tokenizer.encode(text[:edge])
            ids.append(np.concatenate([[self.tokenizer.start], before]).astype(np.int64))
        state = advance(self.model, [i[:-1] for i in ids], self.model.initial_state(len(ids)))
        last = [int(i[-1]) for i in ids]
        beams = [_Beam(i, 0.0) for i in range(len(texts))]
        words: list[dict[str, float]] = [{} for _ in texts]
        for _ in range(LONGEST_WORD if self.tokenizer.spells else 1):
            logits, state = self.model.last_logits(torch.tensor(last).unsqueeze(1), state)
            grown: list[list[_Beam]] = [[] for _ in texts]
            for beam in self._grow(beams, logits.double().log_softmax(-1), words):
                grown[beam.text].append(beam)
            beams = [beam for pair in zip(grown, words, strict=True) for beam in self._best(*pair)]
            if not beams:
                break
            state, last = take(state, [b.row for b in beams]), [b.ids[-1] for b in beams]
        return words

    def _grow(
        self, beams: Sequence[_Beam], logs: torch.Tensor, words: Sequence[dict[str, float]]
    ) -> Iterator[_Beam]:
        """Beams with one more token. Words that end are added to `words`. Shapes: logs (B, V)."""
        if self.ends is not None and beams[0].ids:  # all are equally long
            ended = logs[:, self.ends].logsumexp(-1).tolist()
            for beam, log in zip(beams, ended, strict=True):
                self._add(beam.ids, beam.log + log, words[beam.text])
            logs = logs.masked_fill(self.ends, -math.inf)
        best = logs.topk(min(self.width, logs.shape[-1]))
        found = zip(beams, best.values.tolist(), best.indices.tolist(), strict=True)
        for row, (beam, values, tokens) in enumerate(found):
            for value, token in zip(values, tokens, strict=True):
                if token != self.tokenizer.unknown and value > -math.inf:
                    yield _Beam(beam.text, beam.log + value, (*beam.ids, token), row)

    def _best(self, beams: Sequence[_Beam], words: dict[str, float]) -> list[_Beam]:
        """The likeliest beams that may still become one of the top words."""
        likeliest = heapq.nlargest(self.width, beams, key=lambda beam: beam.log)
        if self.ends is None:
            for beam in likeliest:
                self._add(beam.ids, beam.log, words)
            return []
        enough = heapq.nlargest(self.top, words.values())
        least = enough[-1] if len(enough) == self.top else 0.0
        return [b for b in likeliest if math.exp(b.log) > least and self._is_word(b.ids)]

    def _is_word(self, ids: Sequence[int]) -> bool:
        """Whether the first sign is one of a word, or the first byte of one."""
        first = self._spelt(ids)[:1]
        if not first:
            return len(ids) == 1 and self.joins  # a blank whose word comes apart from it
        return first.isalnum() or first in "'-\ufffd"

    def _add(self, ids: Sequence[int], log: float, words: dict[str, float]) -> None:
        word = self._spelt(ids)
        if any(c.isalnum() for c in word) and "\ufffd" not in word:
            words[word] = words.get(word, 0.0) + math.exp(log)

    def _spelt(self, ids: Sequence[int]) -> str:
        """The text of some tokens, without the blank before it."""
        return self.tokenizer.decode(ids).strip(" ")
