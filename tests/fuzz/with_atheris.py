"""Mutated bytes, led by the branches they reach.

    python tests/fuzz/with_atheris.py TARGET SECONDS

Needs ``pip install atheris``. The bytes pass as the content of a file whose checksum is right. An
exception that is not for the user ends it with a traceback and the bytes that cause it.
"""

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lmcli"]):
    from lmcli.data.corpus import CorpusSpec, load_corpus
    from lmcli.data.text import Limits, TextOptions
    from lmcli.errors import LmcliError
    from lmcli.grammars.base import grammar_of, read_about, read_items
    from lmcli.registry import GRAMMARS, TOKENIZERS
    from lmcli.run_record import Record, check_checkpoint, check_log_entry, check_trained
    from lmcli.settings import check_known, split_pairs, update
    from lmcli.tensor_files import read_arrays

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))
OLD = Path(__file__).parents[1] / "data" / "made_by_0.1.0"
MEMBERS = [TOKENIZERS.load(name) for name in ("char", "word", "byte")]
KINDS = [MEMBERS[0].Settings, *(GRAMMARS.load(n).Settings for n in ("france", "addition"))]


def record(data):
    """run.json."""
    with suppress(ValueError):  # which `Run.open` tells, as it does all that follows
        Record.from_json(json.loads(data)).identity({})


def results(data):
    """results/train.json, a line of the log, the values of a checkpoint."""
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        for check in (check_trained, check_log_entry, check_checkpoint):
            with suppress(ValueError):
                check(value)


def tokenizer(data):
    """tokenizer.json, and a text with it."""
    for member in MEMBERS:
        try:
            made = member.from_json(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # which `Run.open` tells
        ids = made.encode("a cab faded.\n\nA \ud800 bee!")
        made.decode(ids)
        [made.symbol(token) for token in range(min(made.size, 8))]


def about(data):
    """F.about.json, and the grammar it names."""
    path = PLACE / "f.about.json"
    path.write_bytes(data)
    grammar_of(read_about(path))


def items(data):
    """F.items.jsonl."""
    path = PLACE / "f.items.jsonl"
    path.write_bytes(data)
    read_items(path)


def pairs(data):
    """Settings as they are typed."""
    text = data.decode("utf-8", "surrogateescape")
    found = split_pairs(text.split("\n"))
    for kind in KINDS:
        update(kind(), found)
    check_known(found, *KINDS)


def tensors(data):
    """weights.safetensors."""
    path = PLACE / "weights.safetensors"
    path.write_bytes(data)
    read_arrays(path)


def text(data):
    """A text in several encodings, in windows of 64 bytes."""
    path = PLACE / "my.txt"
    path.write_bytes(data)
    encoding = ("utf-8", "utf-16", "utf-7", "shift_jis", "utf-8")[len(data) % 5]
    unit = ("file", "line", "paragraph")[len(data) % 3]
    options = TextOptions(encoding, "strict", ("keep", "lf")[len(data) % 2], unit)
    load_corpus(CorpusSpec((str(path),), options), limits=Limits(window=64, memory=len(data) % 9))


SEEDS = {
    record: [path.read_bytes() for path in OLD.glob("*/run.json")],
    results: [path.read_bytes() for path in OLD.glob("*/results/train.json")],
    tokenizer: [(OLD / name / "tokenizer.json").read_bytes() for name in ("lstm", "word")],
    about: [b'{"format": 1, "recipe": {"grammar": "addition"}, "facts": {"pairs": [["a", "b"]]}}'],
    items: [b'{"text": "a ", "answer": "b", "candidates": ["b"], "gap": 1, "kind": "k"}'],
    pairs: [b"min_count=2\nsize=small\nlevel=1\nseed=7"],
    tensors: [(OLD / "gru" / "weights.safetensors").read_bytes()[:3000]],
    text: [b"one line of words .\n" * 40, "\ufeffé\n\n\u2028".encode()],
}


def main():
    """Run one target."""
    target = next(t for t in SEEDS if t.__name__ == sys.argv[1])
    corpus = PLACE / "corpus"
    corpus.mkdir()
    for number, data in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(data)

    def once(data):
        with suppress(LmcliError):
            target(data)

    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    limits = ["-timeout=5", "-rss_limit_mb=1024", "-max_len=70000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *limits, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
