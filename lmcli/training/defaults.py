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
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lmcli.models.layers.recurrent import RecurrentSettings
from lmcli.registry import MODELS
from lmcli.settings import names, update
from lmcli.training.model_size import meta_model, size, state_size
from lmcli.training.problem_size import (
    DROPOUT_EPOCHS,
    NARROW,
    REFERENCE,
    TINY,
    ProblemSize,
    most_epochs,
    shape,
    step,
    usual_width,
    width,
)
from lmcli.training.training_settings import BATCH, TRUNCATION, WEIGHT_DECAY, TrainingSettings

MATCHES = ("params", "width", "state")
"""what can be made equal: parameters of the body, width H, or floats of state"""

ONE_THREAD_FLOPS = 2.5e5
"""of a model a token: about those of an LSTM of width 128"""
LEARNING_RATE_RELU = 4e-4
RATE_OF_WORDS = 0.18
"""of the usual learning rate, where words are many and most of them rare"""
LEAST_RATE = 0.4
"""of the usual learning rate, however long a training is"""
LARGEST_DECAY = 0.5
"""weight decay over characters (see `weight_decay`)"""
DECAYS_PER_TRAINING = 10.0
"""how often, in a training of many passes, weights decay to 1/e at the peak rate"""
MOST_DECAY_PASSES = 10.0
"""in which weights decay to 1/e at the peak rate, however many there are"""


