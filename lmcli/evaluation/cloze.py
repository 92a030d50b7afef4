"""Runs + a text with a blank -> how likely each word is in it.

**In:** a model, a text with ``___``, candidates or none; or held-out items made by a grammar.
**Out:** probabilities of the candidates, forced-choice accuracy by gap.

A candidate's score is ln p of all its tokens, and for tokenizers that spell words out of smaller
symbols also of the separator behind it: "German" must not win for being the beginning of "Germany".
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.statistics import Floats, wilson
from lmcli.grammars.base import Item
from lmcli.models.base import LanguageModel, State
from lmcli.tokenizers.base import Tokenizer

BLANK, PLACE = "___", "..."
ITEMS_AT_ONCE = 64


@dataclass(frozen=True)
class Cloze:
    """A text around a blank."""

    left: str
    right: str = ""

    @classmethod
    def parse(cls, text: str) -> Cloze:
        """Cut at the one ``___``; anything else is a UsageError."""
        if text.count(BLANK) != 1:
            raise UsageError(
                f"the text has {text.count(BLANK)} blanks ({BLANK}), not one",
                f'for example --text "I grew up in France . I speak fluent {BLANK}"',
            )
        left, _, right = text.partition(BLANK)
        return cls(left, right)

    def with_gap(self, filler: str) -> Cloze:
        """The same with `filler` in the place of ``...``."""
        if PLACE not in self.left:
            raise UsageError(
                f"--gaps needs a place for the filler: no '{PLACE}' before the blank",
                f'for example --text "I grew up in France . {PLACE} I speak fluent {BLANK}"',
            )
        before, _, after = self.left.partition(PLACE)
        middle = f" {filler} " if filler else " "
        return Cloze(before.rstrip(" ") + middle + after.lstrip(" "), self.right)

    def swapped(self, old: str, new: str) -> Cloze:
        """The same with one word replaced by another."""
        if old not in self.left:
            raise UsageError(
                f"--swap {old}={new}: no '{old}' before the blank", "swap a word of the text"
            )
        return Cloze(self.left.replace(old, new), self.right)


# ------------------------------------------------------------------ scores of candidates


def _pieces(tokenizer: Tokenizer, cloze: Cloze, candidate: str) -> tuple[list[int], list[int]]:
    """Token ids before the blank, and those of the candidate with what belongs to it."""
    behind = cloze.right
    if tokenizer.spells and not behind and tokenizer.unknown not in tokenizer.encode(" "):
        behind = " "
    if not tokenizer.spells and not behind.strip(" "):
        behind = ""  # a blank at the very end is no word's business
    encoded = tokenizer.encode_with_ends(cloze.left + candidate + behind)
    edge = len(cloze.left) if tokenizer.spells else len(cloze.left.rstrip(" "))
    cut = int(np.searchsorted(encoded.ends, edge, side="right"))
    ids = encoded.ids.tolist()
    return ids[:cut], ids[cut:]


@torch.inference_mode()
def candidate_scores(
    model: LanguageModel, tokenizer: Tokenizer, cloze: Cloze, candidates: Sequence[str]
) -> Floats:
    """ln p of each candidate (and the text right of the blank) given the text left of it."""
    pairs = [_pieces(tokenizer, cloze, c) for c in candidates]
    for candidate, (_, ids) in zip(candidates, pairs, strict=True):
        if not ids or tokenizer.unknown in ids[: max(1, len(tokenizer.encode(candidate)))]:
            raise TextError(
                f"candidate '{candidate}' is not in the vocabulary",
                "choose words that occur in the training text",
            )
    # a tokenizer may merge across the blank: what all have in common is read before it
    columns = zip(*(before for before, _ in pairs), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    pairs = [(before[:shared], before[shared:] + ids) for before, ids in pairs]
    left = [tokenizer.start, *pairs[0][0]]
    state = read(model, torch.tensor([left[:-1]]), model.initial_state(1))
    rows = len(candidates)
    state = tuple(part.expand(rows, *part.shape[1:]).contiguous() for part in state)
    longest = max(len(ids) for _, ids in pairs)
    inputs = torch.full((rows, longest), tokenizer.start)
    targets = torch.full((rows, longest), -1)
    for row, (_, ids) in enumerate(pairs):
        inputs[row, : len(ids)] = torch.tensor([left[-1], *ids[:-1]])
        targets[row, : len(ids)] = torch.tensor(ids)
    logs, _ = model.log_probabilities(inputs, targets, state)
    scores: Floats = logs.double().sum(1).numpy()
    return scores


def read(model: LanguageModel, ids: Tensor, state: State, chunk: int = 256) -> State:
    """The state behind some ids (B, T), read in chunks."""
    for begin in range(0, ids.shape[1], chunk):
        part = ids[:, begin : begin + chunk]
        _, state = model.log_probabilities(part, torch.full_like(part, -1), state)
    return state


def normalised(scores: Floats) -> Floats:
    """Probabilities among the candidates alone."""
    p: Floats = np.exp(scores - scores.max())
    p /= p.sum()
    return p


def log_odds(p: Floats) -> Floats:
    """ln p / (1 - p), kept finite."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds


# ------------------------------------------------------------------ the likeliest words


