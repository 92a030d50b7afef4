"""Which text a demo gets, how large it is, how long its trainings take."""

from types import SimpleNamespace

import pytest

from lmcli.api import make
from lmcli.errors import TextError, UsageError
from lmcli.grammars.france.natural import NaturalSettings
from lmcli.report.progress import Message
from lmcli.training import demo
from lmcli.training.demo import DemoText, choose_minutes, minutes_needed, text_settings

OPTIONS = {"facts": None, "settings": None, "seed": 0, "minutes": None, "output": "demo"}


def nothing(event):
    """A callback that never stops anything."""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A text of the user's own, one made of it, one made by rule, sums."""
    folder = tmp_path_factory.mktemp("texts")
    lines = (f"The {n} men of it saw {n % 97} ships and a dog .\n" for n in range(600))
    (folder / "my.txt").write_text("".join(lines))
    make("france", folder / "mine.txt", filler=folder / "my.txt", settings={"words": 1000})
    make("addition", folder / "sums.txt", size="small")
    return folder


def text_of(*texts, on_progress=nothing, **options):
    return DemoText.of(OPTIONS | {"texts": [str(t) for t in texts]} | options, on_progress)


def test_the_text_has_the_size_that_is_given_or_the_default():
    assert text_settings(OPTIONS | {"seed": 3}) == NaturalSettings(seed=3)
    given = OPTIONS | {"settings": {"words": "5000", "hidden": "8"}}
    assert text_settings(given) == NaturalSettings(words=5000)


@pytest.mark.parametrize(
    ("needed", "given", "planted", "minutes"),
    [
        (0.19, None, True, 0.6),  # three times as many
        (2.0, None, True, 4.8),  # 4.75, a little more than twice as many
        (6.0, None, True, 12.0),  # more than usual
        (0.19, None, False, 1.8),  # made by rule: always as many, or twice what it needs
        (2.0, None, False, 4.0),
        (0.7, None, False, 1.8),
        (0.0, None, True, 4.8),  # nothing to train
        (0.2, 0.3, True, 0.3),
        (0.2, 0.1, True, 0.1),
    ],
)
def test_minutes_follow_what_the_machine_needs_and_given_ones_stay(needed, given, planted, minutes):
    events = []
    assert choose_minutes(needed, given, planted, events.append) == minutes
    warned = "in 0.1 min it may not learn the task: --minutes 1 gives it time"
    assert [event.text for event in events] == ([warned] if given == 0.1 else [])


def test_the_speed_of_the_lstm_says_how_long_it_takes(monkeypatch):
    """30,000 documents of 60 tokens are 1.8 million tokens."""
    asked, events = [], []
    monkeypatch.setattr(demo, "training_speed", lambda job: asked.append(job.arch) or 60_000)
    corpus = SimpleNamespace(train=SimpleNamespace(documents=range(500)))
    data = SimpleNamespace(corpus=corpus, tokenized=SimpleNamespace(train=range(60 * 500)))

    def sweep(*archs):
        jobs = [SimpleNamespace(arch=a, is_count_based=a == "ngram", dataset=data) for a in archs]
        return SimpleNamespace(trials=[SimpleNamespace(job=job) for job in jobs])

    assert minutes_needed(sweep("ngram", "lstm", "gru"), events.append) == pytest.approx(0.5)
    assert minutes_needed(sweep("ngram"), events.append) == 0.0
    assert minutes_needed(sweep("rnn", "gru"), events.append) == pytest.approx(0.5)
    assert asked == ["lstm", "gru"]
    said = [event.text for event in events if isinstance(event, Message)]
    assert (
        said[0] == "this machine trains the lstm on 60,000 tokens a second, and needs about 0.5 min"
    )


@pytest.mark.parametrize(
    ("minutes", "trained", "jobs", "seeds", "fits"),
    [
        (1.6, 4, 2, 1, True),  # 4.8 minutes, without early ends
        (1.8, 4, 2, 1, False),  # 5.4: three rounds of two
        (1.8, 4, 1, 1, False),
        (2.1, 4, 2, 1, False),  # 5.25
        (0.6, 12, 2, 3, True),
        (1.8, 12, 2, 3, False),
    ],
)
def test_one_more_is_trained_where_it_takes_five_minutes_at_most(
    minutes, trained, jobs, seeds, fits
):
    kinds = [False] * trained + [True]  # what counts takes no time
    trials = [SimpleNamespace(job=SimpleNamespace(is_count_based=counts)) for counts in kinds]
    sweep, events = SimpleNamespace(trials=trials, jobs=jobs), []
    options = {"seeds": seeds, "if_time": "rnn:activation=relu"}
    found = demo.fitting_more(sweep, minutes, options, events.append)
    assert found == ("rnn:activation=relu" if fits else "")
    said = ["there is time to train rnn:activation=relu too"] if fits else []
    assert [event.text for event in events] == said
    assert demo.fitting_more(sweep, minutes, {"seeds": seeds}, events.append) == ""


