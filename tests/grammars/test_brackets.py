"""Laws of the bracket grammar: its brackets, its gaps, its entropy, its twins."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lmcli import registry
from lmcli.evaluation.forced_choice import item_accuracy
from lmcli.grammars.base import Draws, Item, read_about, read_items, write_grammar
from lmcli.grammars.brackets import GAPS, Brackets, BracketsSettings
from lmcli.models.window import Window, WindowSettings
from lmcli.settings import update
from lmcli.tokenizers.char import CharTokenizer


def brackets(**changes: object) -> Brackets:
    return Brackets(update(BracketsSettings(size="small"), changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tmp_path_factory.mktemp("made") / "brackets.txt"
    write_grammar(brackets(), text)
    return text


@pytest.fixture(scope="module")
def documents(written: Path) -> list[str]:
    return written.read_text().splitlines()


@pytest.fixture(scope="module")
def items(written: Path) -> list[Item]:
    return read_items(written.with_suffix(".items.jsonl"))


def pairs(document: str) -> list[tuple[int, int]]:
    """Openers and closers by a plain stack; one that is not matched is an error."""
    stack, found = [], []
    for place, symbol in enumerate(document):
        if symbol == "(":
            stack.append(place)
        elif symbol == ")":
            found.append((stack.pop(), place))
    assert not stack
    return found


def test_brackets_is_found_by_its_file() -> None:
    assert registry.GRAMMARS.load("brackets") is Brackets


# The text


def test_every_bracket_is_closed_and_the_last_one_after_the_full_stop(documents: list[str]) -> None:
    assert sum(len(d) + 1 for d in documents) < 1_000_000
    for document in documents[:3000]:
        text, ending = document[:-2], document[-2:]
        assert ending in (".)", "..")
        assert "." not in text
        assert text.count("(") - text.count(")") == (ending == ".)")
        pairs(document)


def test_half_of_the_documents_end_in_a_closer_whose_gap_is_log_uniform(
    documents: list[str],
) -> None:
    open_ones = [d for d in documents if d.endswith(".)")]
    assert len(open_ones) == pytest.approx(len(documents) / 2, abs=2 * len(documents) ** 0.5)
    gaps = [close - begin - 1 for d in open_ones for begin, close in pairs(d)[-1:]]
    assert (min(gaps), max(gaps)) == (1, 100)
    counts = Counter(int(math.log2(gap)) for gap in gaps)  # 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64-100
    total = sum(1 / gap for gap in range(1, 101))
    for octave, count in counts.items():
        share = sum(1 / g for g in range(2**octave, min(101, 2 ** (octave + 1)))) / total
        assert count == pytest.approx(share * len(gaps), abs=5 * (share * len(gaps)) ** 0.5)


def test_the_length_of_a_document_tells_nothing() -> None:
    """The lengths of both kinds are drawn alike, to the character."""
    g = brackets(longest=30)
    assert g.plain.sum() == pytest.approx(1)
    sums = np.zeros(60)
    for before, within in itertools.product(range(30), repeat=2):
        sums[before + 1 + within] += g.gap[before] * g.gap[within]
    np.testing.assert_allclose(g.plain, sums)


def test_the_same_settings_make_the_same_text_and_another_seed_another(
    documents: list[str],
) -> None:
    assert list(itertools.islice(brackets().documents(), 50)) == documents[:50]
    assert next(brackets(seed=1).documents()) != documents[0]
    assert documents[:2] == ["ebf(dfgbfb.)", "d()d(gede.)"]


def test_without_a_share_of_brackets_there_is_one_at_the_most() -> None:
    some = itertools.islice(brackets(share=0.0).documents(), 200)
    assert {(d.count("("), d[-1]) for d in some} == {(0, "."), (1, ")")}


# The entropy


def inner_probability(g: Brackets, text: str) -> float:
    """By the definition: what the first character begins, times the rest."""
    if not text:
        return 1.0
    share = g.settings.share if len(text) > 1 else 0.0
    if text[0] in g.letters:
        return (1 - share) / len(g.letters) * inner_probability(g, text[1:])
    for close in range(1, len(text) if text[0] == "(" else 0):
        inside = text[1:close]
        if text[close] == ")" and inside.count("(") == inside.count(")"):
            gap, most = close - 1, len(text) - 2
            p = 1 / (gap + 1) / sum(1 / (n + 1) for n in range(most + 1))
            within = inner_probability(g, inside)
            return share * p * within * inner_probability(g, text[close + 1 :])
    return 0.0


def probability(g: Brackets, document: str) -> float:
    """Of a whole document, by all ways to make it."""
    text, ending = document[:-2], document[-2:]
    if ending == "..":
        return g.plain[len(text)] / 2 * inner_probability(g, text)
    total = 0.0
    for place in (i for i, symbol in enumerate(text) if symbol == "("):
        before, within = text[:place], text[place + 1 :]
        if len(before) < g.longest and len(within) < g.longest:
            lengths = g.gap[len(before)] * g.gap[len(within)]
            total += lengths / 2 * inner_probability(g, before) * inner_probability(g, within)
    return total


@pytest.mark.parametrize(("longest", "letters", "share"), [(3, 2, 0.3), (4, 1, 0.45), (2, 3, 0.0)])
def test_over_all_documents_the_oracle_is_the_definition_and_sums_to_the_closed_form(
    longest: int, letters: int, share: float
) -> None:
    g = brackets(longest=longest, letters=letters, share=share)
    texts = (
        "".join(some)
        for length in range(2 * longest)
        for some in itertools.product(g.letters + "()", repeat=length)
    )
    whole = [text + ending for text in texts for ending in ("..", ".)")]
    known = {document: p for document in whole if (p := probability(g, document))}
    assert sum(known.values()) == pytest.approx(1)
    nats = -sum(p * math.log(p) for p in known.values())
    assert nats == pytest.approx(g.optimum().nats_per_document)
    sizes = sum(p * (len(document) + 1) for document, p in known.items())
    assert sizes == pytest.approx(g.optimum().characters_per_document)
    prefixes = Counter[str]()
    for document, p in known.items():
        for end in range(len(document) + 2):
            prefixes[(document + "\n")[:end]] += p
    for document in list(known)[::7]:
        logs = g.token_log_probabilities(document)
        read = document + "\n"
        ratios = [prefixes[read[: i + 1]] / prefixes[read[:i]] for i in range(len(read))]
        np.testing.assert_allclose(np.exp(logs), ratios, rtol=1e-9)
    for document in whole[::5]:
        if document not in known:
            with pytest.raises(ValueError, match="cannot go on"):
                g.token_log_probabilities(document)


def test_the_oracle_agrees_with_the_closed_form_on_the_text(documents: list[str]) -> None:
    g, count = brackets(), 600
    nats = [-sum(g.token_log_probabilities(d)) for d in documents[:count]]
    mean = sum(nats) / count
    error = math.sqrt(sum((n - mean) ** 2 for n in nats) / (count - 1) / count)
    assert mean == pytest.approx(g.optimum().nats_per_document, abs=3 * error)
    assert g.amnesic().nats_per_document == g.optimum().nats_per_document + math.log(2)


def test_the_oracle_is_certain_of_what_follows_the_full_stop_after_a_thousand_characters() -> None:
    g = Brackets(BracketsSettings(size="long"))
    for text, ending in (("(" + "ab" * 499 + ".", ")"), ("a" + "(b)" * 333 + ".", ".")):
        logs = g.token_log_probabilities(text + ending)
        assert len(logs) == len(text) + 2
        assert logs[-2:] == [0.0, 0.0]
        assert all(-math.inf < log < 0 for log in logs[:-2])


# The items


def test_items_are_documents_that_the_text_has_not(documents: list[str], items: list[Item]) -> None:
    asked = [item.document for item in items]
    assert len(set(asked)) == len(asked)
    assert set(asked).isdisjoint(documents)
    assert Counter(item.gap for item in items) == dict.fromkeys(GAPS["small"], 300)
    assert GAPS["long"] == (3, 5, 10, 20, 50, 100, 200, 400, 700, 1000)


def test_twins_differ_in_the_opener_alone_which_stands_at_the_gap(items: list[Item]) -> None:
    for opened, plain in zip(items[::2], items[1::2], strict=True):
        assert (opened.answer, plain.answer) == (")", ".")
        assert opened.candidates == plain.candidates == (")", ".")
        places = [i for i, (x, y) in enumerate(zip(opened.text, plain.text, strict=True)) if x != y]
        begin, close = pairs(opened.document)[-1]
        assert places == [begin]
        assert close - begin - 1 == opened.gap == plain.gap
        pairs(plain.document)


def test_items_up_to_the_longest_gap_of_the_text_are_documents_of_the_grammar(
    items: list[Item],
) -> None:
    for item in items[::97]:
        if item.gap <= 100:
            assert brackets().token_log_probabilities(item.document)[-1] == 0.0


def test_counting_readers_are_right_everywhere_and_one_who_sees_the_last_bracket_is_not(
    items: list[Item],
) -> None:
    """The figures of the documentation. Without a complete pair in the gap the last bracket tells.

    A gap of g characters holds no pair with probability (1 - share)^(g - 2).
    """
    shares = []
    for gap in GAPS["small"]:
        some = [item for item in items if item.gap == gap]
        counted = [(i.text.count("(") > i.text.count(")")) == (i.answer == ")") for i in some]
        assert all(counted)
        last = [(i.text.rfind("(") > i.text.rfind(")")) == (i.answer == ")") for i in some]
        shares.append(sum(last) / len(last))
        expected = (1 + 0.95 ** (gap - 2)) / 2
        assert shares[-1] == pytest.approx(expected, abs=4 * (0.25 / len(some)) ** 0.5)
    assert [round(100 * share) for share in shares] == [98, 94, 84, 66, 56, 51, 50]


def test_a_window_that_ends_before_the_opener_is_right_in_just_one_of_two_twins(
    items: list[Item],
) -> None:
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcdefgh().\n"], CharTokenizer.Settings())
    window = Window(tokenizer.size, WindowSettings(window=8, hidden=16, embedding=8)).eval()
    for gap in (10, 20, 100):
        found = item_accuracy(window, tokenizer, [i for i in items if i.gap == gap][:60])
        assert found.right == 30
        assert found.chance == 0.5


def test_the_about_file_says_what_was_made(written: Path) -> None:
    about = read_about(written.with_suffix(".about.json"))
    assert about["recipe"]["share"] == 0.05
    assert about["chance"] == {"closer": 0.5}
    assert about["tokenizer"] == "char"
    best = brackets().optimum()
    assert about["optimum"]["bits_per_char"] == best.bits_per_char
    mean = about["characters"] / about["documents"]
    assert mean == pytest.approx(best.characters_per_document, rel=0.02)


def test_inner_text_has_the_length_asked_for() -> None:
    g, draws = brackets(share=0.4), Draws("length")
    for length in range(40):
        text = g.inner(length, draws)
        assert len(text) == length
        pairs(text)
