"""Nats per character beside reference points, on one machine in one run: ``make bench-quality``.

Each text, or its first N characters, is cut once: 90 % to train and to validate with, the last 10 %
to test. Static rows learn nothing from the test part; adaptive rows learn from each character
after it has been scored, as compressors do. A compressor's figure is 8 (C(train + test) -
C(train)) ln 2 over the characters of the test part, with C the size in bytes. Some rows need
programs that may not be installed, and are left out then: pyppmd from PyPI, zpaq.
"""

from __future__ import annotations

import argparse
import bz2
import json
import lzma
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import machine
from torch import nn
from torch.nn import functional as F

SIZES = (20_000, 200_000, 0)
"""characters to train on; 0 = the whole text"""
MOST_TEST = 100_000
"""characters of the test part"""


@dataclass(frozen=True)
class Row:
    """One figure."""

    text: str
    characters: int
    what: str
    nats: float
    seconds: float
    adaptive: bool


@dataclass(frozen=True)
class Task:
    """A text, cut."""

    name: str
    train: str
    test: str

    @classmethod
    def of(cls, path: Path, characters: int) -> Task:
        """The first characters of a text, and what follows them."""
        text = path.read_text(encoding="utf-8")
        size = characters or len(text) * 9 // 10
        return cls(path.name, text[:size], text[size : size + MOST_TEST])

    def row(self, what: str, nats: float, began: float, adaptive: bool) -> Row:
        """A figure, in the seconds since `began`."""
        seconds = time.perf_counter() - began
        return Row(self.name, len(self.train), what, nats, seconds, adaptive)


# ------------------------------------------------------------------ compressors


def compressors() -> dict[str, Callable[[bytes], int]]:
    """Sizes in bytes, by the name of the program."""
    found: dict[str, Callable[[bytes], int]] = {
        "xz -9e": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "bzip2 -9": lambda data: len(bz2.compress(data)),
    }
    try:
        import pyppmd
    except ImportError:
        pass
    else:

        def ppmd(data: bytes) -> int:
            encoder = pyppmd.Ppmd8Encoder(6, 1 << 28, 0)
            return len(encoder.encode(data)) + len(encoder.flush())

        found["PPMd, order 6"] = ppmd
    if shutil.which("zpaq"):
        found["zpaq -m5"] = zpaq
    return found


def zpaq(data: bytes) -> int:
    """The size of zpaq's archive of one file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "text").write_bytes(data)
        command = ["zpaq", "a", "out.zpaq", "text", "-m5"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return (Path(folder) / "out.zpaq").stat().st_size


def compressed(task: Task) -> Iterator[Row]:
    """A row for each compressor that is there."""
    first, both = task.train.encode(), (task.train + task.test).encode()
    for name, size in compressors().items():
        began = time.perf_counter()
        bits = 8 * (size(both) - size(first))
        yield task.row(name, bits * math.log(2) / len(task.test), began, True)


# ------------------------------------------------------------------ a plain network


class PlainLSTM(nn.Module):
    """Two layers of 200 with tied weights and dropout, as tutorials have it."""

    def __init__(self, vocabulary: int, width: int = 200) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell = nn.LSTM(width, width, 2, batch_first=True, dropout=0.2)
        self.output = nn.Linear(width, vocabulary)
        self.output.weight = self.embed.weight
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def forward(self, ids, state=None):
        hidden, state = self.cell(F.dropout(self.embed(ids), 0.2, self.training), state)
        return self.output(F.dropout(hidden, 0.2, self.training)), state


def plain_network(task: Task, seconds: float) -> Row:
    """Trained in a plain loop, 20 x 35, by Adam at a constant rate."""
    began = time.perf_counter()
    number = {character: i for i, character in enumerate(sorted(set(task.train)))}
    ids = torch.tensor([number[c] for c in task.train])
    test = torch.tensor([number[c] for c in task.test if c in number])
    torch.manual_seed(0)
    model, batch, steps = PlainLSTM(len(number)), 20, 35
    rows = ids[: len(ids) // batch * batch].view(batch, -1)
    optimizer, state, place = torch.optim.Adam(model.parameters(), 2e-3), None, 0
    while time.perf_counter() - began < seconds:
        if place + steps + 1 > rows.shape[1]:
            place, state = 0, None
        logits, state = model(rows[:, place : place + steps], state)
        state = tuple(part.detach() for part in state)
        targets = rows[:, place + 1 : place + steps + 1]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        place += steps
    model.eval()
    with torch.no_grad():
        logits, _ = model(torch.cat([ids[-1000:], test])[None, :-1])
        nats = F.cross_entropy(logits[0, -len(test) :], test)
    return task.row("plain 2 x 200 LSTM, tied", float(nats), began, False)


# ------------------------------------------------------------------ lmcli


def ours(task: Task, archs: list[str], minutes: float, folder: Path) -> Iterator[Row]:
    """Static and with a cache."""
    for name in ("train", "test"):
        (folder / f"{name}.txt").write_text(getattr(task, name), encoding="utf-8")
    for arch in archs:
        run, began = folder / arch, time.perf_counter()
        given = ["--arch", arch, "--test", folder / "test.txt", "-o", run, "--force"]
        values = lmcli("train", folder / "train.txt", *given, "--minutes", minutes)
        yield task.row(f"lmcli {arch}", nats(values["test"]), began, False)
        for added in (["--cache"], ["--cache", "--adapt"]):
            if arch == "ngram" and "--adapt" in added:
                continue
            values = lmcli("eval", run, *added)
            what = " ".join([f"lmcli {arch}", *added])
            yield task.row(what, nats(values), began, True)


def nats(score: dict) -> float:
    """Of a character, with how unknown ones are spelt, which a compressor writes too."""
    return score["bits_per_char"] * math.log(2)


def lmcli(*words: object) -> dict:
    """The JSON of a command."""
    command = [sys.executable, "-m", "lmcli", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


# ------------------------------------------------------------------ the table


def main() -> None:
    """All rows of all texts, printed as they come, and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, default=[Path("data/france.txt")])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--minutes", type=float, default=0.3, help="of each training")
    parser.add_argument("--archs", default="ngram,lstm,hybrid")
    parser.add_argument("--output", type=Path, default=Path("scratch/quality.json"))
    options = parser.parse_args()
    rows: list[Row] = []
    for path in options.texts:
        for size in options.sizes:
            task = Task.of(path, size)
            sizes = f"{len(task.train):,} characters to learn from, {len(task.test):,} to test"
            sys.stdout.write(f"\n{task.name}: {sizes}\n")
            with tempfile.TemporaryDirectory() as name:
                for row in all_rows(task, options.archs.split(","), options.minutes, Path(name)):
                    rows.append(row)
                    kind = "adaptive" if row.adaptive else "static"
                    figures = f"{row.nats:.3f} nats/char  {kind:<8} {row.seconds:6.1f} s"
                    sys.stdout.write(f"  {row.what:<32} {figures}\n")
                    sys.stdout.flush()
    report = {
        "machine": machine(),
        "minutes": options.minutes,
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))


def all_rows(task: Task, archs: list[str], minutes: float, folder: Path) -> Iterator[Row]:
    """Of one text."""
    yield from compressed(task)
    yield plain_network(task, 60 * minutes)
    yield from ours(task, archs, minutes, folder)


if __name__ == "__main__":
    main()
