"""Recipes: nothing is left open, what was said is kept, and models are equally big."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lmcli.data.curriculum import LOOKED_AT
from lmcli.models.lstm import LSTMSettings
from lmcli.registry import MODELS
from lmcli.settings import names
from lmcli.training.defaults import (
    LEAST_RATE,
    RATE_OF_WORDS,
    describe_defaults,
    match_parameters,
    resolve_defaults,
)
from lmcli.training.model_size import size, state_size
from lmcli.training.problem_size import LARGE_LENGTH_RATIO, ProblemSize, shape, width
from lmcli.training.training_settings import WEIGHT_DECAY, Budget, TrainingSettings

every_architecture = pytest.mark.parametrize("name", MODELS.names())
SCALES = [
    ProblemSize(tokens, vocabulary, seconds)
    for tokens, vocabulary in [(2_000, 30), (30_000, 65), (300_000, 70), (1_100_000, 65)]
    for seconds in (10, 60, 180, 1000)
]
WORDS = [
    ProblemSize(30_000, 3_000, 60),
    ProblemSize(300_000, 150, 60),
    ProblemSize(1_000_000, 25_000, 600),
]


def chosen(name, scale, match="params", model=None, training=None):
    base = MODELS.load(name).Settings()
    return resolve_defaults(
        name, replace(base, **model or {}), training or TrainingSettings(), scale, match
    )


@every_architecture
@pytest.mark.parametrize("scale", [SCALES[0], SCALES[-1], WORDS[0]])
def test_no_size_and_no_rate_is_left_open(name, scale):
    model, training = chosen(name, scale)
    sizes = {"hidden", "embedding", "dropout", "input_dropout", "weight_drop"}
    left_open = {key for key in sizes if getattr(model, key, 1) is None}
    left_open |= {key for key, value in vars(training).items() if value is None}
    assert left_open <= {"threads"}
    assert training.learning_rate > 0


def has_width(name):
    return "hidden" in names(MODELS.load(name).Settings)


sized = pytest.mark.parametrize("name", [n for n in MODELS.names() if has_width(n)])


@sized
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_architectures_have_as_many_parameters_as_the_lstm(name, scale):
    reference = size("lstm", chosen("lstm", scale)[0], scale.vocabulary)
    settings = chosen(name, scale)[0]

    def fits(hidden):
        found = size(name, replace(settings, hidden=hidden), scale.vocabulary)
        return found == pytest.approx(reference, rel=0.05)

    if not fits(settings.hidden):  # widths are whole numbers: then no width at all fits
        assert not any(fits(hidden) for hidden in range(1, 2 * settings.hidden))
        nearest = size(name, settings, scale.vocabulary)
        assert nearest == pytest.approx(reference, rel=0.06)


@sized
@pytest.mark.parametrize("scale", WORDS, ids=str)
def test_with_many_words_the_body_is_what_is_matched(name, scale):
    reference = size("lstm", chosen("lstm", scale)[0], scale.vocabulary)[0]
    assert size(name, chosen(name, scale)[0], scale.vocabulary)[0] == pytest.approx(
        reference, rel=0.05
    )


@sized
def test_match_width_gives_all_the_same_width(name):
    scale = SCALES[-1]
    assert chosen(name, scale, match="width")[0].hidden == width(scale)


@sized
def test_more_layers_are_matched_like_one(name):
    if "layers" in names(MODELS.load(name).Settings):
        scale = SCALES[-2]
        found, lstm = (chosen(n, scale, model={"layers": 3})[0] for n in (name, "lstm"))
        bodies = [size(n, s, 65)[0] for n, s in ((name, found), ("lstm", lstm))]
        assert bodies[0] == pytest.approx(bodies[1], rel=0.05)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "mingru", "minlstm"])
def test_with_a_block_and_without_all_are_as_big_as_the_plain_lstm(name):
    scale, other = SCALES[-2], not MODELS.load(name).Settings().block
    lstm, found = chosen("lstm", scale)[0], chosen(name, scale, model={"block": other})[0]
    assert found.block == other
    body = size("lstm", lstm, scale.vocabulary)[0]
    assert size(name, found, scale.vocabulary)[0] == pytest.approx(body, rel=0.04)


@pytest.mark.parametrize("changes", [{"coupled": True}, {"attend": 8}])
def test_a_variant_of_the_lstm_is_as_big_as_the_plain_one(changes):
    scale = SCALES[-2]
    lstm, found = (chosen("lstm", scale, model=model)[0] for model in ({}, changes))
    assert lstm.hidden == width(scale) != found.hidden
    body = size("lstm", lstm, scale.vocabulary)[0]
    assert size("lstm", found, scale.vocabulary)[0] == pytest.approx(body, rel=0.04)


# ------------------------------------------------------------------ floats of state


@sized
@pytest.mark.parametrize("scale", [SCALES[-1], WORDS[0]], ids=str)
def test_match_state_gives_all_the_state_of_the_lstm(name, scale):
    """h and c, 2 H; to the nearest unit of a layer, or token of a window but never none."""
    lstm = chosen("lstm", scale, match="state")[0]
    assert lstm.hidden == width(scale)
    wanted = 2 * width(scale)
    settings = chosen(name, scale, match="state")[0]
    found = state_size(name, settings, scale.vocabulary)
    if hasattr(settings, "window"):
        token = found // (settings.window - 1)
        assert abs(found - wanted) <= token / 2 or settings.window == 2
        bodies = [size(*one, scale.vocabulary)[0] for one in ((name, settings), ("lstm", lstm))]
        assert bodies[0] == pytest.approx(bodies[1], rel=0.06)
    else:
        assert 0 <= found - wanted < settings.layers


def test_the_state_that_is_matched_is_counted_by_hand():
    scale = replace(SCALES[-1], given_width=100)
    found = {n: chosen(n, scale, match="state")[0] for n in ("rnn", "gru", "mingru", "window")}
    assert [found[n].hidden for n in ("rnn", "gru")] == [200, 200]
    assert (found["mingru"].layers, found["mingru"].hidden) == (2, 100)
    assert (found["window"].embedding, found["window"].window) == (64, 1 + 3)  # 200 / 64 = 3.1
    both = chosen("gru", scale, match="state", model={"layers": 2})[0]
    assert (both.layers, both.hidden) == (2, 200)  # of an LSTM of two layers


def test_match_state_keeps_what_was_set():
    model = {"window": 40}
    found = chosen("attention", SCALES[-1], match="state", model=model)[0]
    assert found == chosen("attention", SCALES[-1], match="params", model=model)[0]
    assert chosen("rnn", SCALES[-1], match="state", model={"hidden": 7})[0].hidden == 7


@every_architecture
def test_what_was_said_is_kept(name):
    base = MODELS.load(name).Settings()
    wanted = {"hidden": 33, "embedding": 17, "layers": 2}
    wanted |= {"dropout": 0.25, "input_dropout": 0.3, "weight_drop": 0.1}
    said = {name: value for name, value in wanted.items() if name in names(type(base))}
    training = TrainingSettings(batch=5, truncation=9, learning_rate=0.0, clip=3.0)
    found, trained = chosen(name, SCALES[5], model=said, training=training)
    assert asdict(found) == asdict(base) | said
    kept = {k: v for k, v in asdict(training).items() if v is not None}
    assert asdict(trained) | kept == asdict(trained)


@sized
def test_sizes_are_those_of_the_model_itself(name, small_settings):
    settings = small_settings(name)
    model = MODELS.load(name)(31, settings)
    assert size(name, settings, 31) == (model.body_parameters(), model.parameter_count())
    assert next(model.parameters()).device == torch.device("cpu")


def test_the_nearest_width_is_found():
    """An RNN has a quarter of the LSTM's gates: 4 (EH + H² + H) = EK + K² + K."""
    scale = ProblemSize(1_100_000, 65, 60)
    lstm = chosen("lstm", scale)[0]
    H, E = lstm.hidden, lstm.embedding
    body = 4 * (E * H + H * H + H)
    right = (-(E + 1) + math.sqrt((E + 1) ** 2 + 4 * body)) / 2
    found = match_parameters("rnn", replace(MODELS.load("rnn").Settings(), embedding=E), scale)
    assert found.hidden == pytest.approx(right, rel=0.025)