def dropout(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """More, the more often the text will be read.

    Nats/char on text that follows, without and with dropout and weight_drop of 0.1. LSTM, tiny
    Shakespeare, a million characters, 7 passes, seeds 0, 1, 2: 1.437, 1.429, 1.435 and 1.446,
    1.433, 1.447; 200,000 characters of Emma, tiny Shakespeare, German quotations, 7 passes: 1.350,
    1.785, 1.859 and 1.363, 1.790, 1.870; 14 passes: 1.372, 1.827, 1.941 and 1.328, 1.771, 1.847.
    Emma and tiny Shakespeare, GRU, 5 passes: 1.379, 1.811 and 1.398, 1.813; RNN, 10 passes: 1.429,
    1.895 and 1.439, 1.875. LSTM by word, nats a word: Emma, 8 passes, 4.026 and 4.041,
    encyclopedia articles, 11 passes, 5.227 and 5.209.

    More again where short documents come first, which are read many times as often as the whole.
    data/france.txt read 28 times (3,000 steps, one run each): an LSTM lost 0.280 bits/char with
    0.3, 0.275 with 0.5, 0.273 with 0.6; read 14 times 0.274, 0.273, 0.273, a GRU 0.277, 0.275,
    0.275.
    """
    if scale.has_varied_lengths:
        return step(scale.expected_epochs(arch), [(7, 0.0), (14, 0.3), (36, 0.5)], 0.6)
    if scale.corrects_counts_of_little(arch) and scale.expected_epochs(arch) >= DROPOUT_EPOCHS:
        return 0.5
    return step(scale.expected_epochs(arch), [(DROPOUT_EPOCHS, 0.0), (20, 0.1)], 0.2)


def input_dropout(scale: ProblemSize, arch: str = REFERENCE) -> float:
    """Of a hybrid of few characters alone.

    After 20,000 characters of Emma, tiny Shakespeare and German quotations, weight decay 0.5,
    nats/char on 60,000 later ones with 0 and 0.2: 1.725 and 1.717, 2.195 and 2.189, 1.888 and
    1.872; after 2,000 2.370 and 2.372, 2.736 and 2.759, 2.442 and 2.431.
    """
    if scale.tokens < TINY or not scale.corrects_counts_of_little(arch):
        return 0.0
    return 0.2 if scale.expected_epochs(arch) >= DROPOUT_EPOCHS else 0.0


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

    A hybrid after 20,000 characters of Emma, tiny Shakespeare and German quotations, with 0.1, 0.2
    and 0.3: 1.722, 1.721, 1.717; 2.197, 2.199, 2.189; 1.896, 1.869, 1.872.
    """
    if scale.has_varied_lengths:
        return step(scale.expected_epochs(arch), [(20, 0.0)], 0.2)
    if scale.corrects_counts_of_little(arch) and scale.expected_epochs(arch) >= DROPOUT_EPOCHS:
        return 0.3
    steps = [(DROPOUT_EPOCHS, 0.0), (20, 0.1), (32, 0.2)]
    return step(scale.expected_epochs(arch), steps, 0.3)


def embedding(scale: ProblemSize) -> int:
    """The embedding size E: small before a wide net, more for many words.

    315,000 words of encyclopedia articles, 16,120 different, full softmax, H = 256, six minutes on
    one core, nats a word on validation with E = 128 and 256: 5.423 and 5.338. Emma by word, H =
    448, perplexity on the test part with 128 and 384: 50.3 and 51.6 (one run each).
    """
    if not scale.has_many_words:
        return 64
    is_narrow = usual_width(scale) == NARROW and not scale.has_varied_lengths
    return 256 if is_narrow and scale.full_softmax_pays else 128


def softmax(settings: Any, scale: ProblemSize) -> str | None:
    """Adaptive for many words where the time is short; unless a setting needs the full one."""
    if _needs_full_softmax(settings):
        return None
    return None if scale.full_softmax_pays else "adaptive"


def _needs_full_softmax(settings: Any) -> bool:
    return getattr(settings, "tie", False) or getattr(settings, "direct", False)


def curriculum(scale: ProblemSize) -> float:
    """The share of the budget that begins with short documents: none where all are much alike."""
    return 0.6 if scale.has_varied_lengths else 0.0


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
    elif (scale.epochs_limit or 0.0) > most_epochs(scale, arch) or not (
        scale.corrects_counts_of_little(arch)  # whose training is short, whatever the budget is
    ):
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


def weight_decay(scale: ProblemSize, arch: str, training: TrainingSettings) -> float:
    """Larger where words are many, and for an LSTM and a hybrid that read characters.

    It follows from a time constant: the passes in which a weight without gradients falls to 1/e at
    the peak rate. Counted in passes, the best one hardly depends on text and rate (Wang and
    Aitchison 2024, "How to set AdamW's weight decay as you scale model and dataset size"). Here it
    is a tenth of all passes, at least the architecture's `decay_timescale` and at most 10.

    Nats/char on text that follows, 200 kB of tiny Shakespeare and of German quotations. Hybrid,
    read 18 times, decay 0.01 and 0.5: 1.758 and 1.720, 1.784 and 1.698. LSTM, read 25 times, 0.01
    and 0.2: 1.828 and 1.742, 1.863 and 1.846; 75 times, falling in 3.5, 10, 20 passes: 1.598,
    1.575, 1.589 and 1.541, 1.510, 1.529. Emma and tiny Shakespeare, decay 0.01 and 0.5: GRU 1.358
    and 1.394, 1.820 and 1.796; attention 1.460 and 1.485, 1.928 and 1.913; RNN on Emma, 0.7, 1.407
    and 1.523. It helps after few passes too. Tiny Shakespeare, 0.01 and this, LSTM, seeds 0 and 1,
    3 passes: 1.497, 1.495 and 1.479, 1.474; 6 passes: 1.476, 1.482 and 1.456, 1.463; hybrid, 4
    passes: 1.434 and 1.424; GRU, 3 passes, 0.01 and 0.04: 1.496 and 1.496. Five novels, LSTM, 1
    pass: 1.297 and 1.293. All that was tried: docs/benchmarks.md.

    Moby Dick by word, one second moment a table, 2,500 steps, nats a word on validation: rate
    2.1e-3 and decay 0.01, 1, 3: 5.65, 5.57, 5.73; decay 1 and rate 1.1e-3, 4.2e-3: 5.62, 5.59.
    """
    if scale.has_many_words:
        return 1.0
    if scale.has_varied_lengths or not training.peak_rate:
        return WEIGHT_DECAY
    batch, truncation = training.batch or BATCH, training.truncation or TRUNCATION
    updates = max(1.0, scale.tokens / (batch * truncation))  # of a pass
    longer = min(MOST_DECAY_PASSES, scale.expected_epochs(arch) / DECAYS_PER_TRAINING)
    passes: float = max(MODELS.load(arch).decay_timescale, longer)
    return min(LARGEST_DECAY, max(WEIGHT_DECAY, 1 / (passes * updates * training.peak_rate)))


def recurrent_weight_decay(scale: ProblemSize, arch: str, decay: float) -> float:
    """As the `decay` of other weights, of the LSTM and the hybrid.

    Without and with it, on the texts above: hybrid, decay 0.5, 1.305 and 1.297, 1.724 and 1.720,
    1.724 and 1.698; LSTM, 0.2, 1.327 and 1.318, 1.781 and 1.742, 1.797 and 1.846. By word, decay 1,
    LSTM, nats a word on the end of the text: Emma 3.917 and 3.886, after 9 passes 4.121 and 4.102,
    Sense and Sensibility 4.328 and 4.299, encyclopedia articles after 4 passes 5.552 and 5.550.
    None where documents differ in length, as those do that ask for what was said long ago.
    """
    timescale = MODELS.load(arch).decay_timescale
    return decay if math.isfinite(timescale) and not scale.has_varied_lengths else 0.0


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


def resolve_defaults(
    arch: str, settings: Any, training: TrainingSettings, scale: ProblemSize, match: str = "params"
) -> tuple[Any, TrainingSettings]:
    """Both settings with every None filled in."""
    if training.most_epochs is not None:
        scale = replace(scale, epochs_limit=training.most_epochs or math.inf)
    if is_tied(settings):  # if both are given and differ, the model says so
        either = settings.hidden or settings.embedding
        settings = _fill(settings, hidden=either, embedding=either)
    given = getattr(settings, "softmax", None)
    scale = replace(
        scale, adaptive=given == "adaptive", full=given == "full" or _needs_full_softmax(settings)
    )
    if isinstance(settings, MODELS.load(REFERENCE).Settings) and settings.hidden:
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
        most_epochs=most_epochs(scale, arch),
    )
    training = _fill(training, weight_decay=weight_decay(scale, arch, training))
    recurrent = recurrent_weight_decay(scale, arch, training.decay)
    training = _fill(training, recurrent_weight_decay=recurrent)
    open_width = getattr(settings, "hidden", 0) is None
    settings = _fill(
        settings,
        embedding=embedding(scale),
        dropout=dropout(scale, arch),
        input_dropout=input_dropout(scale, arch),
        weight_drop=weight_drop(scale, arch),
        softmax=softmax(settings, scale),
    )
    if open_width:
        settings = with_width(settings, width(scale))
        if match != "width":
            match_to_lstm = match_state if match == "state" else match_parameters
            settings = match_to_lstm(arch, settings, scale)
    return settings, training


def is_tied(settings: Any) -> bool:
    """Whether a recurrent net shares embedding and output weights, which makes E = H."""
    return isinstance(settings, RecurrentSettings) and settings.tie


def with_width(settings: Any, hidden: int) -> Any:
    """`settings` with the width H, and with E = H where weights are tied."""
    return replace(settings, hidden=hidden, **({"embedding": hidden} if is_tied(settings) else {}))


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
    same |= {"embedding": same.get("embedding", embedding(scale))}
    return with_width(update(plain, same), width(scale))


def match_parameters(arch: str, settings: Any, scale: ProblemSize) -> Any:
    """`settings` with the width at which the model is as big as the reference LSTM.

    The body (all but embedding and output layer) counts; among widths whose body is within 4 %
    the one whose total is nearest is taken.
    """
    wanted = size(REFERENCE, reference(settings, scale), scale.vocabulary)

    def found(hidden: int) -> tuple[int, int]:
        return size(arch, with_width(settings, hidden), scale.vocabulary)

    def mismatch(hidden: int) -> tuple[float, float]:
        body, total = found(hidden)
        return max(0.04, abs(body / wanted[0] - 1)), abs(total / wanted[1] - 1)

    if found(width(scale)) == wanted:
        return with_width(settings, width(scale))
    least = _least_width(lambda hidden: found(hidden)[0] >= wanted[0], scale)
    nearby = range(max(1, int(0.95 * least) - 1), int(1.05 * least) + 2)
    return with_width(settings, min(nearby, key=mismatch))


def match_state(arch: str, settings: Any, scale: ProblemSize) -> Any:
    """`settings` with which the state has as many floats as the reference LSTM's.

    A recurrence is given the width for it. A model whose state is a window of tokens is given the
    window, unless that was set, and the width at which it is as big as the LSTM.
    """
    wanted = state_size(REFERENCE, reference(settings, scale), scale.vocabulary)

    def found(**changes: int) -> int:
        return state_size(arch, replace(settings, **changes), scale.vocabulary)

    def is_enough(hidden: int) -> bool:
        return state_size(arch, with_width(settings, hidden), scale.vocabulary) >= wanted

    if not hasattr(settings, "window"):
        return with_width(settings, _least_width(is_enough, scale))
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
    chosen = changed(settings)
    if not chosen.get("input_dropout"):
        chosen.pop("input_dropout", None)  # none is what most have
    line = f"{arch}: {_pairs(chosen) or 'nothing to choose'}"
    if MODELS.load(arch).is_count_based:
        return f"{line}; learns by counting, once"
    told: dict[str, Any] = {"batch": training.batch, "truncation": training.truncation}
    if training.learning_rate:
        told["learning_rate"] = training.learning_rate
    if training.decay != WEIGHT_DECAY:
        told["weight_decay"] = training.decay
    if training.recurrent_decay:
        told["recurrent_weight_decay"] = training.recurrent_decay
    return f"{line} | {_pairs(told)}"


def _pairs(chosen: Mapping[str, Any]) -> str:
    """As after ``--set``."""
    pairs = ((k, f"{v:.4g}" if isinstance(v, float) else v) for k, v in chosen.items())
    return " ".join(f"{k}={v}" for k, v in pairs)
