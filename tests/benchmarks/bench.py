"""Timings, side by side in one process where they are compared: ``make bench``.

Prints a table and writes JSON. Every figure is the median of several runs; ratios are taken
within one run of this script, because machines differ and are noisy. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import nn
from torch.nn import functional as F

from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.grammars.france.grammar import France, FranceSettings
from lmcli.models.base import LanguageModel
from lmcli.registry import MODELS
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings

BATCH, TRUNCATION, EMBEDDING, HIDDEN, VOCABULARY = 32, 128, 64, 256, 65
Shape = tuple[int, int]
SHAPES: tuple[Shape, ...] = ((16, 64), (BATCH, TRUNCATION))
"""streams and steps of an update"""
Row = dict[str, object]


def median_seconds(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each, measured in turn so that a slow moment hits all of them."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in times.items()}


class PlainLoop:
    """What one writes in an afternoon: nn.LSTM, default settings, float32, Adam."""

    def __init__(self, arch: str, ids: np.ndarray, shape: Shape) -> None:
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, EMBEDDING)
        self.cell = getattr(nn, arch.upper())(EMBEDDING, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, VOCABULARY)
        self.parameters = [p for m in (self.embed, self.cell, self.output) for p in m.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=2e-3)
        rows = np.resize(ids, (shape[0], shape[1] + 1)) % VOCABULARY
        self.ids = torch.from_numpy(rows.astype(np.int64))

    def step(self) -> None:
        hidden, _ = self.cell(self.embed(self.ids[:, :-1]))
        loss = F.cross_entropy(self.output(hidden).flatten(0, 1), self.ids[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        loss.item()


class Elsewhere:
    """The plain loop in a process of its own: what our trainer tells this one is not its gain."""

    def __init__(self, arch: str, shape: Shape) -> None:
        code = [sys.executable, __file__, "--plain", arch, *map(str, shape)]
        self.process = subprocess.Popen(
            code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self) -> None:
        """One step there; the message there and back takes a thousandth of it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve_plain_loop(arch: str, shape: Shape) -> None:
    """Take a step for every line that comes in."""
    loop = PlainLoop(arch, random_ids(), shape)
    for _ in sys.stdin:
        loop.step()
        sys.stdout.write("done\n")
        sys.stdout.flush()


def random_ids(count: int = 1_000_000) -> np.ndarray:
    """A text without any structure."""
    return np.random.default_rng(0).integers(1, VOCABULARY, count).astype(np.uint16)


def trainer(arch: str, ids: np.ndarray, shape: Shape = (BATCH, TRUNCATION)) -> Trainer:
    """Our trainer at the same sizes, never validating within the measurement."""
    cls = MODELS.load(arch)
    torch.manual_seed(0)
    model: LanguageModel = cls(VOCABULARY, cls.Settings(hidden=HIDDEN, embedding=EMBEDDING))
    batch, truncation = shape
    settings = TrainingSettings(batch=batch, truncation=truncation, learning_rate=2e-3)
    return Trainer(model, ids, ids[:100], settings, Budget(steps=1_000_000))


def training_speed(repeats: int) -> list[Row]:
    """Tokens a second of whole updates, against the plain loop; the recipe takes 16 x 64."""
    rows: list[Row] = []
    for shape, arch in itertools.product(SHAPES, ("lstm", "gru", "rnn")):
        ours, plain = trainer(arch, random_ids(), shape), Elsewhere(arch, shape)
        product = matrix_product()
        runs = {
            "ours": lambda o=ours: several(lambda: o._step(1e-3)),
            "plain": lambda p=plain: several(p.step),
            "product": lambda p=product: several(p),
        }
        times = {name: s / STEPS for name, s in median_seconds(runs, repeats).items()}
        plain.close()
        tokens = math.prod(shape)
        useful = 3 * ours.model.flops_per_token() * tokens  # backward costs twice forward
        speed = useful / times["ours"] / (PRODUCT_FLOPS / times["product"])
        rows.append(
            {
                "what": f"train {arch} {HIDDEN}, {shape[0]} x {shape[1]}, tokens/s",
                "lmcli": tokens / times["ours"],
                "plain torch loop": tokens / times["plain"],
                "ratio": times["plain"] / times["ours"],
                "of the bf16 product's speed": speed,
            }
        )
    return rows


def several(step: Callable[[], object]) -> None:
    """A few steps, so that the caches are its own."""
    for _ in range(STEPS):
        step()


STEPS = 5
PRODUCT_FLOPS = 2 * 2048**3


