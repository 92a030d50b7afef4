"""Byte-pair encoding: frequent runs of bytes become one token, and nothing is ever unknown.

**In:** the training part of a text.
**Out:** ids of byte runs, by the Hugging Face `tokenizers` library: 256 bytes, then a token for
each merge. A lone surrogate, which UTF-8 cannot write, is read as "?".

Paper: Sennrich, Haddow, Birch 2016, https://arxiv.org/abs/1508.07909
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from lmcli.settings import setting
from lmcli.tokenizers.base import SAFE_SPLIT, Chunk, Encoded, Ids, Tokenizer, chunks_of
from lmcli.tokenizers.byte import Utf8Decoder, character_ends, printable, utf8

_CHUNK = 1 << 14  # characters handed to the library as one text
_BATCH = 64  # chunks encoded at a time: the library's own records are far larger than the ids


@dataclass(frozen=True)
class BpeSettings:
    """How many tokens to learn."""

    vocabulary: int = setting(2048, "number of tokens, the 256 bytes among them", least=256)


class BpeTokenizer(Tokenizer):
    """A token is a run of bytes."""

    name = "bpe"
    spells = True
    Settings = BpeSettings

    def __init__(self, vocabulary: list[str], merges: list[tuple[str, str]]) -> None:
        self._vocabulary = vocabulary
        self._merges = merges
        ids = {token: number for number, token in enumerate(vocabulary)}
        self._library = _library(tokenizers.models.BPE(vocab=ids, merges=merges))
        byte_of = _byte_of_letter()
        self._token_bytes = [bytes(byte_of[letter] for letter in token) for token in vocabulary]
        self._lengths = np.array([len(run) for run in self._token_bytes], np.int64)

    @classmethod
    def train(cls, documents: Iterable[str], settings: BpeSettings) -> BpeTokenizer:
        library = _library(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=settings.vocabulary,
            show_progress=False,
            initial_alphabet=sorted(_byte_of_letter()),
        )
        texts = (text for chunk in chunks_of(documents) for text in chunk.texts())
        parts = (part for text in texts for part in _parts(_writable(text)))
        library.train_from_iterator(parts, trainer)
        vocabulary = library.get_vocab()
        merges = json.loads(library.to_str())["model"]["merges"]
        return cls(sorted(vocabulary, key=vocabulary.__getitem__), [(a, b) for a, b in merges])

    @property
    def size(self) -> int:
        return len(self._vocabulary)

    @property
    def unknown(self) -> None:
        return None

    def encode(self, text: str) -> Ids:
        ids = [np.empty(0, np.int32)]
        parts = _parts(_writable(text))
        while batch := list(itertools.islice(parts, _BATCH)):
            ids += [np.array(e.ids, np.int32) for e in self._library.encode_batch_fast(batch)]
        return np.concatenate(ids)

    def encode_all(self, chunks: Iterable[Chunk]) -> Iterator[Ids]:
        for parts, opens in _batches(chunks):
            encoded = self._library.encode_batch_fast(parts)
            ends = np.cumsum([0, *map(len, encoded)])
            flat = itertools.chain.from_iterable(e.ids for e in encoded)
            ids = np.fromiter(flat, np.int32, int(ends[-1]))
            yield np.insert(ids, ends[:-1][opens], self.start)

    def encode_with_ends(self, text: str) -> Encoded:
        ids = self.encode(text)
        last_bytes = np.cumsum(self._lengths[ids]) - 1
        return Encoded(ids, character_ends(utf8(text))[last_bytes])

    def decoder(self) -> Utf8Decoder:
        return Utf8Decoder(self._token_bytes)

    def symbol(self, token: int) -> str:
        return printable(self._token_bytes[token])

    def to_json(self) -> dict[str, Any]:
        merges = [list(pair) for pair in self._merges]
        return {"name": self.name, "vocabulary": self._vocabulary, "merges": merges}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BpeTokenizer:
        vocabulary, merges = data["vocabulary"], data["merges"]
        try:
            tokens = set(vocabulary)
            if len(tokens) < len(vocabulary) or not tokens.issuperset(_byte_of_letter()):
                raise ValueError("a token comes twice, or one of the 256 bytes is missing")
            return cls(list(vocabulary), [(left, right) for left, right in merges])
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"not a byte-pair vocabulary: {error}") from None


def _library(model: tokenizers.models.BPE) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def _byte_of_letter() -> dict[str, int]:
    """The letter by which byte-level BPE writes a byte: itself if printable, else from U+0100 on.

    >>> letters = _byte_of_letter()
    >>> letters["a"], letters["\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"]
    (97, 32)
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    letters = {chr(byte): byte for byte in visible}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _writable(text: str) -> str:
    return text if text.isascii() else utf8(text).decode()


def _parts(text: str) -> Iterator[str]:
    """The text in parts whose ids, laid end to end, are those of the whole."""
    begin = 0
    while begin < len(text):
        split = SAFE_SPLIT.search(text, begin + _CHUNK)
        end = split.start() if split else len(text)
        yield text[begin:end]
        begin = end


def _batches(chunks: Iterable[Chunk]) -> Iterator[tuple[list[str], list[bool]]]:
    """Parts for the library, some at a time, and which of them begin a document."""
    parts: list[str] = []
    opens: list[bool] = []
    held = 0
    for chunk in chunks:
        for number, text in enumerate(chunk.texts()):
            for place, part in enumerate(_parts(_writable(text)) if text else [""]):
                parts.append(part)
                opens.append(number > 0 and place == 0)
                held += len(part)
                if held >= _BATCH * _CHUNK:
                    yield parts, opens
                    parts, opens, held = [], [], 0
    if parts:
        yield parts, opens


Member = BpeTokenizer
