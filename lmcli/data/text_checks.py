"""What about a text makes its scores mislead, though it can be read: said before it is trained on.

**In:** a corpus in parts, the name of a tokenizer.
**Out:** sentences; none where nothing is odd.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmcli.data.corpus import Corpus
from lmcli.data.split import Split
from lmcli.tokenizers.base import chunks_of

STRETCH, STRETCHES = 50, 40
"""characters of a piece of held-out text, and how many are looked up"""
SEARCHED = 1 << 24
"""characters of the training part that are searched"""
MUCH = 0.5
SAMPLE = 20_000
"""characters that are looked at to see what script it is"""
WITHOUT_BLANKS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF)),
    *((0x3400, 0x9FFF), (0x20000, 0x3FFFF)),
)
"""Thai and Lao, Burmese, Khmer, kana, Han: scripts without blanks between words"""


def text_remarks(corpus: Corpus, tokenizer: str) -> list[str]:
    """What is worth saying of a text that is to be trained on."""
    remarks = []
    share = repeated_share(corpus.train, corpus.test or corpus.valid)
    if share >= MUCH:
        remarks.append(
            f"{share:.0%} of the held-out text stands in the training part word for word: "
            "its perplexity will say how well that is remembered, not how well a new text is read"
        )
    if tokenizer == "word" and unspaced_share(corpus.train) >= MUCH:
        remarks.append(
            "this script has no blanks between words, so that a whole clause becomes one word: "
            "--tokenizer char or bpe fits better"
        )
    return remarks


def repeated_share(train: Split, held_out: Split) -> float:
    """The share of some stretches of held-out text that stand in the training part as they are."""
    stretches = _stretches(held_out)
    left = set(stretches)
    for text in _read(train, SEARCHED):
        left = {stretch for stretch in left if stretch not in text}
    return sum(stretch not in left for stretch in stretches) / max(1, len(stretches))


def _stretches(part: Split) -> list[str]:
    """Evenly spread over a part, each within a document."""
    part = part.sample(SAMPLE * 10) if part.chars > SAMPLE * 10 else part
    texts = [text for text in part.documents if len(text) >= STRETCH]
    step = max(1, sum(map(len, texts)) // STRETCHES)
    found = [text[i : i + STRETCH] for text in texts for i in range(0, len(text), step)]
    return [stretch for stretch in found if len(stretch) == STRETCH]


def unspaced_share(part: Split) -> float:
    """The share of letters that are of a script without blanks between words."""
    letters = [ord(c) for text in _read(part, SAMPLE) for c in text if c.isalpha()]
    unspaced = sum(any(low <= code <= high for low, high in WITHOUT_BLANKS) for code in letters)
    return unspaced / max(1, len(letters))


def _read(part: Split, most: int) -> Iterator[str]:
    """The text of a part in long pieces, about `most` characters of it."""
    for chunk in chunks_of(part.documents):
        yield chunk.text[:most]
        most -= len(chunk.text)
        if most <= 0:
            return
