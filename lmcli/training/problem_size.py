"""How large a problem is: how much text, which vocabulary, how much time.

**In:** the ids of a training part, a budget, the speed of the machine.
**Out:** `ProblemSize`, and what follows from it alone: width, batch and truncation, passes. The
other rules are in defaults.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from lmcli.data.curriculum import document_lengths
from lmcli.models.base import SEVERAL_WORDS
from lmcli.registry import MODELS
from lmcli.tokenizers.base import Ids
from lmcli.training.training_settings import Budget

N = TypeVar("N", int, float)

REFERENCE = "lstm"
"""the architecture whose width the rules give; the others are matched to it"""
ASSUMED_SECONDS = 180.0
"""a budget in steps or epochs is taken for this long"""
MANY_DOCUMENTS = 200
"""fewer are no sample of lengths: they may be the parts into which one long text was split"""
LARGE_LENGTH_RATIO = 5.0
"""from here on it pays to read short documents first, in many steps of a narrow net"""
TOKENS_PER_SECOND = 1.2e5
"""of an LSTM of width 256 on two cores, validations included: assumed where nothing was measured,
and by the rules of the softmax"""
ONE_CORE = 0.6
"""updates a second on one core, relative to two"""
RELATIVE_SPEED = {"gru": 0.55, "rnn": 0.65}
"""updates a second on a CPU, relative to an LSTM of as many parameters. Constants, not measured in
each run: noise of its own could change the dropout of one row of a comparison, and a verdict"""
REFERENCE_FLOPS = 2e6
"""of its body a token, forward and backward"""
TINY, LITTLE = 5_000, 50_000
"""tokens of a text below which a model that counts first needs few passes"""
DROPOUT_EPOCHS = 8
"""passes from which on a training on documents of similar lengths has dropout"""
NARROW = 256
"""the width up to which a full softmax over many words pays after fewer passes"""
NARROW_EPOCHS, WIDE_EPOCHS = 6.5, 8.0
"""passes from which on it pays up to that width, and above it"""
MANY_WORDS = 10_000
"""a vocabulary from which on wider models have no full softmax: it was not found to pay"""
LONG = 400_000
"""tokens from which on a text by word gets a wide model, whatever its softmax is"""


@dataclass(frozen=True)
class MachineSpeed:
    """How fast a machine trains (machine_speed.py measures it)."""

    relative: float = 1.0
    """how much more a minute of training is worth than on the machines on which the rules were
    found"""
    tokens_per_second: float | None = None
    """of an LSTM of width 256, estimated with validations, rounded; None: not measured"""

    def tokens_per_rule_second(self, cores: int) -> float:
        """The tokens read in one second of `ProblemSize.seconds`."""
        if self.tokens_per_second is not None:
            return self.tokens_per_second / self.relative
        return TOKENS_PER_SECOND * (ONE_CORE if cores == 1 else 1.0)


ASSUMED_SPEED = MachineSpeed()
"""that of the machines on which the rules were found"""


@dataclass(frozen=True)
class ProblemSize:
    """What the defaults depend on."""

    tokens: int
    vocabulary: int
    seconds: float
    """of the budget, in those of a machine on which the rules were found (machine_speed.py)"""
    length_ratio: float = 1.0
    """how many times longer a long document is than a short one: 95 % over 5 % of them; 1 where
    there are too few to tell"""
    given_width: int | None = None
    """the LSTM's width where the user gave it"""
    cores: int = 2
    """CPU cores of the training; ignored for a budget in steps or epochs"""
    tokens_per_second: float = TOKENS_PER_SECOND
    """of an LSTM of width 256, in one of these `seconds`"""
    epochs: float | None = None
    """how often the text will be read, where the budget says so"""
    epochs_limit: float | None = None
    """how often a budget in minutes may read the text, where the user says so"""
    adaptive: bool = False
    """whether the user gave an adaptive softmax"""
    full: bool = False
    """whether what the user gave needs a full one"""

    @classmethod
    def of(
        cls,
        ids: Ids,
        vocabulary: int,
        budget: Budget,
        width: int | None = None,
        speed: MachineSpeed = ASSUMED_SPEED,
        cores: int = 2,
        batch: int | None = None,
        truncation: int | None = None,
    ) -> ProblemSize:
        """From a training part, a budget, and the LSTM's width, B and T where they were given.

        A budget in minutes is worth more on a machine of a higher `speed`, and on several `cores`.
        """
        minutes = budget.minutes
        seconds = ASSUMED_SECONDS if minutes is None else 60 * minutes * speed.relative
        lengths = document_lengths(ids, vocabulary)
        length_ratio = 1.0
        if len(lengths) >= MANY_DOCUMENTS:
            short, long = np.quantile(lengths, (0.05, 0.95))
            length_ratio = float(long / short)
        size = cls(len(ids), vocabulary, seconds, length_ratio, width)
        if minutes is not None:
            pace = speed.tokens_per_rule_second(cores)
            return replace(size, cores=cores, tokens_per_second=pace)
        usual_batch, usual_truncation = shape(size)
        stream = -(-len(ids) // (batch or usual_batch))
        steps_per_epoch = max(1, -(-stream // (truncation or usual_truncation)))
        steps = budget.total_steps(steps_per_epoch) or 0
        return replace(size, epochs=steps / steps_per_epoch)

    @property
    def has_varied_lengths(self) -> bool:
        """Whether some documents are much longer than others."""
        return self.length_ratio >= LARGE_LENGTH_RATIO

    @property
    def has_many_words(self) -> bool:
        """Whether most tokens are rare."""
        return self.vocabulary >= SEVERAL_WORDS

    def expected_epochs(self, arch: str = REFERENCE) -> float:
        """How often the text will be read.

        A guess, where the budget is in minutes: less by an architecture that is slower.
        """
        if self.epochs is not None:
            return self.epochs
        speed = self.tokens_per_second / TOKENS_PER_SECOND
        limit = most_epochs(self, arch) if self.epochs_limit is None else self.epochs_limit
        outputs = self.has_many_words and (self.full or self.full_softmax_pays)
        return min(speed * self.seconds / self._epoch_seconds(width(self), arch, outputs), limit)

    def full_softmax_epochs(self, hidden: int) -> float:
        """How often two cores would read the text with an output for each word, at width H.

        At the assumed pace, with which the limits that it is compared with were found. Of a budget
        in steps or epochs, in the time that it is taken for.
        """
        return self.seconds / self._epoch_seconds(hidden, outputs=True)

    @property
    def full_softmax_pays(self) -> bool:
        """Whether there is time for an output for each token of the vocabulary.

        All architectures and widths of a comparison have the same softmax: a given width is
        ignored.
        """
        return not self.has_many_words or self.full_softmax_pays_at(usual_width(self))

    def full_softmax_pays_at(self, hidden: int) -> bool:
        """The same for many words and an LSTM of width H."""
        epochs = self.full_softmax_epochs(hidden)
        if self.adaptive:
            return False
        if hidden <= NARROW and not self.has_varied_lengths:
            return epochs * (ONE_CORE if self.cores == 1 else 1.0) >= NARROW_EPOCHS
        return epochs >= WIDE_EPOCHS and self.vocabulary < MANY_WORDS

    def corrects_counts_of_little(self, arch: str) -> bool:
        """Whether a model that counts first is trained on few characters."""
        is_plain = not self.has_varied_lengths and not self.has_many_words
        return is_plain and self.tokens < LITTLE and bool(MODELS.load(arch).counts_first)

    def _epoch_seconds(self, hidden: int, arch: str = REFERENCE, outputs: bool = False) -> float:
        """Of one pass by two cores, at the LSTM's width H.

        With the time of an output for each token of the vocabulary, or without: that of a small
        vocabulary is short.
        """
        body = float((hidden / 256) ** 1.5) / RELATIVE_SPEED.get(arch, 1.0)
        output = 6 * hidden * self.vocabulary / REFERENCE_FLOPS if outputs else 0.0
        return max(1, self.tokens) * (body + output) / TOKENS_PER_SECOND


def width(scale: ProblemSize) -> int:
    """The LSTM's width H: the given one, or the usual one."""
    return scale.given_width or usual_width(scale)


def usual_width(scale: ProblemSize) -> int:
    """The LSTM's width H where none is given.

    More for many words: after 2,500 steps Moby Dick by word has 5.57 nats a word with 256 and 5.53
    with 448. But where there is time for a full softmax with 256 only, the narrower model is
    better. 315,000 words of encyclopedia articles, 16,120 different, five minutes on two cores,
    nats a word on validation: H = E = 256, full softmax, 5.285; H = 448, E = 128, adaptive, 5.439
    (one run each; other pairs: docs/benchmarks.md).
    """
    by_time = step(scale.seconds, [(20, 192), (75, 256), (150, 320), (400, 448)], 512)
    if scale.has_varied_lengths:
        by_time = step(scale.seconds, [(600, 192), (1800, 256)], 384)
    middle = 448 if scale.has_many_words else 256
    widths = [(4e3, 64), (2e4, 96), (1e5, 160), (LONG, middle), (3e6, 448)]
    hidden = min(by_time, step(scale.tokens, widths, 512))
    if not scale.has_many_words or scale.has_varied_lengths or scale.tokens >= LONG:
        return hidden
    narrows = hidden > NARROW and not scale.full_softmax_pays_at(hidden)
    return NARROW if narrows and scale.full_softmax_pays_at(NARROW) else hidden


def shape(scale: ProblemSize) -> tuple[int, int]:
    """Batch B and truncation T: never more than the text can fill eight times an epoch."""
    batch, truncation = 16, 128 if scale.has_varied_lengths else 64
    while batch * truncation * 8 > scale.tokens and batch > 2:
        batch //= 2
    return batch, truncation


def most_epochs(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """After how many passes a budget in minutes ends: by then a small text is memorised.

    A hybrid begins where counting ends, and is best after few passes, if the rate has fallen by
    then. After 20,000 characters of Emma, tiny Shakespeare and German quotations, nats/char on
    60,000 later ones: n-gram 1.770, 2.246, 1.941; hybrid with 240 passes at most and dropout 0.2
    1.723, 2.236, 1.907 (best after 8, 10 s in all), with 16 and dropout 0.5 1.715, 2.210, 1.902
    (2 s). After 2,000: n-gram 2.404, 2.737,
    2.459; hybrid with 240 passes 2.368, 2.813, 2.464, with 8 and dropout 0.5 2.372, 2.736, 2.438.

    Words, of which most are rare, are memorised sooner. Moby Dick, nats a word on validation after
    6, 11, 16, 27 passes: 5.60, 5.57, 5.60, 5.61 (the best of the last two came earlier).
    """
    if scale.has_many_words and not scale.has_varied_lengths:
        return 12.0
    if scale.corrects_counts_of_little(arch):
        return 8.0 if scale.tokens < TINY else 16.0
    batch, truncation = shape(scale)
    updates = max(1, scale.tokens // (batch * truncation))
    return float(min(240, max(100, 16000 // updates)))


def step(value: float, steps: Sequence[tuple[float, N]], last: N) -> N:
    """The entry of the first step that `value` does not reach."""
    return next((result for bound, result in steps if value < bound), last)
