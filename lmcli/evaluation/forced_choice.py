"""How likely each of several words is after a text: the one scorer of all forced choices.

**In:** a model, a tokenizer, texts, words for each; or the held-out items of a grammar.
**Out:** ln p of every word; of items by kind and gap how often the answer beats all other
candidates, and its loss. ``cloze``, ``probe recall`` and ``compare`` all ask the same items.

A word's score is the sum over its tokens. Where words are spelt out of smaller symbols, it includes
the probability that the word ends there, summed over all tokens that end it, or "German" would win
for being the beginning of "Germany". Where a tokenizer joins some of the words to the blank before
them and others not, that blank counts to the words.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmcli.errors import TextError
from lmcli.evaluation.state_batches import Ids, advance, padded, row_bytes, take
from lmcli.evaluation.statistics import Floats, Interval, half_width, wilson
from lmcli.grammars.base import Item
from lmcli.models.base import LOGITS, LanguageModel, State
from lmcli.tokenizers.base import SAFE_SPLIT, Tokenizer

LEFT = 64
"""characters before a word that are encoded with it, at the least"""
CONTROL = "control"
ITEMS_PER_GAP = 200
"""items of each kind and gap, at the most"""
STATE_MEMORY = 1 << 28
"""bytes of states held at once"""
KEPT, LONGEST_KEPT, MOST_KEPT = 1 << 12, 1 << 12, 64
"""questions whose ids are kept for the next model that is asked: how many of them, with how many
characters of text and how many words at the most, 100 MB in all"""


def encode_words(
    tokenizer: Tokenizer, left: str, words: Sequence[str], right: str = ""
) -> tuple[int, list[list[int]]]:
    """Up to which character of `left` the tokens are the same for all words; the ids after it.

    `right` is a text that follows each word and belongs to it.
    """
    split = SAFE_SPLIT.search(left, max(0, len(left) - LEFT))
    begin = split.start() if split else 0
    near = left[begin:]
    encoded = [tokenizer.encode_with_ends(near + word + right) for word in words]
    shared = min(int(np.searchsorted(e.ends, len(near), "right")) for e in encoded)
    heads = np.stack([e.ids[:shared] for e in encoded])  # (words, shared)
    shared = int((heads == heads[0]).all(0).cumprod().sum())
    edge = int(encoded[0].ends[shared - 1]) if shared else 0
    return begin + edge, [e.ids[shared:].tolist() for e in encoded]


def first_unknown(tokenizer: Tokenizer, words: Sequence[str]) -> str | None:
    """The first of the words that is empty or has a symbol which the tokenizer does not know."""
    unknown = -1 if tokenizer.unknown is None else tokenizer.unknown
    return next((w for w in words if not w or unknown in tokenizer.encode(w)), None)


def check_vocabulary(tokenizer: Tokenizer, words: Sequence[str], hint: str) -> None:
    """A TextError for a word that the tokenizer does not know."""
    unknown = first_unknown(tokenizer, words)
    if unknown is not None:
        raise TextError(f"candidate '{unknown}' is not in the vocabulary", hint)


def check_answers(tokenizer: Tokenizer, items: Sequence[Item]) -> None:
    """A TextError for candidates that the tokenizer does not know, or cannot tell apart."""
    hint = "a longer text, another --tokenizer, or other answers"
    for words, text in {item.candidates: item.text for item in items}.items():
        check_vocabulary(tokenizer, words, hint)
        seen: dict[tuple[int, ...], str] = {}
        for word, ids in zip(words, encode_words(tokenizer, text, words)[1], strict=True):
            other = seen.setdefault(tuple(ids), word)
            if other != word:
                problem = f"the tokenizer cannot tell the answer '{word}' from '{other}'"
                raise TextError(problem, hint)


def score_words(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    words: Sequence[Sequence[str]],
    right: str = "",
) -> Floats:
    """ln p of words after whole texts, all read side by side. Shapes: B x C words -> (B, C).

    With a text to the right of them, ln p of that is included, and decides where a word ends.
    """
    lefts, ids = [], []
    for text, choices in zip(texts, words, strict=True):
        is_kept = not right and len(text) <= LONGEST_KEPT and len(choices) <= MOST_KEPT
        encode = _question_ids if is_kept else _question_ids.__wrapped__
        left, mine = encode(tokenizer, text, tuple(choices), right)
        lefts.append(left.astype(np.int64))
        ids.append(mine)
    state = advance(model, [left[:-1] for left in lefts], model.initial_state(len(lefts)))
    last = np.array([left[-1] for left in lefts])
    return WordScorer(model, tokenizer, ended=not right).scores(last, ids, state)


@functools.lru_cache(maxsize=KEPT)
def _question_ids(
    tokenizer: Tokenizer, text: str, words: tuple[str, ...], right: str
) -> tuple[Ids, list[list[int]]]:
    """The ids that do not depend on the word, after the start id; then those of each word.

    All models of a comparison are asked the same, and to encode takes as long as to answer.
    """
    edge, ids = encode_words(tokenizer, text, words, right)
    encoded = tokenizer.encode_with_ends(text + words[0] + right)
    before = encoded.ids[: np.searchsorted(encoded.ends, edge, "right")]
    return np.concatenate([[tokenizer.start], before]).astype(np.int32), ids


def word_ends(tokenizer: Tokenizer) -> Tensor:
    """Which tokens cannot go on with a word that is spelt. Shapes: -> (V,)."""
    texts = [tokenizer.decode([i]) for i in range(tokenizer.size)]
    return torch.tensor([not (t[:1].isalnum() or t[:1] in "'-\ufffd") for t in texts])


class WordScorer:
    """Scores words, given as ids, for one model; `ended` says that a word must end there."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, ended: bool = True) -> None:
        self.model = model
        self.ends: Tensor | None = None
        if tokenizer.spells and ended:
            self.ends = word_ends(tokenizer)

    @torch.inference_mode()
    def scores(self, last: Ids, words: Sequence[Sequence[Sequence[int]]], state: State) -> Floats:
        """ln p of each row's words, given the state before its last token.

        Shapes: last (B,), words B x C lists of ids -> (B, C) in nats.
        """
        longest = max(len(ids) for row in words for ids in row)
        single = longest == 1 and self.ends is None
        numbers = 4 * self.model.vocabulary * (1 if single else (longest + 1) * len(words[0]))
        batch = max(1, LOGITS // numbers)
        scores = []
        for begin in range(0, len(last), batch):
            rows = np.arange(begin, min(begin + batch, len(last)))
            score = self._single if single else self._spelt
            here = torch.from_numpy(last[rows].astype(np.int64))
            scores.append(score(here, [words[r] for r in rows.tolist()], take(state, rows)))
        table: Floats = torch.cat(scores).numpy()
        return table

    def _single(self, last: Tensor, words: list[Sequence[Sequence[int]]], state: State) -> Tensor:
        logits, _ = self.model.last_logits(last.unsqueeze(1), state)
        ids = torch.tensor([[word[0] for word in row] for row in words])  # (B, C)
        return logits.double().log_softmax(-1).gather(1, ids)

    def _spelt(self, last: Tensor, words: list[Sequence[Sequence[int]]], state: State) -> Tensor:
        choices = len(words[0])
        flat = [np.array(word) for row in words for word in row]  # B C
        lengths = torch.tensor([len(word) for word in flat])
        targets = padded([np.append(word, -1) for word in flat], -1)  # (B C, T + 1)
        first = last.repeat_interleave(choices).unsqueeze(1)
        inputs = torch.cat([first, targets[:, :-1].clamp_min(0)], dim=1)
        state = take(state, torch.arange(len(last)).repeat_interleave(choices))
        total = torch.zeros(len(flat), dtype=torch.float64)
        steps = max(1, LOGITS // (4 * len(flat) * self.model.vocabulary))
        for begin in range(0, inputs.shape[1], steps):
            logits, state = self.model(inputs[:, begin : begin + steps], state)
            logs = logits.double().log_softmax(-1)  # (B C, T', V)
            wanted = targets[:, begin : begin + steps]
            each = logs.gather(2, wanted.clamp_min(0).unsqueeze(2)).squeeze(2)
            total += each.masked_fill(wanted < 0, 0.0).sum(1)
            if self.ends is not None:
                here = ((begin <= lengths) & (lengths < begin + steps)).nonzero().squeeze(1)
                after = logs[here, lengths[here] - begin]  # of the last symbol of each word
                total[here] += after[:, self.ends].logsumexp(-1)
        return total.view(-1, choices)


def normalised(scores: Floats) -> Floats:
    """Probabilities among the candidates alone. Shapes: (..., C) -> (..., C)."""
    p: Floats = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p


# ------------------------------------------------------------------ items of a grammar


@dataclass(frozen=True)
class ItemAccuracy:
    """Forced choice over items of one kind and gap."""

    kind: str
    gap: int
    count: int
    right: int
    """how often the answer beats all other candidates; a tie is not right"""
    target_nats: float
    """mean -ln p of the answer among the candidates: 0 is perfect"""
    amnesic_nats: float
    """the same for a model without memory: mean ln of the number of candidates"""
    chance: float
    target_half: float = math.nan
    """half of the 95 % t interval of `target_nats`"""
    chosen: tuple[str, ...] = ()
    """what it says in each item: the answer where that is right, else the likeliest other"""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.count

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson(self.right, self.count)


def group_items(
    items: Sequence[Item], most: int = ITEMS_PER_GAP
) -> dict[tuple[str, int], list[Item]]:
    """The first items of each kind and gap that is reported, the control first."""
    groups: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        if len(item.candidates) > 1:
            group = groups.setdefault((item.kind, item.gap), [])
            if len(group) < most:
                group.append(item)
    order = sorted(groups, key=lambda key: (key[0] != CONTROL, *key))
    return {key: groups[key] for key in order}


def main_kind(kinds: Sequence[str]) -> str:
    """The kind that comes most often, the control apart: of groups, that at the most gaps.

    >>> main_kind(["control", "country", "country", "pronoun"])
    'country'
    """
    others = [kind for kind in kinds if kind != CONTROL] or [CONTROL]
    return max(dict.fromkeys(others), key=others.count)


def item_accuracy(
    model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]
) -> ItemAccuracy:
    """The answers of items of one kind and gap, each against its item's candidates."""
    check_vocabulary(
        tokenizer,
        sorted({word for item in items for word in item.candidates}),
        "the items belong to another text than the run",
    )
    scores = item_scores(model, tokenizer, items)
    answers = [item.candidates.index(item.answer) for item in items]
    pairs = list(zip(scores, answers, strict=True))
    nats = -np.log(np.maximum([normalised(row)[a] for row, a in pairs], 1e-300))
    chosen = [_chosen(*one) for one in zip(items, scores, answers, strict=True)]
    sizes = [len(row) for row in scores]
    return ItemAccuracy(
        items[0].kind,
        items[0].gap,
        len(items),
        sum(word == item.answer for word, item in zip(chosen, items, strict=True)),
        float(np.mean(nats)),
        float(np.mean([math.log(size) for size in sizes])),
        float(np.mean([1 / size for size in sizes])),
        float(half_width(nats[:, None])[0]) if len(items) > 1 else math.nan,
        tuple(chosen),
    )


def _chosen(item: Item, scores: Floats, answer: int) -> str:
    others = np.delete(scores, answer)
    if scores[answer] > others.max():
        return item.answer
    best = int(others.argmax())
    return item.candidates[best + (best >= answer)]


def item_scores(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Floats]:
    """ln p of every candidate of every item."""
    batch = max(8, STATE_MEMORY // (8 * row_bytes(model)))
    scores: list[Floats] = [np.empty(0)] * len(items)
    for begin in range(0, len(items), batch):
        group = range(begin, min(begin + batch, len(items)))
        # candidates of one item may be fewer than another's: those of equal number at a time
        for size in sorted({len(items[i].candidates) for i in group}):
            alike = [i for i in group if len(items[i].candidates) == size]
            words = [items[i].candidates for i in alike]
            table = score_words(model, tokenizer, [items[i].text for i in alike], words)
            for i, row in zip(alike, table, strict=True):
                scores[i] = row
    return scores
