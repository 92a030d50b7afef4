"""Items, about files and settings of any content: they are taken, or two lines say why not."""

import json
import string
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.probes.data import ProbeData
from lmcli.grammars.base import Item, find_companions, grammar_of, read_about, read_items
from lmcli.registry import MODELS
from lmcli.settings import check_known, parse, split_pairs, update
from lmcli.training.training_settings import TrainingSettings

SCALE = settings().max_examples // 100
ITEM = {"text": "Anna grew up in France . She speaks ", "answer": "French", "gap": 4}
ITEM |= {"candidates": ["French", "German"], "kind": "country", "rest": " ."}
PAIRS = [["France", "French"], ["Spain", "Spanish"]]
OPTIMUM = {"nats_per_document": 35.1, "perplexity": 2.1, "bits_per_char": 0.27}
ABOUT = {
    "format": 1, "recipe": {"grammar": "france", "size": "small", "level": 1, "seed": 0},
    "gaps": [3, 5], "unit": "words", "tokenizer": "word", "min_count": 1, "facts": {"pairs": PAIRS},
    "order_free": {"3": 1.0}, "sha256": None, "items": {"country": 2}, "chance": {"country": 0.5},
    "optimum": OPTIMUM, "amnesic": OPTIMUM, "filler": {"texts": ["a.txt"], "times_used": 1.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text with companions, which are written again and again."""
    path = tmp_path_factory.mktemp("made") / "f.txt"
    path.write_text("Anna grew up in France .\n")
    path.with_suffix(".items.jsonl").write_text(json.dumps(ITEM) + "\n")
    return path


def test_any_items(text, mutations, refused):
    path = text.with_name("other.items.jsonl")

    @settings(max_examples=50 * SCALE, deadline=None)
    @given(st.lists(mutations(ITEM) | st.just(ITEM), min_size=1, max_size=3), st.binary(max_size=3))
    def look(items, tail):
        path.write_bytes("\n".join(map(json.dumps, items)).encode() + tail)
        if not refused(lambda: read_items(path)):
            assert all(isinstance(item, Item) for item in read_items(path))

    look()


def test_any_about(text, mutations, refused):
    path = text.with_suffix(".about.json")

    @settings(max_examples=50 * SCALE, deadline=None)
    @given(mutations(ABOUT))
    def look(mutant):
        path.write_text(json.dumps(mutant))
        if refused(lambda: read_about(path)):
            return
        about = read_about(path)
        refused(lambda: grammar_of(about))
        for gap, share in about.get("order_free", {}).items():
            assert int(gap) + share >= 0
        for cue, answer in about.get("facts", {}).get("pairs", ()):
            assert cue + answer
        find_companions([str(text)], lambda event: None)
        best = ProbeData.of([str(text)], (), None, lambda event: None).optimum
        assert best.get("perplexity", 2.0) >= 1

    look()


@pytest.mark.parametrize("number", ["1" * 5000, "[" * 5000, '{"format": 1e999}', "\xff", "nan", ""])
def test_an_about_file_that_is_no_json(text, number):
    path = text.with_name("odd.about.json")
    path.write_text(number, encoding="latin-1")
    with pytest.raises(TextError):
        read_about(path)


PRINTED = st.text(string.printable, max_size=12)
NUMBERS = st.sampled_from(
    ["nan", "inf", "-1", "0", "1e400", "1" * 5000, "1_0", " 2 ", "0x10", "none"]
)
KNOWN = st.sampled_from(
    ["hidden", "layers", "dropout", "tie", "softmax", "batch", "clip", "attend"]
)


@given(st.dictionaries(KNOWN | PRINTED, NUMBERS | PRINTED | st.text(max_size=5), max_size=3))
@settings(max_examples=100 * SCALE, deadline=None)
def test_any_settings(pairs):
    cls = MODELS.load("lstm").Settings
    with suppress(UsageError):
        found = split_pairs([f"{name}={value}" for name, value in pairs.items()])
        check_known(found, cls, TrainingSettings)
        assert isinstance(update(cls(), found).hidden, int | None)
        update(TrainingSettings(), found)


@given(NUMBERS | st.text(max_size=8), st.sampled_from([int, float, bool, str]))
@settings(max_examples=100 * SCALE, deadline=None)
def test_any_value(value, kind):
    with suppress(UsageError):
        assert isinstance(parse("it", value, kind), kind)
