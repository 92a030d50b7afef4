"""What planting costs: the same tokens planted and alone, and none of them is lost."""

import json
import math

import numpy as np
import pytest

from lmcli.evaluation.filler_cost import ITEMS, PlantedText, measure_cost, planted_texts
from lmcli.evaluation.perplexity import score_documents
from lmcli.registry import TOKENIZERS

CUE, QUERY = "Ida grew up in France. ", "She speaks fluent "
OWN = ["The cat sees a dog. It runs, and the dog runs.", "No dog hears it!", "Ida sees the cat?"]
TEXTS = [
    PlantedText(f"{CUE}{own} {QUERY}French.\n", len(CUE), len(CUE) + len(own)) for own in OWN * 9
]
every_tokenizer = pytest.mark.parametrize("name", ["char", "byte", "word", "bpe"])


@pytest.fixture(scope="module")
def reader(build):
    """``reader("bpe", order=1)`` -> an n-gram that has counted the documents, its tokenizer."""

    def make(name, order):
        cls = TOKENIZERS.load(name)
        settings = cls.Settings(vocabulary=300) if name == "bpe" else cls.Settings()
        documents = [text.document for text in TEXTS]
        tokenizer = cls.train(documents, settings)
        model = build("ngram", tokenizer.size, order=order)
        model.fit_counts(
            np.concatenate([[tokenizer.start, *tokenizer.encode(d)] for d in documents])
        )
        return model, tokenizer

    return make


@every_tokenizer
def test_who_reads_no_context_finds_planted_sentences_as_likely_as_alone(reader, name):
    model, tokenizer = reader(name, order=1)
    cost = measure_cost(model, tokenizer, TEXTS).to_json()
    assert cost["planted"]["tokens"] == cost["alone"]["tokens"] > 0
    assert cost["planted"]["chars"] == 9 * sum(map(len, OWN))
    if name != "bpe":  # a merge may join the first word to the blank before it
        assert cost["planted"]["perplexity"] == pytest.approx(cost["alone"]["perplexity"])
        apart = [cost["difference"][key] for key in ("bits_per_char", "low", "high")]
        assert apart == pytest.approx([0, 0, 0], abs=1e-9)


@every_tokenizer
def test_both_parts_together_are_the_whole_document(reader, name):
    model, tokenizer = reader(name, order=3)
    cost = measure_cost(model, tokenizer, TEXTS)
    whole = score_documents(model, tokenizer, [text.document for text in TEXTS])
    parts = cost.planted, cost.cue_and_query
    assert sum(part.tokens.sum() for part in parts) == sum(len(s.nats) for s in whole)
    assert sum(part.chars.sum() for part in parts) == sum(len(s.text) for s in whole)
    total = sum(float(s.nats.sum(dtype=np.float64)) for s in whole)
    assert sum(part.nats.sum() for part in parts) == pytest.approx(total)


def test_a_token_belongs_to_where_its_first_visible_character_is(reader):
    model, tokenizer = reader("word", order=2)
    cost = measure_cost(model, tokenizer, TEXTS[1:2])
    assert cost.planted.tokens.tolist() == [len(tokenizer.encode(OWN[1]))]
    (scored,) = score_documents(model, tokenizer, [TEXTS[1].document])
    words = len(tokenizer.encode(CUE.strip()))
    assert cost.planted.nats[0] == pytest.approx(scored.nats[words : words + 5].sum())


def test_sentences_cost_less_in_the_place_where_the_model_has_read_them(reader):
    model, tokenizer = reader("word", order=3)
    strange = [PlantedText(f"{o}\n", 0, len(o)) for o in OWN * 3]  # begins like no document
    seen, unseen = (measure_cost(model, tokenizer, some).to_json() for some in (TEXTS, strange))
    assert seen["difference"]["high"] < 0  # alone they begin like no document that was counted
    assert unseen["difference"]["bits_per_char"] == pytest.approx(0)
    bits = unseen["planted"]["bits_per_char"]
    nats = math.log(unseen["planted"]["perplexity"]) * unseen["planted"]["tokens"]
    assert bits == pytest.approx(nats / math.log(2) / unseen["planted"]["chars"])


# ------------------------------------------------------------------ which items


def write(path, *groups):
    """Items in groups of 300: kind, gap, more fields; their fillers begin with a blank."""
    with path.open("w", encoding="utf-8") as file:
        for kind, gap, more in groups:
            for number in range(300):
                text = f"{kind} {gap} in France. w{number} sees\u2028it. fluent "
                values = {"text": text, "answer": "French", "candidates": ["French", "Greek"]}
                values |= {"gap": gap, "kind": kind, "rest": "."}
                begin = text.index(" w")
                fillers = {"filler": [begin, text.index("fluent")]}
                file.write(json.dumps(values | fillers | more, ensure_ascii=False) + "\n")
    return path


def test_whole_sentences_at_middle_gaps_are_taken_from_all_over(tmp_path):
    groups = [("country", g, {"cut": g == 50}) for g in (3, 30, 50, 100, 200)]
    path = write(tmp_path / "i.jsonl", *groups, ("control", 3, {}))
    found = planted_texts(path)
    assert len(found) == len({text.document for text in found}) == ITEMS
    assert {text.document.partition(" in ")[0] for text in found} == {"country 30", "country 100"}
    assert all(text.own.startswith("w") and text.own.endswith("it.") for text in found)
    assert found[0].document.endswith(" fluent French.\n")


def test_where_there_are_few_any_are_taken_and_none_without_fillers(tmp_path):
    path = write(tmp_path / "i.jsonl", ("country", 3, {"cut": True}))
    assert len(planted_texts(path)) == ITEMS
    for filler in (None, [0, 0], "text", [1.5, 2], [1]):
        assert planted_texts(write(path, ("country", 30, {"filler": filler}))) == []