def test_one_document_longer_than_what_is_looked_at_is_no_sample_of_lengths():
    ids = np.zeros(LOOKED_AT + 1, np.uint8)
    ids[0] = 5
    assert ProblemSize.of(ids, 5, Budget(1.0)).length_ratio == 1.0


@sized
def test_many_words_get_the_adaptive_softmax_unless_there_is_time_or_need_for_the_full_one(name):
    enough = ProblemSize(390_000, 16_000, 300)
    assert enough.full_softmax_epochs(448) < 6.5 < enough.full_softmax_epochs(256) < 8
    assert chosen(name, enough)[0].softmax is None
    less, more = replace(enough, seconds=120), replace(enough, vocabulary=100_000)
    assert chosen(name, less)[0].softmax == chosen(name, more)[0].softmax == "adaptive"
    assert chosen(name, replace(less, vocabulary=1000))[0].softmax is None
    assert chosen(name, replace(less, seconds=900))[0].softmax is None
    assert chosen(name, replace(enough, cores=1))[0].softmax == "adaptive"
    assert chosen(name, more, model={"softmax": "full"})[0].softmax == "full"
    for setting in {"tie", "direct"} & names(MODELS.load(name).Settings):
        found = chosen(name, more, model={setting: True, "hidden": 64})[0]
        assert found.softmax is None


