"""Which spans of a text stand in the training text: exactly those that a search finds."""

import random

import numpy as np

from lmcli.generation.novelty import LEAST, TrainingTokens
from lmcli.registry import TOKENIZERS

WORDS = ["one", "two", "three", "four", "five", "six"]


def training(name, documents):
    cls = TOKENIZERS.load(name)
    tokenizer = cls.train(documents, cls.Settings())
    dtype = "<u2" if name == "word" else "u1"
    parts = [i for text in documents for i in (tokenizer.start, *tokenizer.encode(text).tolist())]
    return TrainingTokens(np.array(parts, dtype), tokenizer)


def test_the_spans_are_those_of_a_naive_search():
    draw = random.Random(0)
    document = " ".join(draw.choices(WORDS, k=60))
    text = " ".join(draw.choices(WORDS, k=40)) + document[50:90] + " six six six six six six"
    found = training("char", [document]).novelty(text)
    marked = [False] * len(text)
    longest = 0
    for i in range(len(text)):
        for j in range(i + LEAST, len(text) + 1):
            if text[i:j] in document:
                marked[i:j] = [True] * (j - i)
                longest = max(longest, j - i)
    expected, covered = set(), set()
    for begin, end in found.spans:
        covered |= set(range(begin, end))
    expected = {i for i, mark in enumerate(marked) if mark}
    assert covered == expected
    assert found.share == len(expected) / len(text)
    assert found.longest == longest >= 40
    assert all(a[1] < b[0] for a, b in zip(found.spans, found.spans[1:], strict=False))


def test_words_are_matched_as_tokens_and_not_across_documents():
    documents = ["a b c d e f g h", "i j k l m n o p"]
    train = training("word", documents)
    assert train.novelty("a b c d e f g h").share == 1
    assert train.novelty("e f g h i j k l").share == 0
    assert train.novelty("a b c d e f g").share == 0
    assert train.novelty("").share == 0


def test_ids_of_two_bytes_are_found_at_whole_ids_only():
    train = training("word", ["a b c d e f g h"])
    shifted = np.frombuffer(train._bytes[1:-1], train._dtype)
    assert shifted not in train
