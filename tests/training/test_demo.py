"""Which text a demo gets, how large it is, how long its trainings take."""

import pytest

from lmcli.api import make
from lmcli.errors import TextError, UsageError
from lmcli.grammars.france.natural import NaturalSettings
from lmcli.report.progress import Message
from lmcli.training.demo import DemoText, choose_sizes

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


@pytest.mark.parametrize(("own_text", "minutes"), [(True, 4.75), (False, 1.75)])
def test_sizes_are_those_given_or_the_defaults(own_text, minutes):
    sizes = choose_sizes(OPTIONS | {"seed": 3}, own_text)
    assert sizes.text == NaturalSettings(seed=3)
    assert sizes.minutes == minutes
    given = OPTIONS | {"minutes": 0.5, "settings": {"words": "5000", "hidden": "8"}}
    assert choose_sizes(given, own_text).text.words == 5000
    assert choose_sizes(given, own_text).minutes == 0.5


def test_a_text_of_the_users_own_is_made_into_one_with_items(own, tmp_path):
    text = text_of(own / "my.txt", output=tmp_path / "demo", settings={"words": "2000"})
    task = text.task()
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
    assert (text.path, text.sizes.minutes) == (own / "mine.txt", 4.75)
    assert text.task().planted
    assert (own / "mine.txt").stat().st_mtime_ns == before


def test_without_a_text_there_is_one_made_by_rule():
    text = text_of(output="there")
    assert (str(text.path), text.sizes.minutes) == ("there/text.txt", 1.75)
    task = text.task()
    assert (task.text, task.planted, task.order_free) == ("a text made by rule", False, {})
    assert text.about["recipe"]["size"] == "small"


def test_facts_of_ones_own_ask_for_a_cue(own, tmp_path):
    (tmp_path / "facts.toml").write_text(
        'language = "weather"\ncues = ["There is {cue} ."]\nqueries = ["Take your {answer} ."]\n'
        'pairs = [{cue = "rain", answer = "umbrella"}, {cue = "snow", answer = "boots"}]\n'
    )
    text = text_of(own / "my.txt", facts=tmp_path / "facts.toml", settings={"words": "2000"})
    assert text.task().asked == "cue"


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