def test_a_text_of_the_users_own_is_made_into_one_with_items(own, tmp_path):
    text = text_of(own / "my.txt", output=tmp_path / "demo", settings={"words": "2000"})
    task = text.task(2.0)
    assert (task.text, task.asked, task.unit, task.planted) == ("my.txt", "country", "words", True)
    assert task.order_free[3] == 1.0
    assert text.tokenizer == "word"
    assert not (tmp_path / "demo").exists()
    text.write(force=False)
    assert text.path == tmp_path / "demo" / "text.txt"
    assert "men of it saw" in text.path.read_text()
    options = text.cloze_options()
    assert options[-2:] == ["--filler", str(own / "my.txt")]
    assert " ... " in options[1]
    assert options[1].endswith(" ___")


def test_a_text_that_was_made_is_taken_as_it_is(own):
    before = (own / "mine.txt").stat().st_mtime_ns
    text = text_of(own / "mine.txt", settings={"words": "1000"})
    text.write(force=True)
    assert text.path == own / "mine.txt"
    assert text.task(2.0).planted
    assert (own / "mine.txt").stat().st_mtime_ns == before


def test_without_a_text_there_is_one_made_by_rule():
    text = text_of(output="there")
    assert str(text.path) == "there/text.txt"
    task = text.task(2.0)
    assert (task.text, task.planted) == ("a text made by rule", False)
    assert 0 < task.order_free[100] < task.order_free[3] == 1.0
    assert text.about["recipe"]["size"] == "small"


def test_facts_of_ones_own_ask_for_a_cue(own, tmp_path):
    (tmp_path / "facts.toml").write_text(
        'language = "weather"\ncues = ["There is {cue} ."]\nqueries = ["Take your {answer} ."]\n'
        'pairs = [{cue = "rain", answer = "umbrella"}, {cue = "snow", answer = "boots"}]\n'
    )
    text = text_of(own / "my.txt", facts=tmp_path / "facts.toml", settings={"words": "2000"})
    assert text.task(2.0).asked == "cue"


@pytest.mark.parametrize(
    ("texts", "options", "kind", "words"),
    [
        (("sums.txt",), {}, TextError, "has no items of lmcli make france"),
        (("mine.txt", "my.txt"), {}, UsageError, "is a text of lmcli make"),
        (("mine.txt",), {"facts": "de"}, UsageError, "--facts is for a text of your own"),
        ((), {"facts": "de"}, UsageError, "--facts is for a text of your own"),
        (("my.txt",), {"facts": "xx"}, UsageError, "--facts xx"),
        (("short.txt",), {"settings": {"words": "1000"}}, TextError, "too short.*gaps of at most"),
    ],
)
def test_what_cannot_be_a_demo_says_why(own, texts, options, kind, words):
    (own / "short.txt").write_text((own / "my.txt").read_text()[:700])
    with pytest.raises(kind, match=words):
        text_of(*(own / text for text in texts), **options)


def test_a_short_text_is_warned_of(own, tmp_path):
    (tmp_path / "short.txt").write_text((own / "my.txt").read_text()[:3000])
    events = []
    text_of(tmp_path / "short.txt", settings={"words": "1000"}, on_progress=events.append)
    (warning,) = [e.text for e in events if isinstance(e, Message) and e.level == "warning"]
    assert warning.startswith("'short.txt' is short: its held-out sentences fill gaps of at most")


def test_a_planted_text_is_trained_without_dropout(own):
    """It is read a few times; one made by rule dozens of times, for which the default is good."""
    by_rule, planted = (
        text_of(output="there"),
        text_of(own / "mine.txt", settings={"words": "1000"}),
    )
    found = [text.settings("word", ["lstm"]).get("dropout") for text in (by_rule, planted)]
    assert found == [None, 0.0]
