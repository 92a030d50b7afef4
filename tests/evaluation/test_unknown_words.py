"""Unknown tokens: one chance for all models, and spellings that sum to one."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from lmcli.evaluation import unknown_words
from lmcli.evaluation.perplexity import _lines, _tokens_of, score_documents
from lmcli.evaluation.score import Score
from lmcli.evaluation.unknown_words import (
    CHARACTERS,
    ORDER,
    SpelledWords,
    UnknownTexts,
    UnknownWords,
)
from lmcli.models.layers import softmax
from lmcli.models.ngram.kneser_ney import KneserNey
from lmcli.registry import MODELS, TOKENIZERS
from lmcli.settings import names
from lmcli.tokenizers.base import Encoded
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer

KNOWN = "the cat saw the dog\nthe dog saw a cat , the cat ran\n"
UNSEEN = "the zebra saw the dog\n\ta cat  ran ; ran\n"


def tokenizer_of(name, text=KNOWN, **settings):
    cls = TOKENIZERS.load(name)
    if name == "bpe":
        settings["vocabulary"] = 270
    return cls.train([text], cls.Settings(**settings))


# ------------------------------------------------------------------ the chance of an unknown token

NEURAL = [name for name in MODELS.names() if not MODELS.load(name).is_count_based]
HAS_ADAPTIVE = [n for n in NEURAL if "softmax" in names(MODELS.load(n).Settings)]


@pytest.mark.parametrize("tokenizer_name", ["char", "word"])
@pytest.mark.parametrize("name", [*NEURAL, *(f"{name} softmax=adaptive" for name in HAS_ADAPTIVE)])
def test_two_models_that_differ_in_the_unknown_logit_alone_score_equal(
    build, monkeypatch, name, tokenizer_name
):
    monkeypatch.setattr(softmax, "SHORTEST", 1)
    tokenizer = tokenizer_of(tokenizer_name)
    model = build(name, tokenizer.size)
    bias = model.output_parameters()[1] if model.adaptive is None else model.output.head.bias
    found, raw = [], []
    for logit in (0.0, 7.0):
        with torch.no_grad():
            bias[tokenizer.unknown] = logit
        found.append(Score.of(score_documents(model, tokenizer, [UNSEEN])))
        tokenizer.unknown_rate, rate = None, tokenizer.unknown_rate
        raw.append(Score.of(score_documents(model, tokenizer, [UNSEEN])))
        tokenizer.unknown_rate = rate
    assert found[0].unknown_tokens > 1
    assert found[1].nats == pytest.approx(found[0].nats, rel=1e-6)
    (without,) = {round(score.perplexity_without_unknown, 3) for score in found}
    tokenizer.unknown_rate /= 2  # which these tokens know nothing of
    other = Score.of(score_documents(model, tokenizer, [UNSEEN]))
    assert other.perplexity_without_unknown == pytest.approx(without, rel=1e-4)
    assert found[1].bits_per_char == pytest.approx(found[0].bits_per_char, rel=1e-6)
    assert raw[1].nats != pytest.approx(raw[0].nats, rel=3e-3)  # a hybrid is mostly counts


@pytest.mark.parametrize("name", ["gru", "ngram", "lstm softmax=adaptive"])
def test_the_chances_of_all_tokens_sum_to_one(build, name):
    tokenizer = tokenizer_of("word")
    model, costs = build(name, tokenizer.size), UnknownWords(tokenizer)
    tokens = torch.from_numpy(tokenizer.encode(KNOWN).astype(np.int64))[None]
    total = np.zeros(tokens.shape)
    for target in range(tokenizer.size):
        targets = torch.full_like(tokens, target)
        with torch.inference_mode():
            state = model.initial_state(1)
            logs, _ = model.log_probabilities(tokens, targets, state, costs.excluded)
        total += np.exp(-costs.token_nats(targets.numpy(), -logs.numpy()))
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_where_nothing_is_unknown_nothing_changes(name):
    tokenizer = tokenizer_of(name)
    costs, encoded = UnknownWords(tokenizer), tokenizer.encode_with_ends(UNSEEN)
    nats = np.arange(len(encoded.ids), dtype=np.float32)
    assert costs.excluded is None
    assert costs.token_nats(encoded.ids, nats) is nats
    assert not costs.spelling_nats(UNSEEN, encoded).any()


# ------------------------------------------------------------------ the spelling


def test_the_spellings_of_unknown_words_sum_to_one():
    words = ["a", "b", "ab", "ba", "aab", "", "abb", "bab"]
    model, longest = SpelledWords(words), 6
    strings = ["".join(s) for k in range(longest + 1) for s in itertools.product("abX", repeat=k)]
    unknown = [s for s in strings if s not in words]
    others = CHARACTERS - 2  # what X may stand for
    total = math.fsum(
        others ** s.count("X") * math.exp(-nats)
        for s, nats in zip(unknown, model.nats(unknown), strict=True)
    )
    # what goes on after that length: all prefixes, without the end, by whole distributions
    end, other, start = 0, 1, model.table.vocabulary
    prefixes = {(start,): 1.0}
    for _ in range(longest + 1):
        longer = {}
        for prefix, chance in prefixes.items():
            after = model.table.distributions(np.array([prefix]), 1)[0, 0]
            longer |= {(*prefix, c): chance * after[c] for c in (other, 2, 3)}
        prefixes = longer
    rest = math.fsum(prefixes.values())
    known = -math.fsum(np.exp(-model._nats(words))) + 1
    assert 0.001 < rest < 0.5
    assert end not in {c for prefix in prefixes for c in prefix}
    assert total + rest / known == pytest.approx(1, abs=1e-5)


def test_an_unknown_character_is_one_of_all_that_are_not_known():
    tokenizer = CharTokenizer.train(["abcab"], CharTokenizer.Settings())
    encoded = tokenizer.encode_with_ends("aXb")
    found = UnknownWords(tokenizer).spelling_nats("aXb", encoded)
    assert found == pytest.approx([0, math.log(1_112_064 - 3), 0])


def test_what_was_spelt_before_costs_less_by_hand():
    tokenizer = CharTokenizer.train(["abcab"], CharTokenizer.Settings())
    one, two = (UnknownTexts(tokenizer, discount=0.5, strength=0.25) for _ in range(2))
    documents = [one.ids(text, tokenizer.encode_with_ends(text)) for text in ("aXbX", "YX")]
    ids, q = np.concatenate(documents), 1 / (1_112_064 - 3)
    first = one.first
    found = one.log_chances(np.array([first, first + 1]), ids)  # of all at once
    assert one.read().tolist() == []
    # X before anything, after one X, after two X, and after two X and a Y
    x = [q, q, (0.5 + 0.75 * q) / 1.25, (0.5 + 0.75 * q) / 1.25, (1.5 + 0.75 * q) / 2.25]
    x.append((1.5 + 1.25 * q) / 3.25)
    y = [q, q, 0.75 * q / 1.25, 0.75 * q / 1.25, 0.75 * q / 2.25, (0.5 + 1.25 * q) / 3.25]
    assert found == pytest.approx(np.log([x, y]).T, rel=1e-9)
    for text, place in (("aXbX", 0), ("YX", 4)):  # and one document after the other
        ids = two.ids(text, tokenizer.encode_with_ends(text))
        chances = two.log_chances(np.array([first]), ids)[:, 0]
        assert chances == pytest.approx(found[place : place + len(ids), 0], rel=1e-9)
        two.add(ids)
    assert two.read().tolist() == [first, first + 1]


def spelt_as(monkeypatch, chances):
    """Unknown texts have these chances; of characters that are not "a"."""
    monkeypatch.setattr(
        unknown_words, "spelling", lambda _: lambda texts: -np.array([chances[t] for t in texts])
    )
    tokenizer = CharTokenizer.train(["aa"], CharTokenizer.Settings())
    texts = UnknownTexts(tokenizer, discount=0.7, strength=0.15)
    return texts, lambda text: texts.ids(text, tokenizer.encode_with_ends(text))


def test_all_unknown_texts_sum_to_one_whatever_was_read(monkeypatch):
    chances = dict(zip("uvwxyz", np.log([0.3, 0.05, 0.25, 0.1, 0.2, 0.1]), strict=True))
    texts, ids = spelt_as(monkeypatch, chances)
    texts.add(ids("uvuauxau"))
    found = np.exp(texts.log_chances(ids("uvwxyz"), ids("x"))[0])
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found[0] > 0.5


def test_a_text_too_long_for_a_chance_above_zero_has_finite_nats(monkeypatch):
    texts, ids = spelt_as(monkeypatch, {"x": -5000.0, "y": -8.0})
    both = ids("xy")
    assert texts.log_chances(both, both)[0] == pytest.approx([-5000, -8])
    texts.add(both)
    again = texts.log_chances(both, both)
    assert np.isfinite(again).all()
    assert again.min() > -3


def test_a_text_without_unknown_tokens_has_the_ids_of_its_tokens():
    tokenizer = CharTokenizer.train(["abcab"], CharTokenizer.Settings())
    encoded = tokenizer.encode_with_ends("abc")
    texts = UnknownTexts(tokenizer, discount=0.5, strength=0.25)
    assert texts.ids("abc", encoded) is encoded.ids


def test_a_word_is_spelt_without_the_space_before_it_and_a_separator_as_it_is():
    tokenizer = WordTokenizer.train([KNOWN * 3], WordTokenizer.Settings(split="space"))
    text = "the zebra\tcat zebra"
    encoded = tokenizer.encode_with_ends(text)
    found = UnknownWords(tokenizer).spelling_nats(text, encoded)
    assert encoded.ids.tolist().count(tokenizer.unknown) == 3
    right = SpelledWords(tokenizer.known_texts()).nats(["zebra", "\t"])
    assert found == pytest.approx([0, right[0], right[1], 0, right[0]], rel=1e-6)


def test_words_like_the_known_ones_cost_less_than_others():
    stems = ["walk", "talk", "jump", "play", "work", "look", "call", "turn"]
    words = [stem + end for stem in stems for end in ("", "ed", "ing", "s")]
    near, far, strange = SpelledWords(words[:-1]).nats(["turns", "srnut", "日本"])
    assert near < far < strange
    assert strange > 2 * math.log(CHARACTERS - 30)


def test_a_tokenizer_of_no_text_spells_too():
    right = 3 * math.log(2) + 2 * math.log(CHARACTERS)  # end and other character, equally likely
    assert SpelledWords([]).nats(["ab"])[0] == pytest.approx(right)


# ------------------------------------------------------------------ the sums


@pytest.mark.parametrize("tokenizer_name", TOKENIZERS.names())
def test_tokens_and_lines_add_up_to_the_total(speaker, tokenizer_name):
    model, tokenizer = speaker(tokenizer_name)
    scored = score_documents(model, tokenizer, [UNSEEN, "Ωmega grew up\nin France"])
    total = Score.of(scored)
    assert (total.spelling_nats > 0) == (tokenizer.unknown is not None)
    for items in (_lines(scored), _tokens_of(scored)):
        assert sum(i["nats"] for i in items) == pytest.approx(total.nats)
        assert sum(i["spelling_nats"] for i in items) == pytest.approx(total.spelling_nats)
    chars = [line["bits_per_char"] * line["chars"] for line in _lines(scored)]
    assert sum(chars) == pytest.approx(total.bits_per_char * total.chars)


def test_bits_hold_the_spelling_and_perplexity_does_not(speaker):
    model, tokenizer = speaker("word")
    total = Score.of(score_documents(model, tokenizer, [UNSEEN]))
    assert total.perplexity == pytest.approx(math.exp(total.nats / total.tokens))
    bits = (total.nats + total.spelling_nats) / math.log(2)
    assert total.bits_per_char == pytest.approx(bits / total.chars)
    assert total.bits_per_byte == pytest.approx(bits / total.bytes)
    assert total.word_perplexity == pytest.approx(2 ** (bits / total.words))
    assert total.block_nats.sum() == pytest.approx(total.nats + total.spelling_nats)


# ------------------------------------------------------------------ word, bpe, char


def naive_spelling(tokenizer, text):
    """-ln of the chance of a text among all that are no known word, one character at a time."""
    saved = tokenizer.to_json()
    if "characters" in saved:
        return math.log(1_112_064 - len(saved["characters"]))
    known = [*saved["separators"], *saved["words"]]
    letters = sorted(set("".join(known)))
    ids = {letter: 2 + number for number, letter in enumerate(letters)}
    start = 2 + len(letters)
    stream = [i for word in known for i in (start, *(ids[letter] for letter in word), 0)]
    table = KneserNey.estimate(np.array(stream), start, ORDER)

    @functools.cache
    def after(*before):
        return table.distributions(np.array([before]), 1)[0, 0]

    def chance(word):
        before, product = (start,), 1.0
        for letter in [*word, None]:
            number = 0 if letter is None else ids.get(letter, 1)
            product *= after(*before)[number]
            product /= CHARACTERS - len(letters) if number == 1 else 1
            before = (*before, number)
        return product

    return -math.log(chance(text) / (1 - sum(map(chance, known))))


@torch.no_grad()
def naive_bits(model, tokenizer, text):
    """Bits per character by a loop over tokens, everything spelt out."""
    encoded: Encoded = tokenizer.encode_with_ends(text)
    state, before, nats, begin = model.initial_state(1), tokenizer.start, 0.0, 0
    spelt = {}
    for token, end in zip(encoded.ids.tolist(), encoded.ends.tolist(), strict=True):
        logits, state = model(torch.tensor([[before]]), state)
        p = logits[0, 0].double().softmax(0)
        if tokenizer.unknown is None:
            nats -= math.log(p[token])
        elif token == tokenizer.unknown:
            piece = text[begin:end].strip()
            if piece not in spelt:
                spelt[piece] = naive_spelling(tokenizer, piece)
            nats += spelt[piece] - math.log(tokenizer.unknown_rate)
        else:
            share = p[token] / (1 - p[tokenizer.unknown])
            nats -= math.log((1 - tokenizer.unknown_rate) * share)
        before, begin = token, end
    return nats / math.log(2) / len(text)


def test_word_bpe_and_char_are_ranked_as_by_a_scorer_that_spells_everything_out(france_documents):
    train = "".join(d + "\n" for d in france_documents[:12])
    held_out = "".join(d + "\n" for d in france_documents[40:43])
    found, naive, unspelt = {}, {}, {}
    for name, order in (("word", 3), ("bpe", 4), ("char", 5)):
        tokenizer = tokenizer_of(name, train)
        model = MODELS.load("ngram")(tokenizer.size, MODELS.load("ngram").Settings(order=order))
        model.fit_counts(np.append(tokenizer.start, tokenizer.encode(train)))
        score = Score.of(score_documents(model, tokenizer, [held_out]))
        found[name], naive[name] = score.bits_per_char, naive_bits(model, tokenizer, held_out)
        unspelt[name] = score.nats / math.log(2) / score.chars
    assert found == pytest.approx(naive, rel=1e-4)
    ranked = [sorted(figures, key=figures.__getitem__) for figures in (found, naive, unspelt)]
    assert ranked[0] == ranked[1] != ranked[2]