def test_many_words_have_a_narrower_model_where_that_makes_a_full_softmax_possible():
    enough = ProblemSize(390_000, 16_000, 300)
    sizes = {}
    for seconds in (120, 300, 900):
        settings = chosen("lstm", replace(enough, seconds=seconds))[0]
        sizes[seconds] = settings.hidden, settings.embedding, settings.softmax
    assert sizes == {
        120: (320, 128, "adaptive"),
        300: (256, 256, None),
        900: (256, 256, None),
    }
    fewer = chosen("lstm", replace(enough, vocabulary=9_000, seconds=900))[0]
    assert (fewer.hidden, fewer.embedding, fewer.softmax) == (448, 128, None)
    wide = [chosen(name, enough, model={"hidden": 448})[0] for name in ("lstm", "gru")]
    assert [(s.embedding, s.softmax) for s in wide] == [(256, None)] * 2
    given = chosen("lstm", enough, model={"softmax": "adaptive"})[0]
    assert (given.hidden, given.embedding) == (448, 128)
    longer = replace(enough, tokens=5_000_000, vocabulary=50_000, seconds=10_000)
    assert width(longer) == 512
    varied = replace(enough, vocabulary=9_000, length_ratio=LARGE_LENGTH_RATIO, seconds=1000)
    settings = chosen("lstm", varied)[0]
    assert (settings.hidden, settings.embedding, settings.softmax) == (256, 128, None)


@sized
def test_tied_weights_get_an_embedding_as_wide_as_the_layers(name):
    if "tie" not in names(MODELS.load(name).Settings) or name == "attention":  # always E = H
        return
    scale = ProblemSize(300_000, 9_000, 300)
    for match, measure in (("params", size), ("state", state_size), ("width", None)):
        found, lstm = (chosen(n, scale, match, {"tie": True})[0] for n in (name, "lstm"))
        assert found.embedding == found.hidden
        if measure:
            sizes = [measure(n, s, 9_000) for n, s in ((name, found), ("lstm", lstm))]
            assert np.atleast_1d(sizes[0])[0] == pytest.approx(np.atleast_1d(sizes[1])[0], rel=0.05)
    for given in ({"hidden": 40}, {"embedding": 40}):
        found = chosen(name, scale, model={"tie": True, **given})[0]
        assert (found.hidden, found.embedding) == (40, 40)


@sized
def test_adaptive_models_are_matched_to_the_adaptive_lstm(name):
    scale = ProblemSize(5_000_000, 100_000, 600)
    found, lstm = (chosen(n, scale)[0] for n in (name, "lstm"))
    assert found.softmax == lstm.softmax == "adaptive"
    bodies = [size(n, s, 100_000)[0] for n, s in ((name, found), ("lstm", lstm))]
    assert bodies[0] == pytest.approx(bodies[1], rel=0.05)


@pytest.mark.parametrize("scale", [*SCALES, *WORDS], ids=str)
def test_a_small_text_is_still_cut_into_several_chunks(scale):
    batch, truncation = shape(scale)
    assert batch * truncation * 2 <= scale.tokens
    assert batch >= 2


