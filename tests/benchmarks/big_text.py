"""A text larger than one likes to hold in memory, read, tokenized, trained on: ``make bench-big``.

Prints, for each tokenizer, how fast a text is prepared and how much memory `lmcli train` took at
its peak, and writes JSON. The text is made of shuffled lines of data/france.txt in a temporary
folder ($TMPDIR), and goes with it, as does the cache of ids. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lmcli.data.corpus import CorpusSpec, load_corpus
from lmcli.data.text import TextOptions
from lmcli.data.token_cache import tokenize_corpus
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import Stage

LINES = Path(__file__).parents[2] / "data" / "france.txt"
MB = 1e6


def make_text(path: Path, size: int) -> None:
    """Lines in another order each time they come."""
    lines, rng = LINES.read_text(encoding="utf-8").splitlines(keepends=True), random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            rng.shuffle(lines)
            file.write("".join(lines))


class Clock:
    """How long each stage takes; it is called with the events of progress."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._began = time.perf_counter()

    def __call__(self, event: Stage) -> None:
        """Time goes to the stage before when another begins."""
        if event.done == 0:
            self.stop()
            self._stage = event.name

    def stop(self) -> None:
        """All is over."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._began
        self._began = now


def prepare(path: str, tokenizer: str, documents: str, cache: Path) -> dict[str, Any]:
    """MB/s of the text in each stage; `again` is with ids from the cache."""
    size = Path(path).stat().st_size / MB
    settings = TOKENIZERS.load(tokenizer).Settings()
    options = TextOptions(documents=documents)
    speeds = {}
    for name in ("first", "again"):
        began, clock = time.perf_counter(), Clock()
        corpus = load_corpus(CorpusSpec((path,), options), clock)
        encoded = tokenize_corpus(corpus, tokenizer, settings, cache, clock)
        clock.stop()
        speeds[name] = size / (time.perf_counter() - began)
        if name == "first":
            speeds |= {stage: size / seconds for stage, seconds in clock.seconds.items()}
    return {"megabytes_per_second": speeds, "tokens": len(encoded.train)}


def limits_of_the_machine(path: Path) -> dict[str, float]:
    """MB/s of reading the file alone, and of its sha256 alone."""
    found = {}
    for name, use in (("read", len), ("sha256", hashlib.sha256().update)):
        began = time.perf_counter()
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                use(data)
        found[name] = path.stat().st_size / MB / (time.perf_counter() - began)
    return found


def in_a_process(*command: str, cache: Path) -> tuple[dict[str, Any], float]:
    """The JSON that a command prints, and its peak memory in MB."""
    environment = os.environ | {"LMCLI_CACHE": str(cache)}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        unit = 1 if platform.system() == "Darwin" else 1024
        return json.loads(out.read()), usage.ru_maxrss * unit / MB


def main() -> None:
    """Make the text, then one row for each tokenizer and kind of document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--tokenizers", default="byte,char,word")
    parser.add_argument("--documents", default="file,line")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=Path("big_text.json"))
    parser.add_argument("--prepare", nargs=4, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.prepare:
        path, tokenizer, documents, cache = arguments.prepare
        print(json.dumps(prepare(path, tokenizer, documents, Path(cache))))  # noqa: T201
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "big.txt"
        make_text(text, int(arguments.megabytes * MB))
        machine = limits_of_the_machine(text)
        print("MB/s:", {k: round(v) for k, v in machine.items()})  # noqa: T201
        for documents in arguments.documents.split(","):
            for tokenizer in arguments.tokenizers.split(","):
                row = measure(text, tokenizer, documents, arguments.minutes)
                rows.append(row)
                print(row, flush=True)  # noqa: T201
    result = {"megabytes": arguments.megabytes, "machine": machine, "rows": rows}
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


def measure(text: Path, tokenizer: str, documents: str, minutes: float) -> dict[str, Any]:
    """Prepare in one process, then train in another, from an empty cache."""
    with tempfile.TemporaryDirectory(dir=text.parent) as cache:
        job = [str(text), tokenizer, documents, cache]
        speeds, peak = in_a_process(__file__, "--prepare", *job, cache=Path(cache))
    with tempfile.TemporaryDirectory(dir=text.parent) as cache:
        train = ["-m", "lmcli", "train", str(text), "--tokenizer", tokenizer, "--documents"]
        train += [documents, "--minutes", str(minutes), "--json", "-o", f"{cache}/run"]
        began = time.perf_counter()
        trained, train_peak = in_a_process(*train, cache=Path(cache))
        seconds = time.perf_counter() - began
    return {
        "tokenizer": tokenizer,
        "documents": documents,
        **{k: v for k, v in speeds.items() if k != "megabytes_per_second"},
        "megabytes_per_second": {k: round(v) for k, v in speeds["megabytes_per_second"].items()},
        "prepare_peak_megabytes": round(peak),
        "train_peak_megabytes": round(train_peak),
        "train_seconds": round(seconds, 1),
        "tokens_seen": trained["tokens_seen"],
        "valid": trained["valid"],
    }


if __name__ == "__main__":
    main()
