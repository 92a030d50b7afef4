"""Reading a keystroke at a time gives what reading the whole text gives."""

import numpy as np
import pytest

from lmcli.generation.numpy_models.base import TorchAdapter
from lmcli.tokenizers.char import CharTokenizer
from lmcli.web import reading
from lmcli.web.models import open_models
from lmcli.web.reading import PrefixReader

TEXT = "Zoe grew up in France . now she speaks fluent French ."
LONG = 1e9


class Counting(TorchAdapter):
    """Counts the tokens that it reads."""

    count = 0

    def read(self, tokens):
        self.count += 1
        super().read(tokens)


@pytest.fixture
def reader(build):
    """A reader of characters with a small LSTM behind it."""
    tokenizer = CharTokenizer.train([TEXT], CharTokenizer.Settings())
    return PrefixReader(Counting(build("lstm", tokenizer.size)), tokenizer)


def same(a, b):
    assert np.allclose(a.scored.nats, b.scored.nats, atol=1e-5)
    assert np.allclose(a.after, b.after, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "ngram", "chars"])
def test_typing_and_deleting_gives_what_a_fresh_reading_gives(runs, name):
    typed = open_models(runs)[name].reader
    places = [*range(len(TEXT) + 1), *range(len(TEXT), 0, -7), 3, 40, 12]
    for place in places:
        fresh = open_models(runs)[name].reader if place % 9 == 0 else None
        found = typed.read(TEXT[:place], LONG)
        if fresh is not None:
            same(found, fresh.read(TEXT[:place], LONG))


def test_one_more_character_costs_one_token(reader):
    reader.read(TEXT[:40], LONG)
    for place in (41, 42, 43, 42, 43):
        before = reader.model.count
        reader.read(TEXT[:place], LONG)
        assert reader.model.count - before <= 1


def test_a_reading_that_is_cut_short_goes_on_where_it_stopped(reader, build):
    whole = PrefixReader(Counting(build("lstm", reader.tokenizer.size)), reader.tokenizer)
    calls, found = 0, None
    while found is None:
        found = reader.read(TEXT, 0)
        calls += 1
    assert calls == len(TEXT)
    assert reader.model.count == len(TEXT) + 1  # and the start id
    same(found, whole.read(TEXT, LONG))


def test_other_texts_in_between_change_nothing(reader):
    once = reader.read(TEXT, LONG)
    for other in ("France", "Zoe grew up in Spain", ""):
        reader.read(other, LONG)
    same(once, reader.read(TEXT, LONG))


def test_what_is_kept_is_bounded(reader, monkeypatch):
    for place in range(50):
        reader.read(TEXT[place:] + TEXT[:place], LONG)
    assert len(reader._prefixes) == reading.KEPT_PREFIXES
    monkeypatch.setattr(reading, "KEPT_BYTES", 4000)
    reader.read("Zoe", LONG)
    assert sum(p.size for p in reader._prefixes) <= 4000


def test_a_distribution_sums_to_one_and_leaves_room_for_the_unknown(runs):
    reader = open_models(runs)["lstm"].reader
    after = reader.read("Zoe grew", LONG).after
    assert np.exp(after).sum() == pytest.approx(1)
    rate = reader.tokenizer.unknown_rate
    assert np.exp(after[reader.tokenizer.unknown]) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "read"),
    [("", ""), ("Zoe", "Zoe"), ("Zoe ", "Zoe"), ("Zoe  ", "Zoe  "), ("Zoe gr", "Zoe"), ("xy", ""),
     ("Zoe\n", "Zoe\n")],
)  # fmt: skip
def test_what_is_typed_is_read_up_to_the_last_whole_word(runs, text, read):
    assert open_models(runs)["lstm"].reader.typed(text) == read


def test_characters_are_whole_at_once(runs):
    assert open_models(runs)["chars"].reader.typed("Zoe gr ") == "Zoe gr "