def test_width_grows_with_time_and_with_text():
    by_time = [width(ProblemSize(10**7, 65, seconds)) for seconds in (5, 30, 100, 300, 10**4)]
    by_text = [
        width(ProblemSize(tokens, 65, 10**4)) for tokens in (10**3, 10**4, 10**5, 10**6, 10**7)
    ]
    for widths in (by_time, by_text):
        assert widths == sorted(widths)
        assert widths[0] < widths[-1]


def test_a_text_read_more_often_gets_no_less_dropout():
    rates = [
        chosen("lstm", ProblemSize(tokens, 65, 600))[0].dropout for tokens in (10**4, 10**6, 10**9)
    ]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0


@every_architecture
def test_longer_trainings_and_many_words_get_a_smaller_rate(name):
    def rate(seconds, vocabulary=65):
        scale = ProblemSize(10**7, vocabulary, seconds, given_width=256)
        return chosen(name, scale)[1].learning_rate

    rates = [rate(seconds) for seconds in (5, 20, 90, 900, 10**5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == rates[1] == MODELS.load(name).learning_rate
    assert rates[-1] == pytest.approx(LEAST_RATE * rates[0])
    assert rate(20, 20_000) == rate(900, 20_000) == pytest.approx(RATE_OF_WORDS * rates[0])


def test_few_tokens_have_shorter_means_of_squared_gradients():
    few, many = (ProblemSize(10**6, vocabulary, 90) for vocabulary in (65, 20_000))
    assert (chosen("lstm", few)[1].beta2, chosen("lstm", many)[1].beta2) == (0.99, 0.999)
    assert chosen("lstm", few, training=TrainingSettings(beta2=0.9))[1].beta2 == 0.9


def test_tables_of_many_words_have_one_mean_of_squares_and_decay():
    few, many = (chosen("gru", ProblemSize(10**6, size, 90))[1] for size in (65, 20_000))
    assert (few.second_moment, few.weight_decay) == ("entry", WEIGHT_DECAY)
    assert (many.second_moment, many.weight_decay) == ("table", 1.0)
    own = TrainingSettings(second_moment="entry", weight_decay=0.0)
    kept = chosen("gru", ProblemSize(10**6, 20_000, 90), training=own)[1]
    assert (kept.second_moment, kept.weight_decay) == ("entry", 0.0)


def test_weights_of_an_lstm_decay_to_1_over_e_in_three_and_a_half_passes():
    """By hand: 16 x 64 tokens an update, 800 updates a pass."""
    often = ProblemSize(16 * 64 * 800, 65, 600, epochs=20)
    for name in ("lstm", "hybrid"):
        training = chosen(name, often)[1]
        steps = 1 / (training.learning_rate * training.weight_decay)
        assert steps == pytest.approx(3.5 * 800)
        assert training.recurrent_weight_decay == training.weight_decay
    own = TrainingSettings(batch=64, truncation=32)
    large = chosen("lstm", often, training=own)[1]
    assert 1 / (large.learning_rate * large.weight_decay) == pytest.approx(3.5 * 400)
    slow = chosen("lstm", often, training=TrainingSettings(learning_rate=1e-4))[1]
    assert (slow.weight_decay, slow.recurrent_weight_decay) == (0.5, 0.5)  # the most
    fast = chosen("lstm", often, training=TrainingSettings(learning_rate=1.0))[1]
    assert fast.weight_decay == WEIGHT_DECAY
    still = chosen("lstm", often, training=TrainingSettings(learning_rate=0.0))[1]
    assert still.weight_decay == WEIGHT_DECAY
    own = TrainingSettings(weight_decay=0.07)
    assert chosen("lstm", often, training=own)[1].recurrent_weight_decay == 0.07
    own = TrainingSettings(recurrent_weight_decay=0.0)
    assert chosen("lstm", often, training=own)[1].recurrent_weight_decay == 0.0


@pytest.mark.parametrize(("epochs", "passes"), [(2, 3.5), (35, 3.5), (80, 8), (99, 9.9), (200, 10)])
def test_weights_decay_more_slowly_in_a_training_of_more_passes(epochs, passes):
    training = chosen("lstm", ProblemSize(16 * 64 * 800, 65, 600, epochs=epochs))[1]
    decay = training.weight_decay
    assert 1 / (training.learning_rate * decay) == pytest.approx(passes * 800)


def test_passes_that_the_user_limits_are_those_that_are_expected():
    often = ProblemSize(200_000, 65, 600)
    few, none = TrainingSettings(most_epochs=3), TrainingSettings(most_epochs=0)
    (model, training), (more, endless) = (chosen("lstm", often, training=t) for t in (few, none))
    assert (model.dropout, training.most_epochs) == (0.0, 3)
    assert (more.dropout, endless.most_epochs) == (chosen("lstm", often)[0].dropout, 0)
    assert more.dropout > 0
    assert endless.weight_decay < training.weight_decay  # in a tenth of more passes
    little = ProblemSize(20_000, 65, 600)
    (usual, short), (other, long) = (
        chosen("hybrid", little, training=t) for t in (TrainingSettings(), none)
    )
    assert (usual.dropout, other.dropout) == (0.5, 0.5)
    assert long.learning_rate == pytest.approx(LEAST_RATE * short.learning_rate)
    shorter = chosen("hybrid", little, training=TrainingSettings(most_epochs=8))[1]
    assert shorter.learning_rate == short.learning_rate


def test_few_characters_are_expected_to_be_read_by_a_hybrid_as_often_as_they_are():
    for tokens, passes in ((2_000, 8), (20_000, 16)):
        scale = ProblemSize(tokens, 65, 600)
        assert scale.expected_epochs("hybrid") == passes < scale.expected_epochs("lstm")
        assert chosen("hybrid", scale)[0].weight_drop == 0.3


def test_the_width_of_a_hybrid_that_was_given_counts_as_the_lstms_does():
    scale = ProblemSize(10**6, 65, 600)
    (mine, own), (other, theirs) = (
        chosen(name, scale, model={"hidden": 1024}) for name in ("hybrid", "lstm")
    )
    assert mine.dropout == other.dropout
    usual = [chosen(name, scale)[1].learning_rate for name in ("hybrid", "lstm")]
    shares = own.learning_rate / usual[0], theirs.learning_rate / usual[1]
    assert shares[0] == pytest.approx(shares[1])
    assert shares[0] < 0.7


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("lstm", {"length_ratio": 50.0}),
        ("gru", {}),
        ("rnn", {}),
        ("attention", {}),
    ],
)
def test_other_weights_hardly_decay(name, changes):
    training = chosen(name, replace(ProblemSize(10**6, 65, 600), **changes))[1]
    assert (training.weight_decay, training.recurrent_weight_decay) == (WEIGHT_DECAY, 0.0)


