"""The count cache: a distribution, of what came before, as a naive loop computes it."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

from lmcli.evaluation import count_cache
from lmcli.evaluation.count_cache import CacheSettings, CountCache
from lmcli.evaluation.unknown_words import CHARACTERS, UnknownTexts
from lmcli.tokenizers.char import CharTokenizer

SMALL = CacheSettings(orders=(1, 2, 4), block=7)


def text(length, vocabulary, seed=0):
    """Ids with repeats, after a start id, with two more in between; ln p of some model."""
    rng = np.random.default_rng(seed)
    phrase = rng.integers(vocabulary, size=9)
    parts = [phrase if rng.random() < 0.5 else rng.integers(vocabulary, size=5) for _ in range(99)]
    ids = np.concatenate([[vocabulary], *parts])[: length + 1]
    ids[[length // 3, length // 2]] = vocabulary
    logits = 2 * rng.standard_normal((length, vocabulary))
    return ids, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def naive(ids, log_p, settings, excluded, rate=None, q=None):
    """One token at a time, one exponent at a time; the exponents step after each block.

    With a `rate` of unknown texts, each of which has the chance q, ids above V stand for them: -1
    is one that was not read yet. Then also p that a token is unknown.
    """
    orders, V = settings.orders, log_p.shape[1]
    share = (1 - settings.own_weight) / len(orders)
    first = [settings.own_weight] + [share] * len(orders)
    first += [settings.window_weight] * len(settings.windows)
    exponents = {"depth": {}, "sure": {}, "last": {}}
    counts = {order: {} for order in orders}
    nats, pending, read, unknown = [], [], [], []
    spelt = {}
    s = settings.window_strength

    def group(kind, key):
        fresh = [[v if kind == "depth" else 0.0, 0.01] for v in first]
        return exponents[kind].setdefault(key, fresh)

    for i, target in enumerate(ids[1:].tolist()):
        if i and i % settings.block == 0:
            for kind in exponents:
                sums = {}
                for keys, gradient in pending:
                    old = sums.get(keys[kind], [0.0] * len(gradient))
                    sums[keys[kind]] = [a + b for a, b in zip(old, gradient, strict=True)]
                for key, gradient in sums.items():
                    for entry, g in zip(group(kind, key), gradient, strict=True):
                        entry[1] += g * g
                        entry[0] -= settings.rate * g / math.sqrt(entry[1])
            pending = []
            read = [w for w in ids[1 : i + 1].tolist() if w < V and w != excluded]
        before = [w for w in ids[1 : i + 1].tolist() if w > V]
        if target in (V, excluded):
            nats.append(0.0)
            unknown.append(0.0)
            continue
        tokens = [w for w in range(V) if w != excluded]
        total = sum(math.exp(log_p[i, w]) for w in tokens)
        p = {w: math.exp(log_p[i, w]) / total for w in tokens}
        contexts = [tuple(ids[i + 1 - o : i + 1].tolist()) if o <= i + 1 else None for o in orders]
        founds = [counts[o].get(c, {}) for o, c in zip(orders, contexts, strict=True)]
        if rate is not None:
            met = {w for w in [*before, *(w for seen in founds for w in seen)] if w > V}
            d, theta, n = settings.discount, settings.strength, len(before)
            backoff = (theta + d * len(set(before))) * q
            spelt = {
                w: (max(before.count(w) - d, 0) + backoff) / (n + theta)
                for w in {*met, target}
                if w > V
            }
            tokens += sorted(met)
            p = {w: (1 - rate) * p[w] if w < V else rate * spelt[w] for w in tokens}
            p[-1] = rate * (1 - sum(spelt[w] for w in met))
            tokens.append(-1)
        features, depth, sure = [p], 0, False
        longest_first = list(zip(orders, contexts, founds, strict=True))[::-1]
        steps, added = [], 1.0
        for order, context, seen in longest_first:
            steps.append((order, context, added if target in seen else 1.0))
            added *= settings.update_exclusion if target in seen else 1.0
        for seen in founds:
            n, t = sum(seen.values()), len(seen)
            if n:
                depth, sure = depth + 1, t == 1
            d, theta = settings.discount, settings.strength
            p = {
                w: (max(seen.get(w, 0) - d, 0) + (theta + d * t) * p[w]) / (n + theta)
                for w in tokens
            }
            features.append(p)
        for order, context, step in steps:
            if context is not None:
                entry = counts[order].setdefault(context, {})
                entry[target] = entry.get(target, 0) + step
        for window in settings.windows:
            last = read[-window:]
            whole = {w: (read.count(w) + 0.5) / (len(read) + V / 2) for w in tokens}
            lately = {w: (last.count(w) + s * whole[w]) / (len(last) + s) for w in tokens}
            features.append({w: lately[w] / whole[w] for w in tokens})
        top = math.exp(max(log_p[i]))
        keys = {
            "depth": (depth, sure),
            "sure": min(7, int(-2 * math.log(min(1, max(1e-4, 1 - top))))),
            "last": int(ids[i]) if ids[i] <= V else -1,
        }
        powers = [
            sum(e[0] for e in es) for es in zip(*map(group, keys, keys.values()), strict=True)
        ]
        weights = {
            w: math.prod(f[w] ** a for f, a in zip(features, powers, strict=True)) for w in tokens
        }
        z = sum(weights.values())
        own = target if target in tokens else -1
        nats.append(-math.log(weights[own] / z))
        if target > V and own == -1:
            nats[-1] -= math.log(rate * spelt[target] / features[0][-1])
        unknown.append(sum(weights[w] / z for w in tokens if w > V or w == -1))
        gradient = [
            sum(weights[w] / z * math.log(f[w]) for w in tokens) - math.log(f[own])
            for f in features
        ]
        pending.append((keys, gradient))
    return nats if rate is None else (nats, unknown)


def with_unknown(length, seed=0):
    """A text of which some characters are unknown; a tokenizer; ln p given that they are known."""
    tokenizer = CharTokenizer.train(["abcde" * 9], CharTokenizer.Settings())
    rng = np.random.default_rng(seed)
    phrases = ["aXbcY", "dae", "bXXc", "eadbc"]
    text = "".join(rng.choice(phrases) + rng.choice(list("abcdeXYZ")) for _ in range(length))
    vocabulary = tokenizer.size
    logits = 2 * rng.standard_normal((length, vocabulary))
    logits[:, tokenizer.unknown] = -np.inf
    return text[:length], tokenizer, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def extended(tokenizer, text, settings):
    """The texts that were not known, and the ids in which each has its own."""
    texts = UnknownTexts(tokenizer, settings.discount, settings.strength)
    ids = texts.ids(text, tokenizer.encode_with_ends(text))
    return texts, np.append(tokenizer.start, ids)


def test_unknown_characters_become_tokens_once_they_were_read_as_in_a_naive_loop():
    text, tokenizer, log_p = with_unknown(150)
    texts, ids = extended(tokenizer, text, SMALL)
    V, excluded = tokenizer.size, tokenizer.unknown
    assert (ids > V).sum() > 20
    found = CountCache(V, SMALL, excluded, texts).scores([log_p], ids)
    q = 1 / (1_112_064 - 5)
    wanted = naive(ids, log_p, SMALL, excluded, tokenizer.unknown_rate, q)
    assert found.nats == pytest.approx(wanted[0], abs=1e-9)
    assert np.exp(-found.unknown) == pytest.approx(wanted[1], abs=1e-9)
    assert np.exp(-found.known) + np.exp(-found.unknown) == pytest.approx(1, abs=1e-12)
    nats = found.nats[ids[1:] > V]
    assert nats[-5:].max() < 8 < -math.log(q) < nats[0]


def test_an_unknown_text_is_a_token_from_its_next_place_on_also_within_a_block():
    """Not only from the next block on: a sign that is repeated costs its spelling once."""
    _, tokenizer, log_p = with_unknown(16)
    texts, ids = extended(tokenizer, "abZZZZZZ", replace(SMALL, block=32))
    cache = CountCache(tokenizer.size, replace(SMALL, block=32), tokenizer.unknown, texts)
    first, second, *others = cache.nats([log_p[:8]], ids)[2:]
    assert first > math.log(1_112_064 - 5) > 2 * second
    assert max(others) < 3


@pytest.mark.parametrize("large", [0, 512])
def test_a_text_of_unknown_signs_alone_leaves_a_chance_for_known_ones(large, monkeypatch):
    """Where the chance of an unknown one rounds to 1."""
    monkeypatch.setattr(count_cache, "LARGE", large)
    _, tokenizer, _ = with_unknown(1)
    texts, ids = extended(tokenizer, "Z" * 3000, SMALL)
    log_p = np.full((3000, tokenizer.size), -math.log(5))
    log_p[:, tokenizer.unknown] = -np.inf
    settings = replace(SMALL, windows=(30,) if large == 0 else ())
    found = CountCache(tokenizer.size, settings, tokenizer.unknown, texts).scores([log_p], ids)
    assert np.isfinite(found.known).all()
    assert found.known[-1] > 5 > 0.01 > found.unknown[-1]


def test_counting_without_scoring_leaves_the_same_counts():
    ids, log_p = text(300, 6)
    counted, scored = CountCache(6, SMALL), CountCache(6, SMALL)
    counted.count(ids)
    scored.nats([log_p], ids)
    assert counted._tables == scored._tables
    assert counted._before.tolist() == scored._before.tolist()


@pytest.mark.parametrize("signs", [500, 600])
def test_unknown_texts_cost_the_same_in_blocks_of_one_token(signs):
    """Whether they have an entry each or, being too many, share one; here no exponent steps."""
    _, tokenizer, _ = with_unknown(1)
    some = "".join(chr(0x4E00 + n) for n in range(signs)) + "".join(f"ab{c}" for c in "XYXXZYXZ")
    rows = np.full((len(some), tokenizer.size), -math.log(5))
    rows[:, tokenizer.unknown] = -np.inf
    costs = []
    for block in (1, 32):
        settings = replace(SMALL, block=block, rate=0.0)
        texts, ids = extended(tokenizer, some, settings)
        cache = CountCache(tokenizer.size, settings, tokenizer.unknown, texts)
        cache._exponents[0][:] *= 0.8  # as learning can make them
        costs.append(cache.nats([rows], ids)[signs:])
    assert costs[0] == pytest.approx(costs[1], abs=1e-9)


def test_counts_go_on_where_one_stream_ends_and_another_begins():
    first, second = np.array([6, 1, 2, 3]), np.array([6, 4, 5, 3, 6, 1])
    apart, together = CountCache(6, SMALL), CountCache(6, SMALL)
    for ids in (first, second):
        apart.count(ids)
    together.count(np.concatenate([first, second]))
    assert apart._tables == together._tables


def test_a_token_without_a_chance_needs_no_unknown_ones():
    log_p = np.log([[0.5, 0.25, 0.25, 1e-300]]) - [[0, 0, 0, 100]]
    with np.errstate(invalid="raise", divide="raise"):
        nats = CountCache(4, replace(SMALL, orders=(1,))).nats([log_p], np.array([4, 0]))
    assert nats[0] > 0


def test_what_float32_rounds_is_not_taken_from_other_words():
    """ln p of each a little too large: together more than 1, which others cannot have left."""
    log_p = np.full((1, 600), math.log(1e-9))
    log_p[0, 0] = math.log(1 - 599e-9)
    settings, total = replace(SMALL, orders=(1,), windows=(9,)), 0.0
    read = np.array([600, 1, 0, 2, 1])
    for token in range(600):
        cache = CountCache(600, settings)
        cache._exponents[0][:] *= 0.6  # as learning can make them
        cache.count(read)
        total += math.exp(-cache.nats([log_p + 1e-6], np.array([1, token]))[0])
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("large", [0, 512])
def test_unknown_texts_and_all_tokens_sum_to_one(large, monkeypatch):
    """Also where they are too many to have an entry each at every place."""
    monkeypatch.setattr(count_cache, "LARGE", large)
    text, tokenizer, log_p = with_unknown(90)
    V, excluded = tokenizer.size, tokenizer.unknown
    windows = (30,) if large == 0 else ()
    settings = replace(SMALL, orders=(1, 2, 3), block=8, windows=windows)
    texts, ids = extended(tokenizer, text, settings)
    cache, before = CountCache(V, settings, excluded, texts), []
    for begin in range(0, 88, 8):
        before.append(copy.deepcopy(cache))
        cache.nats([log_p[begin : begin + 8]], ids[begin : begin + 9])
    new = CHARACTERS - 5 - len(set("XYZ"))
    for i in range(3, 88, 3):
        begin, sums = i // 8 * 8, 0.0
        for token in [*np.unique(ids[ids > V]), *range(V), V + 4]:
            if token == excluded:
                continue
            one = copy.deepcopy(before[i // 8])
            if token == V + 4:  # one of those that are not in the text
                token = one._unknown.ids("?", tokenizer.encode_with_ends("?"))[0]
            changed = np.append(ids[begin : i + 1], token)
            found = one.scores([log_p[begin : i + 1]], changed)
            sums += math.exp(-found.nats[-1]) * (new if token == V + 4 else 1)
            if token == 1:
                chance = math.exp(-found.unknown[-1])
        assert sums == pytest.approx(1, abs=1e-6)
        assert 0 < chance < 1


def test_another_unknown_text_changes_nothing_before_it():
    text, tokenizer, log_p = with_unknown(120)
    V, excluded, found = tokenizer.size, tokenizer.unknown, []
    place = text.index("X", 60)
    for one in (
        text,
        text[:place] + "Q" + text[place + 1 :],
        text[:place] + "a" + text[place + 1 :],
    ):
        texts, ids = extended(tokenizer, one, SMALL)
        found.append(CountCache(V, SMALL, excluded, texts).nats([log_p], ids)[:place])
    assert found[0].tolist() == found[1].tolist() == found[2].tolist()


@pytest.mark.parametrize("excluded", [None, 0])
@pytest.mark.parametrize("windows", [(), (5, 30)])
def test_the_nats_are_those_of_a_naive_loop(excluded, windows):
    ids, log_p = text(120, 6)
    settings = replace(SMALL, windows=windows, window_strength=9.0)
    found = CountCache(6, settings, excluded).nats([log_p], ids)
    assert found == pytest.approx(naive(ids, log_p, settings, excluded), abs=1e-9)
    assert found[ids[1:] == 6].tolist() == [0.0] * 2


@pytest.mark.parametrize(("vocabulary", "size"), [(6, 5), (6, 20), (530, 16), (530, 45)])
def test_where_the_parts_end_changes_nothing(vocabulary, size):
    ids, log_p = text(120, vocabulary)
    parts = [log_p[begin : begin + size] for begin in range(0, 120, size)]
    whole, cut = (CountCache(vocabulary, SMALL).nats(p, ids) for p in ([log_p], parts))
    assert cut.tolist() == whole.tolist()


def test_what_is_counted_unscored_is_what_a_naive_loop_has_read(monkeypatch):
    monkeypatch.setattr(count_cache, "COUNTED", 7)
    ids, log_p = text(80, 6)
    settings = replace(SMALL, block=40, windows=(9, 30), rate=0.0)  # the exponents stay
    cache = CountCache(6, settings)
    cache.count(ids[:41])
    found = cache.nats([log_p[40:]], ids[40:])
    assert found == pytest.approx(naive(ids, log_p, settings, None)[40:], abs=1e-9)


@pytest.mark.parametrize(("vocabulary", "length", "places"), [(9, 300, 200), (530, 200, 6)])
def test_at_random_places_all_tokens_sum_to_one(vocabulary, length, places):
    ids, log_p = text(length, vocabulary)
    settings = CacheSettings(orders=(1, 2, 3), block=16, windows=(9, 60))
    cache, before = CountCache(vocabulary, settings), []
    for begin in range(0, length, 16):
        before.append(copy.deepcopy(cache))
        cache.nats([log_p[begin : begin + 16]], ids[begin : begin + 17])
    for i in np.random.default_rng(1).choice(length, places, replace=False):
        begin, sums = i // 16 * 16, 0.0
        for token in range(vocabulary):
            changed = np.append(ids[begin : i + 1], token)
            one = copy.deepcopy(before[i // 16])
            sums += math.exp(-one.nats([log_p[begin : i + 1]], changed)[-1])
        assert sums == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("excluded", [None, 2])
def test_after_all_of_a_large_vocabulary_was_read_nothing_is_left_for_others(excluded):
    ids = np.concatenate([[530], np.random.default_rng(0).permutation(530), [1]])
    log_p = np.full((1, 530), -math.log(530 - (excluded is not None)))
    log_p[:, excluded if excluded is not None else []] = -math.inf
    cache = CountCache(530, CacheSettings(orders=(1,), windows=(600,)), excluded)
    cache._exponents[0][:] = [0.3, 0.2, 0.1]  # as learning can make them
    cache.count(ids)
    total = 0.0
    for token in range(530):
        if token != excluded:
            total += math.exp(-copy.deepcopy(cache).nats([log_p], np.array([1, token]))[0])
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("vocabulary", [9, 530])
def test_another_next_token_changes_nothing_before_it(vocabulary):
    ids, log_p = text(150, vocabulary)
    settings = CacheSettings(orders=(1, 2, 3), block=16, windows=(9, 60))
    nats = CountCache(vocabulary, settings).nats([log_p], ids)
    for i in (20, 70, 140):
        changed = ids.copy()
        changed[i] = (ids[i] + 1) % vocabulary
        found = CountCache(vocabulary, settings).nats([log_p], changed)
        assert found[: i - 1] == pytest.approx(nats[: i - 1], abs=0)
        assert found[i - 1] != nats[i - 1]


def test_a_context_that_returns_in_the_same_block_changes_nothing_before_it():
    """The word that followed it first gets an entry of its own, from there on only."""
    log_p = np.random.default_rng(0).standard_normal((9, 530))
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    ids = np.array([530, 7, 8, 9, 10, 11, 7, 12, 13, 14])  # 8 after 7, and 7 again
    other = np.where(np.arange(10) == 6, 15, ids)
    found = []
    for text_ids in (ids, other):
        cache = CountCache(530, CacheSettings(orders=(1,), own_weight=0.5))
        cache._exponents[0][:] = [0.3, 0.4]
        found.append(cache.nats([log_p], text_ids)[:5])
    assert found[0].tolist() == found[1].tolist()


@pytest.mark.parametrize("vocabulary", [9, 530])
def test_a_text_that_repeats_costs_less_the_second_time(vocabulary):
    rng = np.random.default_rng(0)
    once = rng.integers(vocabulary, size=100)
    ids = np.concatenate([[vocabulary], once, once])
    log_p = np.full((200, vocabulary), -math.log(vocabulary))
    nats = CountCache(vocabulary, CacheSettings.of(vocabulary)).nats([log_p], ids)
    assert nats[:100].mean() < 1.1 * math.log(vocabulary)
    assert nats[105:].mean() < 0.6 * math.log(vocabulary)


def test_what_was_read_lately_costs_less_in_a_new_order():
    """Words of two subjects, one subject after the other; of contexts nothing is found again."""
    rng = np.random.default_rng(0)
    parts = [rng.integers(low, low + 100, size=800) for low in (0, 100, 0, 100)]
    ids = np.concatenate([[530], *parts])
    log_p = np.full((3200, 530), -math.log(530))
    with_windows = CacheSettings(orders=(3,), windows=(50, 200))
    nats = CountCache(530, with_windows).nats([log_p], ids)
    without = CountCache(530, CacheSettings(orders=(3,))).nats([log_p], ids)
    assert without[2600:].mean() == pytest.approx(math.log(530), rel=0.05)
    assert nats[2600:].mean() < (math.log(100) + math.log(530)) / 2