@torch.inference_mode()
def top_words(
    model: LanguageModel, tokenizer: Tokenizer, cloze: Cloze, top: int
) -> list[tuple[str, float]]:
    """The likeliest words in the blank with their probabilities, best first (a beam search)."""
    spelled = tokenizer.spells
    left = cloze.left if spelled else cloze.left.rstrip(" ")
    ids = [tokenizer.start, *tokenizer.encode(left).tolist()]
    state = read(model, torch.tensor([ids[:-1]]), model.initial_state(1))
    beams: list[tuple[float, list[int], State]] = [(0.0, [], state)]
    found: dict[str, float] = {}
    for _ in range(24 if spelled else 1):
        grown = []
        for log, word, state in beams:
            logits, new = model(torch.tensor([[word[-1] if word else ids[-1]]]), state)
            logs = logits[0, -1].double().log_softmax(-1)
            best = logs.topk(min(4 * top + 4, len(logs)))
            for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if token == tokenizer.unknown:
                    continue
                grown.append((log + value, [*word, token], new))
        beams = []
        for log, word, state in heapq.nlargest(4 * top + 4, grown, key=lambda g: g[0]):
            shown, ended = _word(tokenizer, word, spelled)
            if ended and shown:
                found[shown] = found.get(shown, 0.0) + math.exp(log)
            elif not ended:
                beams.append((log, word, state))
        enough = sorted(found.values(), reverse=True)[:top]
        if not beams or (len(enough) == top and math.exp(beams[0][0]) < enough[-1]):
            break
    return sorted(found.items(), key=lambda pair: -pair[1])[:top]


def _word(tokenizer: Tokenizer, ids: list[int], spelled: bool) -> tuple[str, bool]:
    """The word that tokens spell, and whether it has come to its end."""
    if not spelled:
        return tokenizer.symbol(ids[0]).strip(), True
    text = tokenizer.decode(ids)
    word = text.lstrip(" ")
    end = next((i for i, c in enumerate(word) if not (c.isalnum() or c in "'-")), None)
    return (word if end is None else word[:end]), end is not None or not text.strip(" \ufffd")


# ------------------------------------------------------------------ items of a grammar


@dataclass(frozen=True)
class Recall:
    """Forced choice over items of one gap."""

    gap: int
    count: int
    right: int
    target_nats: float
    """mean -ln p of the answer among the candidates"""
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of items whose answer beats all other candidates."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson 1927)."""
        return wilson(self.right, self.count)


def recall(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]) -> Recall:
    """Forced choice over items of one gap: the answer against the item's candidates."""
    scores = item_scores(model, tokenizer, items)
    right, nats = 0, 0.0
    for item, row in zip(items, scores, strict=True):
        answer = item.candidates.index(item.answer)
        rivals = np.delete(row, answer)
        right += bool(row[answer] > rivals.max())
        nats -= float(np.log(max(normalised(row)[answer], 1e-300)))
    chance = float(np.mean([1 / len(i.candidates) for i in items]))
    return Recall(items[0].gap, len(items), right, nats / len(items), chance)


@torch.inference_mode()
def item_scores(model: LanguageModel, tokenizer: Tokenizer, items: Sequence[Item]) -> list[Floats]:
    """ln p of every candidate of every item.

    Where each candidate is one token all items are read side by side; else one by one.
    """
    clozes = [Cloze(i.text) for i in items]
    first = [_pieces(tokenizer, c, i.candidates[0])[0] for c, i in zip(clozes, items, strict=True)]
    words = sorted({c for i in items for c in i.candidates})
    single = not tokenizer.spells and all(len(tokenizer.encode(w)) == 1 for w in words)
    if not single:
        pairs = zip(clozes, items, strict=True)
        return [candidate_scores(model, tokenizer, c, i.candidates) for c, i in pairs]
    token = {w: int(tokenizer.encode(w)[0]) for w in words}
    missing = [w for w in words if token[w] == tokenizer.unknown]
    if missing:
        raise TextError(
            f"candidate '{missing[0]}' is not in the vocabulary",
            "the items belong to another text than the run",
        )
    scores: list[Floats] = []
    for begin in range(0, len(items), ITEMS_AT_ONCE):
        some = slice(begin, begin + ITEMS_AT_ONCE)
        logits = _last_logits(model, tokenizer, first[some])  # (B, V)
        for item, row in zip(items[some], logits, strict=True):
            scores.append(row[[token[c] for c in item.candidates]].numpy())
    return scores


def _last_logits(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[list[int]]) -> Tensor:
    """Log-probabilities behind each text. Shapes: -> (B, V).

    Texts are padded on the left with the start id, which leaves no trace.
    """
    longest = 1 + max(len(ids) for ids in texts)
    padded = torch.full((len(texts), longest), tokenizer.start)
    for row, ids in enumerate(texts):
        if ids:
            padded[row, -len(ids) :] = torch.tensor(ids)
    state = read(model, padded[:, :-1], model.initial_state(len(texts)))
    logits, _ = model(padded[:, -1:], state)
    logs: Tensor = logits[:, -1].double().log_softmax(-1)
    return logs


def filler_stretches(text: str, words: int, count: int, seed: int) -> list[str]:
    """`count` chunks of so many consecutive words, from random places of a text."""
    if words == 0:
        return [""]
    all_words = text.split()
    if len(all_words) < words:
        raise TextError(
            f"the filler has {len(all_words)} words, a gap of {words} needs more",
            "give a longer --filler text",
        )
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, len(all_words) - words + 1, size=count)
    return [" ".join(all_words[b : b + words]) for b in begins]