def test_recurrent_weights_over_many_words_decay_where_documents_are_alike():
    alike = ProblemSize(2 * 10**5, 20_000, 300)
    varied = replace(alike, length_ratio=LARGE_LENGTH_RATIO)
    decays = [chosen("lstm", scale)[1].recurrent_weight_decay for scale in (alike, varied)]
    assert decays == [1.0, 0.0]
    assert chosen("gru", alike)[1].recurrent_weight_decay == 0.0


def test_an_output_for_each_of_many_words_is_expected_to_take_its_time():
    """By hand: 6 H V = 24.8 million operations a token, beside 2 million of the body."""
    scale = ProblemSize(315_000, 16_120, 294)
    assert (width(scale), chosen("lstm", scale)[0].softmax) == (256, None)
    passes = 294 / (315_000 * (1 + 24.76 / 2) / 1.2e5)
    assert scale.expected_epochs() == pytest.approx(passes, rel=1e-3)
    gru = 294 / (315_000 * (1 / 0.55 + 24.76 / 2) / 1.2e5)
    assert scale.expected_epochs("gru") == pytest.approx(gru, rel=1e-3)
    for given in ({"tie": True}, {"softmax": "full"}):
        short = ProblemSize(300_000, 9_000, 60)
        assert chosen("lstm", short)[0].softmax == "adaptive"
        assert chosen("lstm", short, model=given)[0].dropout == 0 < short.expected_epochs() - 10
    slow = replace(scale, tokens_per_second=0.6e5)
    assert slow.expected_epochs() == pytest.approx(0.5 * passes, rel=1e-3)


