"""Items of a grammar: what an n-gram without memory answers, wrong answers, the optimum."""

import numpy as np
import pytest

from lmcli.data.token_cache import encode_documents
from lmcli.errors import TextError
from lmcli.evaluation.forced_choice import ItemAccuracy
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.recall.grammar_items import best_perplexity, wrong_answers
from lmcli.evaluation.probes.recall.probe import Recall
from lmcli.grammars.base import Item, companions, read_about, write_grammar
from lmcli.grammars.france.grammar import France
from lmcli.models.ngram.model import NGram
from lmcli.registry import TOKENIZERS

FACTS = {"facts": {"pairs": [["France", "French"], ["Spain", "Spanish"], ["Italy", "Italian"]]}}
LANGUAGES = ("French", "Spanish", "Italian")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A text of the grammar: its path, its lines, and a run that counts n-grams of five words."""
    path = tmp_path_factory.mktemp("made") / "france.txt"
    write_grammar(France(France.Settings(size="small")), path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    cls = TOKENIZERS.load("word")
    tokenizer = cls.train(lines, cls.Settings())
    ngram = NGram(tokenizer.size, NGram.Settings(order=5))
    ngram.fit_counts(encode_documents(tokenizer, lines[:2000]))
    return path, lines, ProbedModel("ngram", "ngram", ngram, tokenizer, lambda: ngram)


@pytest.fixture(scope="module")
def result(made):
    path, lines, subject = made
    data = ProbeData.of([str(path)], lines[:100])
    return Recall().run([subject], data, Recall.Settings(items=48))


def test_who_sees_five_words_is_at_chance_beyond_by_every_measure(result):
    control = next(r for r in result.rows if r["kind"] == "control")
    country = [r for r in result.rows if r["kind"] == "country" and r["gap"] >= 5]
    assert control["value"] == 1.0
    assert len(country) > 5
    for row in country:
        assert row["chance"] == pytest.approx(1 / 16)
        assert row["target_low"] < row["target_nats"] < row["target_high"]
        assert row["target_nats"] == pytest.approx(np.log(16), abs=0.25)
        assert row["retained"] == pytest.approx(1 - row["target_nats"] / np.log(16))
        assert row["retained_low"] < row["retained"] < row["retained_high"]
        assert row["value"] + row["intrusions"] + row["guesses"] == pytest.approx(1.0)
        assert row["intrusions"] == pytest.approx(row["intrusions_by_lot"], abs=0.25)
    (summary,) = result.summary
    assert summary["half_memory"] == {"gap": 3, "low": 3, "high": 3, "at_least": False}
    assert summary["figure"] == "3"
    assert "half-memory at gap 3; above chance up to gap" in result.verdict


def test_the_order_free_reader_stands_beside_chance_at_the_main_kind(made, result):
    free = read_about(companions(made[0])[1])["order_free"]
    for row in result.rows:
        assert row["order_free"] == (free[str(row["gap"])] if row["kind"] == "country" else None)
    assert free["3"] == 1.0
    assert "order_free" in [column.path for column in result.columns]


def test_perplexity_is_compared_with_that_of_the_grammar_on_the_same_documents(made, result):
    path, lines, _ = made
    data = ProbeData.of([str(path)], lines[:20])
    grammar = France(France.Settings(size="small"))
    logs = [p for line in lines[:20] for p in grammar.token_log_probabilities(line.strip("\n"))]
    assert best_perplexity(data) == pytest.approx(np.exp(-np.mean(logs)))
    assert best_perplexity(ProbeData.of([str(path)], ["no line of it\n"])) == pytest.approx(
        grammar.optimum().perplexity
    )
    assert 1.0 < result.rows[0]["over_optimum"] < 1.6


def test_wrong_answers_are_intrusions_where_they_are_named_before_the_blank():
    def item(text):
        return Item(text, "French", LANGUAGES, 9, "country")

    items = [
        item("Tom is from France . Spain is hot . he speaks "),  # Spanish: its country is named
        item("Tom is from France . an Italian song . he speaks "),  # Italian: named itself
        item("Tom is from France . Spaniards sing . he speaks "),  # Spanish: not named
        item("Tom is from France . Spain is hot . he speaks "),  # right
    ]
    chosen = ("Spanish", "Italian", "Spanish", "French")
    result = ItemAccuracy("country", 9, 4, 1, 1.0, 1.1, 1 / 3, 0.1, chosen)
    found = wrong_answers(items, result, FACTS)
    assert found == {"intrusions": 0.5, "guesses": 0.25, "intrusions_by_lot": (0.5 + 0.5) / 4}
    assert set(wrong_answers(items, result, {}).values()) == {None}


def test_in_a_text_without_blanks_a_name_is_found_within_others():
    item = Item("湯姆來自法國西班牙很熱", "法語", ("法語", "西語"), 9, "country")
    about = {"facts": {"pairs": [["法國", "法語"], ["西班牙", "西語"]]}, "unit": "characters"}
    result = ItemAccuracy("country", 9, 1, 0, 1.0, 0.7, 0.5, 0.1, ("西語",))
    assert wrong_answers([item], result, about)["intrusions"] == 1.0


def test_items_that_are_not_there_are_an_error(made, tmp_path):
    damaged = ProbeData(("a\n",), ("a\n",), tmp_path / "none.jsonl")
    with pytest.raises(TextError):
        Recall().run([made[2]], damaged, Recall.Settings())