def matrix_product() -> Callable[[], object]:
    """A large product in bfloat16: what this machine can do at best."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    return lambda: torch.mm(a, b)


def loop_overhead(repeats: int) -> list[Row]:
    """The share of a training's time that is not forward, backward or the optimiser's step."""
    ours = trainer("lstm", random_ids())
    progress, core = ours.run(), CoreOnly(ours)
    runs = {"whole": lambda: next(progress), "bare": core.step}
    times = median_seconds(runs, 40 * repeats)
    share = 1 - times["bare"] / times["whole"]
    return [{"what": "training loop beside forward, backward, optimiser", "lmcli": share}]


class CoreOnly:
    """The same model and optimiser on one batch that lies ready: nothing but the three."""

    def __init__(self, ours: Trainer) -> None:
        self.trainer = ours
        batch = ours.streams[0]
        self.inputs, self.targets = batch.inputs, batch.targets
        self.state = ours.model.initial_state(BATCH)

    def step(self) -> None:
        ours = self.trainer
        with ours._precision():
            loss, _ = ours.model.loss(self.inputs, self.targets, self.state)
        for parameter in ours.parameters:
            parameter.grad = None
        loss.backward()
        ours.optimizer.step(1e-3)


def side_by_side(repeats: int) -> list[Row]:
    """Five members for equal numbers of updates, together and one after the other."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = France(FranceSettings(size="small")).documents()
        (folder / "my.txt").write_text("".join(next(documents) + "\n" for _ in range(4000)))
        for width in (128, 256):
            words = ["compare", "my.txt", "--arch", "lstm,gru,rnn,window,lstm:embedding=65"]
            words += ["--steps", "300", "--set", f"hidden={width}", "--set", "learning_rate=0.002"]
            words += ["--quiet", "--force", "--set", "validations=1", "--documents", "file"]
            times: dict[str, list[float]] = {"1": [], "2": []}
            for _ in range(repeats):
                for workers, found in times.items():
                    found.append(command([*words, "--workers", workers, "-o", "out"], folder))
            alone, together = (statistics.median(found) for found in times.values())
            rows.append(
                {
                    "what": f"compare, five of width {width}, s",
                    "lmcli": together,
                    "one after the other": alone,
                    "ratio": together / alone,
                }
            )
    return rows


def scoring_speed(repeats: int) -> list[Row]:
    """Tokens a second of exact scoring of one long document, against a training step."""
    ids = random_ids(100_000)
    ours = trainer("lstm", ids)
    times = median_seconds(
        {"score": lambda: stream_nats(ours.model, ids), "train": lambda: ours._step(1e-3)}, repeats
    )
    speed = {"score": len(ids) / times["score"], "train": BATCH * TRUNCATION / times["train"]}
    return [
        {
            "what": f"score lstm {HIDDEN}, one document, tokens/s",
            "lmcli": speed["score"],
            "ratio": speed["score"] / speed["train"],
            "ratio is": "to training",
        }
    ]


def sampling_speed(repeats: int) -> list[Row]:
    """Characters a second of every NumPy model, one text and several, beside the torch model."""
    script = Path(__file__).with_name("sampling.py")
    done = subprocess.run(
        [sys.executable, str(script), "--repeats", str(repeats)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
    )
    rows: list[Row] = json.loads(done.stdout)
    return rows


def many_texts(repeats: int) -> list[Row]:
    """Characters a second of 64 texts and of one, whole processes."""
    rows: list[Row] = []
    lengths = {"1": 40_000, "64": 3_000}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        letters = "".join(map(chr, range(33, 32 + VOCABULARY)))
        (folder / "my.txt").write_text(f"{letters}\n" * 100)
        for width in (128, 256, 512):
            sizes = ["--set", f"hidden={width}", "--set", f"embedding={EMBEDDING}"]
            command(["train", "my.txt", "-o", "run", "--steps", "1", "--force", *sizes], folder)
            speeds: dict[str, list[float]] = {count: [] for count in lengths}
            for _ in range(repeats):
                for count, length in lengths.items():
                    words = ["sample", "run", "--count", count, "--length", str(length)]
                    speeds[count].append(int(count) * length / command(words, folder))
            one, many = (statistics.median(found) for found in speeds.values())
            rows.append(
                {
                    "what": f"lmcli sample, lstm {width}, 64 texts, characters/s",
                    "lmcli": many,
                    "one text": one,
                    "ratio": many / one,
                }
            )
    return rows


def command(arguments: list[str], folder: Path) -> float:
    """Wall time of a whole lmcli process."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lmcli", *arguments], cwd=folder, check=True, capture_output=True
    )
    return time.perf_counter() - began


def first_character(folder: Path) -> float:
    """From the command to the first character of a sample."""
    began = time.perf_counter()
    arguments = [sys.executable, "-m", "lmcli", "sample", "run", "--length", "0"]
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.close()
        process.kill()
    return seconds


def command_times(repeats: int) -> list[Row]:
    """Whole commands."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = France(FranceSettings(size="small")).documents()
        text = "".join(next(documents) + "\n" for _ in range(1000))
        (folder / "my.txt").write_text(text)
        train = ["train", "my.txt", "-o", "run", "--steps", "20", "--force"]
        rows: list[Row] = [{"what": "lmcli train, 20 steps, s", "lmcli": command(train, folder)}]
        for arguments in (["--help"], ["sample", "run"], ["eval", "run", "my.txt"]):
            seconds = statistics.median(command(arguments, folder) for _ in range(repeats))
            rows.append({"what": f"lmcli {' '.join(arguments)}, s", "lmcli": seconds})
        first = statistics.median(first_character(folder) for _ in range(repeats))
        rows.append({"what": "lmcli sample, first character, s", "lmcli": first})
    return rows


def main() -> None:
    """Run all, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("scratch/bench.json"))
    parser.add_argument("--plain", nargs=3, help="be the plain loop's process")
    options = parser.parse_args()
    if options.plain:
        arch, batch, truncation = options.plain
        serve_plain_loop(arch, (int(batch), int(truncation)))
        return
    about = machine()
    flags = " ".join(about["flags"])
    sys.stdout.write(f"{about['processor']} ({flags}), {about['threads']} threads\n")
    rows = command_times(options.repeats)
    rows += sampling_speed(options.repeats) + many_texts(options.repeats)
    rows += training_speed(options.repeats) + loop_overhead(options.repeats)
    rows += scoring_speed(options.repeats) + side_by_side(options.repeats)
    for row in rows:
        shown = [f"{k} {v:,.3g}" for k, v in row.items() if isinstance(v, float)]
        sys.stdout.write(f"{row['what']:<48} {'   '.join(shown)} {row.get('ratio is', '')}\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