def test_many_words_are_read_few_times_by_a_wider_model():
    few, many = (ProblemSize(2 * 10**5, size, 300) for size in (65, 9_000))
    assert (width(few), width(many)) == (256, 448)
    assert chosen("lstm", many)[1].most_epochs == 12 < chosen("lstm", few)[1].most_epochs
    varied = replace(many, length_ratio=LARGE_LENGTH_RATIO)
    assert chosen("lstm", varied)[1].most_epochs > 12


@pytest.mark.parametrize(("tokens", "most"), [(2_000, 8), (20_000, 16), (200_000, None)])
def test_a_hybrid_reads_few_characters_few_times(tokens, most):
    (hybrid, training), (lstm, other) = (
        chosen(name, ProblemSize(tokens, 65, 60)) for name in ("hybrid", "lstm")
    )
    assert training.most_epochs == (most or other.most_epochs)
    assert hybrid.dropout == (0.5 if most else lstm.dropout)
    assert (hybrid.input_dropout, lstm.input_dropout) == (0.2 if tokens == 20_000 else 0.0, 0.0)
    assert other.most_epochs > 70
    rates = [
        chosen("hybrid", ProblemSize(tokens, 65, s, given_width=96))[1].learning_rate
        for s in (20, 180)
    ]
    assert (rates[0] == rates[1]) == bool(most)  # its few passes take no longer in a longer budget
    twice = chosen("hybrid", ProblemSize(tokens, 65, 180, epochs=2))[0]
    assert (twice.dropout, twice.input_dropout) == (0.0, 0.0)
    words, varied = ProblemSize(tokens, 20_000, 60), ProblemSize(tokens, 65, 60, length_ratio=50)
    for scale in (words, varied):
        (hybrid, training), (lstm, other) = (chosen(name, scale) for name in ("hybrid", "lstm"))
        assert (training.most_epochs, hybrid.dropout) == (other.most_epochs, lstm.dropout)


def test_a_text_read_often_gets_its_recurrent_weights_dropped():
    rates = [
        chosen("lstm", ProblemSize(10**6, 65, seconds))[0].weight_drop for seconds in (20, 10**4)
    ]
    assert rates == [0.0, 0.3]
    varied = [ProblemSize(10**6, 65, seconds, LARGE_LENGTH_RATIO) for seconds in (20, 10**4)]
    assert [chosen("lstm", scale)[0].weight_drop for scale in varied] == [0.0, 0.2]


def test_an_architecture_that_is_slower_is_expected_to_read_the_text_less_often():
    scale = ProblemSize(2 * 10**5, 65, 20)
    lstm, gru = (scale.expected_epochs(arch) for arch in ("lstm", "gru"))
    assert gru == pytest.approx(0.55 * lstm)
    assert scale.expected_epochs("window") == lstm
    for name, varied in (("weight_drop", 1.0), ("weight_drop", LARGE_LENGTH_RATIO)):
        text = ProblemSize(2 * 10**5, 300, 34, varied)
        rates = [getattr(chosen(arch, text)[0], name) for arch in ("lstm", "gru")]
        assert rates[0] > rates[1]


def test_a_budget_without_minutes_has_the_width_and_rate_of_three():
    ids = np.array([6, 1, 2, 3, 4])
    steps = ProblemSize.of(ids, 6, Budget(steps=10))
    assert replace(steps, epochs=None) == ProblemSize.of(ids, 6, Budget(minutes=3))


def test_a_budget_in_steps_or_epochs_says_how_often_the_text_is_read():
    ids = np.zeros(16 * 64 * 50, np.int64)
    epochs, steps = (ProblemSize.of(ids, 6, b) for b in (Budget(epochs=2.5), Budget(steps=125)))
    assert epochs == steps
    assert ProblemSize.of(ids, 6, Budget(steps=125), batch=64).expected_epochs() == pytest.approx(
        10, rel=0.1
    )
    assert [epochs.expected_epochs(arch) for arch in ("lstm", "gru")] == [2.5, 2.5]
    often = ProblemSize.of(ids, 6, Budget(epochs=25))
    assert [chosen("lstm", scale)[0].dropout for scale in (epochs, often)] == [0.0, 0.2]


def test_a_training_with_one_core_is_expected_to_read_the_text_less_often():
    ids, minutes = np.zeros(5 * 10**5, np.int64), Budget(minutes=0.8)
    one, two, many = (ProblemSize.of(ids, 65, minutes, cores=cores) for cores in (1, 2, 8))
    assert one.expected_epochs() == pytest.approx(0.6 * two.expected_epochs())
    assert many.expected_epochs() == two.expected_epochs()
    assert [chosen("lstm", scale)[0].dropout for scale in (one, two)] == [0.0, 0.1]


