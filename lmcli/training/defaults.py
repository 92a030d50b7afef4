"""A default for every setting of a model and its training that is left open.

**In:** an architecture, its settings and the training's with None where the user gave none, and a
`ProblemSize`: how much text, which vocabulary, how much time.
**Out:** the same settings with a number everywhere.

The rules are measured, not derived. Width grows with the time and is capped by the text: a wide net
memorises a small text. Many small updates beat few large ones on one or two cores (batches of 16
streams). All architectures, and all variants of the LSTM, get as many parameters in their body as
the plain LSTM would get, or as many floats of state.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from lmcli.data.curriculum import document_lengths
from lmcli.models.base import SEVERAL_WORDS
from lmcli.models.layers.recurrent import RecurrentSettings
from lmcli.registry import MODELS
from lmcli.settings import names, update
from lmcli.tokenizers.base import Ids
from lmcli.training.model_size import meta_model, size, state_size
from lmcli.training.training_settings import WEIGHT_DECAY, Budget, TrainingSettings

N = TypeVar("N", int, float)

MATCHES = ("params", "width", "state")
"""what can be made equal: parameters of the body, width H, or floats of state"""

REFERENCE = "lstm"
"""the architecture whose width the rules give; the others are matched to it"""
ASSUMED_SECONDS = 180.0
"""a budget in steps or epochs is taken for this long"""
MANY_DOCUMENTS = 200
"""fewer are no sample of lengths: they may be the parts into which one long text was split"""
LARGE_LENGTH_RATIO = 5.0
"""from here on it pays to read short documents first, in many steps of a narrow net"""
TOKENS_PER_SECOND = 1.2e5
"""of an LSTM of width 256 on two cores, validations included; only predicts how often a text will
be read"""
ONE_CORE = 0.6
"""updates a second on one core, relative to two"""
RELATIVE_SPEED = {"gru": 0.55, "rnn": 0.65}
"""updates a second on a CPU, relative to an LSTM of as many parameters. Constants, not measured in
each run: noise could change the dropout, and with it a verdict"""
REFERENCE_FLOPS = 2e6
"""of its body a token, forward and backward"""
ONE_THREAD_FLOPS = 2.5e5
"""of a model a token: about those of an LSTM of width 128"""
LEARNING_RATE_RELU = 4e-4
RATE_OF_WORDS = 0.18
"""of the usual learning rate, where words are many and most of them rare"""
LEAST_RATE = 0.4
"""of the usual learning rate, however long a training is"""
TINY, LITTLE = 5_000, 50_000
"""tokens of a text below which a model that counts first needs few passes"""
MANY_WORDS = 10_000
"""a vocabulary from which on the adaptive softmax gets further in the same time"""
FEW_EPOCHS = 8
"""the same from `SEVERAL_WORDS` on, where the text is read fewer times with the full one"""


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
    epochs: float | None = None
    """how often the text will be read, where the budget says so"""

    @classmethod
    def of(
        cls,
        ids: Ids,
        vocabulary: int,
        budget: Budget,
        width: int | None = None,
        relative_speed: float = 1.0,
        cores: int = 2,
        batch: int | None = None,
        truncation: int | None = None,
    ) -> ProblemSize:
        """From a training part, a budget, and the LSTM's width, B and T where they were given.

        A budget in minutes is worth more on a machine of a higher `relative_speed`, and on several
        `cores`.
        """
        minutes = budget.minutes
        seconds = ASSUMED_SECONDS if minutes is None else 60 * minutes * relative_speed
        lengths = document_lengths(ids, vocabulary)
        length_ratio = 1.0
        if len(lengths) >= MANY_DOCUMENTS:
            short, long = np.quantile(lengths, (0.05, 0.95))
            length_ratio = float(long / short)
        size = cls(len(ids), vocabulary, seconds, length_ratio, width)
        if minutes is not None:
            return replace(size, cores=cores)
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
        speed = RELATIVE_SPEED.get(arch, 1.0) * (ONE_CORE if self.cores == 1 else 1.0)
        return float(min(self.seconds * speed / self._epoch_seconds(), most_epochs(self)))

    @property
    def full_softmax_epochs(self) -> float:
        """How often two cores would read the text with an output for each word."""
        output = 6 * width(self) * self.vocabulary / REFERENCE_FLOPS / TOKENS_PER_SECOND
        return self.seconds / (self._epoch_seconds() + self.tokens * output)

    def _epoch_seconds(self) -> float:
        slowdown = float((width(self) / 256) ** 1.5)
        return max(1, self.tokens) * slowdown / TOKENS_PER_SECOND


def width(scale: ProblemSize) -> int:
    """The LSTM's width H.

    More for many words: after 2,500 steps Moby Dick by word has 5.57 nats a word with 256 and 5.53
    with 448.
    """
    if scale.given_width:
        return scale.given_width
    by_time = _step(scale.seconds, [(20, 192), (75, 256), (150, 320), (400, 448)], 512)
    if scale.has_varied_lengths:
        by_time = _step(scale.seconds, [(600, 192), (1800, 256)], 384)
    middle = 448 if scale.has_many_words else 256
    widths = [(4e3, 64), (2e4, 96), (1e5, 160), (4e5, middle), (3e6, 448)]
    return min(by_time, _step(scale.tokens, widths, 512))


def dropout(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """More, the more often the text will be read.

    More again where short documents come first, which are read many times as often as the whole.
    data/france.txt read 28 times (3,000 steps, one run each): an LSTM lost 0.280 bits/char with
    0.3, 0.275 with 0.5, 0.273 with 0.6; read 14 times 0.274, 0.273, 0.273, a GRU 0.277, 0.275,
    0.275.
    """
    if scale.has_varied_lengths:
        return _step(scale.expected_epochs(arch), [(7, 0.0), (14, 0.3), (36, 0.5)], 0.6)
    if _corrects_counts_of_little(scale, arch) and scale.expected_epochs(arch) >= FEW_EPOCHS:
        return 0.5
    return _step(scale.expected_epochs(arch), [(6, 0.0), (20, 0.1)], 0.2)


def weight_drop(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """Dropout of recurrent weights, where a text is read often.

    200 kB of Pride and Prejudice, LSTM of width 256, nats/char on the test part with the pair
    dropout, weight_drop (one run each). Read 15 times: (0.1, 0) 1.384, (0.1, 0.1) 1.362, (0.2, 0.2)
    1.368; 27 times: (0.2, 0) 1.353, (0.3, 0.2) 1.307, (0.5, 0.3) 1.352; 45 times: (0.5, 0) 1.355,
    (0.2, 0.3) 1.282, (0.3, 0.2) 1.288, (0.3, 0.3) 1.299, (0.5, 0.3) 1.312. Tiny Shakespeare, read 9
    times, on validation: (0, 0) 1.294, (0.1, 0.1) 1.289; in a minute on one core, which is 4 times,
    bits/char on the test part: LSTM (0, 0) 1.965, (0.1, 0.1) 2.013, GRU, twice, 2.065 and 2.116.

    data/france.txt, bits/char on the test part with 0 and 0.2. Read 30 times: LSTM 0.280 and 0.274,
    GRU 0.277 and 0.274; 14 times: LSTM 0.273 and 0.272, GRU 0.275 and 0.281.
    """
    if scale.has_varied_lengths:
        return _step(scale.expected_epochs(arch), [(20, 0.0)], 0.2)
    return _step(scale.expected_epochs(arch), [(6, 0.0), (20, 0.1), (32, 0.2)], 0.3)


def embedding(scale: ProblemSize) -> int:
    """The embedding size E: small before a wide net, a little more for many words."""
    return 64 if scale.vocabulary <= 2000 else 128


def softmax(settings: Any, scale: ProblemSize) -> str | None:
    """Adaptive for many words, or where the time is short; unless a setting needs the full one."""
    if getattr(settings, "tie", False) or getattr(settings, "direct", False):
        return None
    short_time = scale.full_softmax_epochs < FEW_EPOCHS and scale.vocabulary >= SEVERAL_WORDS
    return "adaptive" if scale.vocabulary >= MANY_WORDS or short_time else None


def shape(scale: ProblemSize) -> tuple[int, int]:
    """Batch B and truncation T: never more than the text can fill eight times an epoch."""
    batch, truncation = 16, 128 if scale.has_varied_lengths else 64
    while batch * truncation * 8 > scale.tokens and batch > 2:
        batch //= 2
    return batch, truncation


def curriculum(scale: ProblemSize) -> float:
    """The share of the budget that begins with short documents: none where all are much alike."""
    return 0.6 if scale.has_varied_lengths else 0.0


def most_epochs(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """After how many passes a budget in minutes ends: by then a small text is memorised.

    A hybrid begins where counting ends, and is best after few passes, if the rate has fallen by
    then. After 20,000 characters of Emma, tiny Shakespeare and German quotations, nats/char on
    60,000 later ones: n-gram 1.770, 2.246, 1.941; hybrid with 240 passes at most and dropout 0.2
    1.723, 2.236, 1.907 (best after 8, 10 s in all), with 16 and dropout 0.5 1.715, 2.210, 1.902
    (2 s); with an input dropout of 0.2 too 1.714, 2.202, 1.868. After 2,000: n-gram 2.404, 2.737,
    2.459; hybrid with 240 passes 2.368, 2.813, 2.464, with 8 and dropout 0.5 2.372, 2.736, 2.438.

    Words, of which most are rare, are memorised sooner. Moby Dick, nats a word on validation after
    6, 11, 16, 27 passes: 5.60, 5.57, 5.60, 5.61 (the best of the last two came earlier).
    """
    if scale.has_many_words and not scale.has_varied_lengths:
        return 12.0
    if _corrects_counts_of_little(scale, arch):
        return 8.0 if scale.tokens < TINY else 16.0
    batch, truncation = shape(scale)
    updates = max(1, scale.tokens // (batch * truncation))
    return float(min(240, max(100, 16000 // updates)))


def _corrects_counts_of_little(scale: ProblemSize, arch: str) -> bool:
    """Whether a model that counts first is trained on few characters."""
    is_plain = not scale.has_varied_lengths and not scale.has_many_words
    return is_plain and scale.tokens < LITTLE and MODELS.load(arch).counts_first


def learning_rate(arch: str, settings: Any, scale: ProblemSize) -> float:
    """Peak rate: that of the architecture, less for wider models, longer trainings, many words.

    Best of several rates, characters of tiny Shakespeare: an LSTM of 2,600 steps (20 s) 1.6e-2, of
    7,800 (90 s) 6e-3; words of Moby Dick, 2,500 steps, 2.1e-3 (see `weight_decay`).

    Less also where documents differ in length. An LSTM on sentences planted in a novel,
    2,500 steps, right after 400 words: 74 % with 4e-3, 96 % with 2e-3 (one run each).
    """
    share = 0.45 if scale.has_varied_lengths else 1.0
    share *= math.sqrt(256 / max(96, width(scale)))
    if is_unbounded(settings):
        return LEARNING_RATE_RELU * share
    if scale.has_many_words:
        share *= RATE_OF_WORDS
    elif not _corrects_counts_of_little(scale, arch):  # which is short, whatever the budget is
        share *= min(1.0, max(LEAST_RATE, (20 / scale.seconds) ** 0.4))
    return float(MODELS.load(arch).learning_rate) * share


def beta2(scale: ProblemSize) -> float:
    """Less for few tokens, all of which have a gradient at nearly every step.

    Nats a token on validation with 0.999 and 0.99: tiny Shakespeare (7,800 steps) 1.325 and 1.319;
    Moby Dick by word (3,000 steps) 5.78 and 5.90.
    """
    return 0.999 if scale.has_many_words else 0.99


def second_moment(scale: ProblemSize) -> str:
    """One a table where words are many, most of them rare: see optimizer.py.

    Nats a word on validation, LSTM of width 256, rate 2.1e-3, with one an entry and one a table:
    Moby Dick (2,500 steps) 5.77 and 5.65, with weight decay 1 5.77 and 5.57; Emma (2,000 steps)
    4.40 and, with weight decay 1, 4.15. An n-gram has 5.38 and 4.42.
    """
    return "table" if scale.has_many_words else "entry"


def weight_decay(scale: ProblemSize) -> float:
    """More where words are many.

    Moby Dick by word, one second moment a table, 2,500 steps, nats a word on validation: rate
    2.1e-3 and decay 0.01, 1, 3: 5.65, 5.57, 5.73; decay 1 and rate 1.1e-3, 4.2e-3: 5.62, 5.59.
    """
    return 1.0 if scale.has_many_words else WEIGHT_DECAY


def is_unbounded(settings: Any) -> bool:
    """Whether the state has no bound, as that of rectified units.

    Learnt on short documents it grows beyond all measure in longer ones: with short documents first
    the loss of such an RNN on data/france.txt was 2.2, then 296 when documents of twice the length
    came.
    """
    return getattr(settings, "activation", None) == "relu"


def cpu_threads(arch: str, settings: Any, vocabulary: int) -> int | None:
    """One for a model so small that more are no faster; None: as torch or OMP_NUM_THREADS says."""
    if "OMP_NUM_THREADS" in os.environ or MODELS.load(arch).is_count_based:
        return None
    flops = meta_model(arch, settings, vocabulary).flops_per_token()
    return 1 if flops < ONE_THREAD_FLOPS else None


def _step(value: float, steps: list[tuple[float, N]], last: N) -> N:
    """The entry of the first step that `value` does not reach."""
    return next((result for bound, result in steps if value < bound), last)


def resolve_defaults(
    arch: str, settings: Any, training: TrainingSettings, scale: ProblemSize, match: str = "params"
) -> tuple[Any, TrainingSettings]:
    """Both settings with every None filled in."""
    if arch == REFERENCE and settings.hidden:
        scale = replace(scale, given_width=settings.hidden)
    batch, truncation = shape(scale)
    training = _fill(
        training,
        batch=batch,
        truncation=truncation,
        curriculum=0.0 if is_unbounded(settings) else curriculum(scale),
        learning_rate=learning_rate(arch, settings, scale),
        beta2=beta2(scale),
        second_moment=second_moment(scale),
        weight_decay=weight_decay(scale),
        most_epochs=most_epochs(scale, arch),
    )
    open_width = getattr(settings, "hidden", 0) is None
    settings = _fill(
        settings,
        embedding=embedding(scale),
        dropout=dropout(scale, arch),
        weight_drop=weight_drop(scale, arch),
        softmax=softmax(settings, scale),
    )
    if open_width:
        settings = replace(settings, hidden=width(scale))
        if match != "width":
            match_to_lstm = match_state if match == "state" else match_parameters
            settings = match_to_lstm(arch, settings, scale)
    return settings, training


def _fill(settings: Any, **defaults: Any) -> Any:
    missing = {k: v for k, v in defaults.items() if getattr(settings, k, 0) is None}
    return replace(settings, **missing)


def reference(settings: Any, scale: ProblemSize) -> Any:
    """Settings of the plain LSTM to which a model with `settings` is matched.

    It has the layers and the output layer that were given, and never a block.
    """
    plain = MODELS.load(REFERENCE).Settings()
    given = changed(settings)  # an architecture's own defaults were not set by the user
    same = {n: given[n] for n in names(RecurrentSettings) & given.keys() - {"block"}}
    same |= {"hidden": width(scale), "embedding": same.get("embedding", embedding(scale))}
    return update(plain, same)


def match_parameters(arch: str, settings: Any, scale: ProblemSize) -> Any:
    """`settings` with the width at which the model is as big as the reference LSTM.

    The body (all but embedding and output layer) counts; among widths whose body is within 4 %
    the one whose total is nearest is taken.
    """
    wanted = size(REFERENCE, reference(settings, scale), scale.vocabulary)

    def found(hidden: int) -> tuple[int, int]:
        return size(arch, replace(settings, hidden=hidden), scale.vocabulary)

    def mismatch(hidden: int) -> tuple[float, float]:
        body, total = found(hidden)
        return max(0.04, abs(body / wanted[0] - 1)), abs(total / wanted[1] - 1)

    if found(width(scale)) == wanted:
        return replace(settings, hidden=width(scale))
    least = _least_width(lambda hidden: found(hidden)[0] >= wanted[0], scale)
    nearby = range(max(1, int(0.95 * least) - 1), int(1.05 * least) + 2)
    return replace(settings, hidden=min(nearby, key=mismatch))


def match_state(arch: str, settings: Any, scale: ProblemSize) -> Any:
    """`settings` with which the state has as many floats as the reference LSTM's.

    A recurrence is given the width for it. A model whose state is a window of tokens is given the
    window, unless that was set, and the width at which it is as big as the LSTM.
    """
    wanted = state_size(REFERENCE, reference(settings, scale), scale.vocabulary)

    def found(**changes: int) -> int:
        return state_size(arch, replace(settings, **changes), scale.vocabulary)

    if not hasattr(settings, "window"):
        least = _least_width(lambda hidden: found(hidden=hidden) >= wanted, scale)
        return replace(settings, hidden=least)
    for _ in range(0 if "window" in changed(settings) else 2):  # each depends on the other
        settings = match_parameters(arch, settings, scale)
        settings = replace(settings, window=1 + max(1, round(wanted / found(window=2))))
    return match_parameters(arch, settings, scale)


def _least_width(is_enough: Callable[[int], bool], scale: ProblemSize) -> int:
    """The first width that is enough, if all above it are."""
    low, high = 1, 64 * width(scale)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def changed(settings: Any) -> dict[str, Any]:
    """The settings that differ from their class's defaults."""
    defaults = vars(type(settings)())
    return {name: value for name, value in vars(settings).items() if value != defaults[name]}


def describe_defaults(arch: str, settings: Any, training: TrainingSettings) -> str:
    """One line for the user: what was chosen, and what differs from the architecture's defaults.

    >>> from lmcli.models.lstm import LSTMSettings
    >>> training = TrainingSettings(batch=16, truncation=64)
    >>> describe_defaults("lstm", LSTMSettings(hidden=256), training)
    'lstm: hidden=256 | batch=16 truncation=64'
    """
    chosen = changed(settings).items()
    parts = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in chosen]
    line = f"{arch}: {' '.join(parts) or 'nothing to choose'}"
    if MODELS.load(arch).is_count_based:
        return f"{line}; learns by counting, once"
    line += f" | batch={training.batch} truncation={training.truncation}"
    return line + (f" learning_rate={training.learning_rate:.4g}" if training.learning_rate else "")
