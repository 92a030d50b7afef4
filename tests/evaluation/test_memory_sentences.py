"""What is said of a comparison: only what its rows show, whichever model is the better."""

import pytest

from lmcli.evaluation.memory_curves import MemoryTask
from lmcli.evaluation.memory_sentences import memory_sentences

OWN = MemoryTask("my.txt", 4.75, planted=True)
FAR = {3: 1, 10: 1, 50: 1, 200: 0.92, 400: 0.48}
NEAR = {3: 1, 10: 0.06, 50: 0.05, 200: 0.07, 400: 0.06}
NEVER = dict.fromkeys(FAR, 0.06)
ALWAYS = dict.fromkeys(FAR, 0.99)


@pytest.fixture
def said(memory_row):
    """The sentences on some models, each given by its right answers."""

    def say(task=OWN, learning=None, seeds=1, **models):
        rows = [memory_row(name, gaps, seeds=seeds) for name, gaps in models.items()]
        for row in rows:
            row["learning"] = (learning or {}).get(row["name"])
        return memory_sentences(rows, task)

    return say


def test_the_lstm_remembers_and_the_rnn_forgets(said):
    assert said(ngram=NEAR, rnn=NEAR, lstm=FAR) == [
        "On my.txt the LSTM still knew the country after 200 words in 92 of 100 texts; "
        "the RNN had lost it after 10 words.",
        "It took 80 seconds of training and 400,000 parameters each; the n-gram sees only the "
        "last words and did not know it after 10 words.",
        "Do not conclude too much: this is one seed and 100 texts a gap, with sentences planted "
        "into your text; --seeds 3 shows how much is luck.",
    ]


def test_the_rnn_is_better_than_the_lstm(said):
    assert said(rnn=FAR, lstm=NEAR)[0] == (
        "On my.txt the RNN still knew the country after 200 words in 92 of 100 texts; "
        "the LSTM had lost it after 10 words."
    )


def test_what_is_half_forgotten_is_not_lost(said):
    assert (
        "the RNN knew it after 10 words in only 30 of 100."
        in said(rnn=NEAR | {10: 0.3}, lstm=FAR)[0]
    )


def test_all_remember(said):
    assert said(rnn=ALWAYS, gru=ALWAYS, lstm=ALWAYS)[0] == (
        "On my.txt the RNN, the GRU and the LSTM all still knew the country after 400 words in "
        "99, 99 and 99 of 100 texts, the longest gap asked: none of them had forgotten it."
    )


def test_one_model_alone_is_not_compared(said):
    assert said(lstm=FAR)[0] == (
        "On my.txt the LSTM still knew the country after 200 words in 92 of 100 texts."
    )


def test_nothing_was_learnt(said):
    seen, untaught, limits = said(ngram=NEVER, rnn=NEVER, lstm=NEVER | {3: 0.1})
    assert seen == (
        "On my.txt no model had learnt it in 4.75 minutes: even right after the cue the best of "
        "them, the LSTM, was right in 10 of 100 texts (guessing: 6)."
    )
    assert untaught == (
        "The RNN and the LSTM had not learnt the task in 4.75 minutes (right after the cue: 6 and "
        "10 of 100), so the other figures show no forgetting: try --minutes 10."
    )
    assert limits.startswith("Do not conclude that none of them can: this is one seed")


def test_learnt_but_lost_at_once(said, memory_row):
    row = memory_row("lstm", NEVER, control=0.97)
    assert memory_sentences([row], OWN)[0] == (
        "On my.txt no model still knew the country after 3 words, though right after the cue the "
        "LSTM was right in 97 of 100 texts."
    )


@pytest.mark.parametrize(
    ("falling", "end"),
    [
        (True, ", and the loss was still falling: try --minutes 10."),
        (False, "; the loss had stopped falling, so that more minutes alone may not help."),
    ],
)
def test_who_has_not_learnt_the_task_is_not_said_to_forget(said, falling, end):
    learning = {"gru": {"verdict": "not learnt", "still_falling": falling}}
    seen, untaught, _ = said(gru=NEVER, lstm=FAR, learning=learning)
    assert "GRU" not in seen
    assert untaught.startswith("The GRU had not learnt the task in 4.75 minutes")
    assert untaught.endswith(end)


def test_who_knows_the_answers_by_heart_is_not_told_to_train_longer(said):
    gru = {"verdict": "not learnt", "still_falling": True, "by_heart": True}
    untaught = said(gru=NEVER, lstm=FAR, learning={"gru": gru})[1]
    assert untaught.endswith("on training documents, so that more text may help, not time.")
    assert "--minutes" not in untaught


def test_a_window_that_sees_the_cue_can_have_learnt_nothing_either(said):
    learning = {"window": {"verdict": "not learnt", "still_falling": True}}
    untaught = said(window=NEVER, lstm=FAR, learning=learning)[1]
    assert untaught.startswith("The window model had not learnt the task in 4.75 minutes")


def test_several_seeds_are_medians_with_the_worst_of_them(said):
    limits = said(rnn=NEAR, lstm=FAR, seeds=3)[2]
    assert limits == (
        "Do not conclude too much: these are medians of 3 seeds (the LSTM at worst: 82 of 100) and "
        "100 texts a gap, with sentences planted into your text."
    )


def test_a_reader_who_needs_no_order_is_named_where_it_would_do_as_well(said):
    task = MemoryTask("my.txt", 4.75, planted=True, order_free={200: 0.97})
    assert "is right in 97 of 100, so it shows a word kept" in said(task, rnn=NEAR, lstm=FAR)[2]
    poor = MemoryTask("my.txt", 4.75, planted=True, order_free={200: 0.3})
    assert "named most often" not in said(poor, rnn=NEAR, lstm=FAR)[2]


def test_a_text_made_by_rule_and_other_facts_have_their_own_words(said):
    task = MemoryTask("regen.txt", 1, asked="cue", unit="characters")
    seen, _, limits = said(task, rnn=NEAR, lstm=FAR)
    assert "the LSTM still knew the cue after 200 characters" in seen
    assert "with sentences made by rule" in limits
