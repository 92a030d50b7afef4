"""How likely each of several words is as the next one.

**In:** a model, a tokenizer, states, the last token before each word, the words.
**Out:** ln p of every word.

A word's score is the sum over its pieces. Where words are spelled out of smaller symbols, it
includes the probability that the word ends there (that a symbol follows which begins no more of
it), or "German" would win for being the beginning of "Germany".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmcli.evaluation.state_batches import Ids, advance, padded, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LOGITS, LanguageModel, State
from lmcli.tokenizers.base import Tokenizer

LEFT = 32
"""characters before a word that are read with it to find its pieces"""


def pieces_of(tokenizer: Tokenizer, left: str, word: str) -> list[int]:
    """The ids that `word` gets behind the text `left`."""
    cut = max(0, len(left) - LEFT)
    cut = left.find(" ", cut) + 1 if cut else 0
    near = left[cut:]
    encoded = tokenizer.encode_with_ends(near + word)
    return [int(i) for i in encoded.ids[np.searchsorted(encoded.ends, len(near), "right") :]]


class Chooser:
    """Scores words for one model."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.ends = None
        if tokenizer.spells:
            texts = [tokenizer.decode([i]) for i in range(tokenizer.size)]
            ends = [not (t[:1].isalnum() or t[:1] in "'-\ufffd") for t in texts]
            self.ends = torch.tensor(ends)  # (V,) tokens that cannot go on with a word

    @torch.inference_mode()
    def scores(self, last: Ids, words: Sequence[Sequence[Sequence[int]]], state: State) -> Floats:
        """ln p of each row's words, given the state before its last token.

        Shapes: last (B,), words B x C lists of ids -> (B, C) in nats.
        """
        longest = max(len(pieces) for row in words for pieces in row)
        some = self._at_once(longest + 1, len(words[0]))
        found = []
        for begin in range(0, len(last), some):
            rows = np.arange(begin, min(begin + some, len(last)))
            here, before = [words[r] for r in rows.tolist()], take(state, rows)
            short = longest == 1 and self.ends is None
            score = self._single if short else self._spelled
            found.append(score(torch.from_numpy(last[rows].astype(np.int64)), here, before))
        scores: Floats = torch.cat(found).numpy()
        return scores

    def _at_once(self, steps: int, choices: int) -> int:
        steps = 1 if steps == 2 and self.ends is None else steps * choices
        return max(1, LOGITS // (4 * steps * self.model.vocabulary))

    def _single(self, last: Tensor, words: list[Sequence[Sequence[int]]], state: State) -> Tensor:
        logits, _ = self.model.last_logits(last.unsqueeze(1), state)
        ids = torch.tensor([[pieces[0] for pieces in row] for row in words])  # (B, C)
        return logits.double().log_softmax(-1).gather(1, ids)

    def _spelled(self, last: Tensor, words: list[Sequence[Sequence[int]]], state: State) -> Tensor:
        choices = len(words[0])
        flat = [np.array(pieces) for row in words for pieces in row]  # B C
        targets = padded(flat, -1)  # (B C, T)
        ended = torch.cat([targets, targets.new_full((len(flat), 1), -1)], dim=1)
        first = last.repeat_interleave(choices).unsqueeze(1)
        inputs = torch.cat([first, targets.clamp_min(0)], dim=1)  # (B C, T + 1)
        rows = torch.arange(len(last)).repeat_interleave(choices)
        logits, _ = self.model(inputs, take(state, rows))
        logs = logits.double().log_softmax(-1)  # (B C, T + 1, V)
        each = logs.gather(2, ended.clamp_min(0).unsqueeze(2)).squeeze(2)
        total = each.masked_fill(ended < 0, 0.0).sum(1)
        if self.ends is not None:
            behind = torch.tensor([len(pieces) for pieces in flat])
            last_step = logs[torch.arange(len(flat)), behind]  # (B C, V)
            total = total + last_step[:, self.ends].logsumexp(-1)
        scores: Tensor = total.view(-1, choices)
        return scores


def choose_behind(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    words: Sequence[Sequence[str]],
) -> Floats:
    """ln p of words behind whole texts, all read side by side. Shapes: B x C words -> (B, C)."""
    rows = []
    for text, choices in zip(texts, words, strict=True):
        encoded = tokenizer.encode_with_ends(text + choices[0])
        ids = encoded.ids[: np.searchsorted(encoded.ends, len(text), "right")]
        rows.append(np.concatenate([[tokenizer.start], ids]).astype(np.int64))
    state = advance(model, [row[:-1] for row in rows], model.initial_state(len(rows)))
    last = np.array([row[-1] for row in rows])
    ids_of = [[pieces_of(tokenizer, t, w) for w in ws] for t, ws in zip(texts, words, strict=True)]
    return Chooser(model, tokenizer).scores(last, ids_of, state)