@every_architecture
def test_the_choice_is_told_in_one_line(name):
    model, training = chosen(name, SCALES[3])
    line = describe_defaults(name, model, training)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert "None" not in line
    assert "input_dropout" not in line


def test_the_line_tells_a_weight_decay_that_is_not_the_usual_one():
    training = TrainingSettings(batch=8, truncation=4, weight_decay=0.1, recurrent_weight_decay=0.2)
    told = "batch=8 truncation=4 weight_decay=0.1 recurrent_weight_decay=0.2"
    model = LSTMSettings(input_dropout=0.25)
    assert describe_defaults("lstm", model, training) == f"lstm: input_dropout=0.25 | {told}"
    usual = replace(training, weight_decay=WEIGHT_DECAY, recurrent_weight_decay=0.0)
    assert describe_defaults("lstm", model, usual).endswith("| batch=8 truncation=4")


@pytest.mark.parametrize(("longest", "expected"), [(30, 0.0), (300, 0.6)])
def test_short_documents_come_first_where_lengths_differ_much(longest, expected):
    lengths = np.linspace(10, longest, 400).astype(int)
    ids = np.concatenate([np.r_[6, np.zeros(length - 1)] for length in lengths])
    scale = ProblemSize.of(ids, 6, Budget(steps=10))
    assert scale.length_ratio == pytest.approx(np.divide(*np.quantile(lengths, (0.95, 0.05))))
    assert chosen("lstm", scale)[1].curriculum == expected
    assert chosen("lstm", scale, training=TrainingSettings(curriculum=0.1))[1].curriculum == 0.1


def test_rectified_units_read_all_lengths_from_the_beginning_with_a_small_rate():
    scale = replace(SCALES[-1], length_ratio=LARGE_LENGTH_RATIO)
    relu, tanh = (chosen("rnn", scale, model={"activation": f})[1] for f in ("relu", "tanh"))
    assert (relu.curriculum, tanh.curriculum) == (0.0, 0.6)
    assert relu.learning_rate < 5e-4 < tanh.learning_rate
    assert chosen("rnn", scale, model={"activation": "relu"}, training=TrainingSettings(
        curriculum=0.3))[1].curriculum == 0.3  # fmt: skip


def test_documents_of_different_lengths_are_read_by_a_narrower_net_in_longer_chunks():
    alike = ProblemSize(2_000_000, 1000, 300)
    varied = replace(alike, length_ratio=LARGE_LENGTH_RATIO)
    assert (width(alike), width(varied)) == (448, 192)
    assert (shape(alike), shape(varied)) == ((16, 64), (16, 128))
    rates = [chosen("lstm", s)[1].learning_rate for s in (replace(alike, given_width=192), varied)]
    assert rates[1] == pytest.approx(0.45 * rates[0])


@pytest.mark.parametrize(("seconds", "least"), [(2, 0.0), (15, 0.5), (600, 0.6)])
def test_short_documents_that_are_read_often_are_not_learnt_by_heart(seconds, least):
    alike = ProblemSize(100_000, 1000, seconds)
    varied = replace(alike, length_ratio=LARGE_LENGTH_RATIO)
    assert chosen("lstm", varied)[0].dropout == least >= chosen("lstm", alike)[0].dropout


def test_a_width_that_was_given_is_the_one_to_be_matched():
    scale = replace(SCALES[-1], given_width=64)
    reference = size("lstm", chosen("lstm", scale)[0], 65)
    assert chosen("lstm", scale)[0].hidden == 64
    assert size("gru", chosen("gru", scale)[0], 65) == pytest.approx(reference, rel=0.05)
    assert chosen("gru", scale, match="width")[0].hidden == 64


def test_the_pieces_of_one_long_text_are_no_short_and_long_documents():
    ids = np.concatenate([np.r_[6, np.zeros(length - 1)] for length in (90, 900, 900, 900, 5)])
    scale = ProblemSize.of(ids, 6, Budget(steps=10))
    assert chosen("lstm", scale)[1].curriculum == 0.0
