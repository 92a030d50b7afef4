"""How much faster two workers of one thread are than one process with two threads.

``python tests/benchmarks/workers.py [--widths 128,256,512] [--repeats 5] [--json FILE]``

Both train the same LSTM on the same text by the command line, in turn, so that a slow moment hits
both; the figure is tokens a second of training (without start-up), the median of several runs,
and its ratio is taken within one run of this script.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from lmcli.grammars.france.grammar import France, FranceSettings

KINDS = {"one process, two threads": ("1", "2"), "two workers, one thread each": ("2", "1")}
"""workers, threads of each"""
STEPS = {128: 400, 256: 200, 512: 60}
"""so that a run takes a few seconds"""


def tokens_per_second(text: Path, width: int, steps: int, workers: str, threads: str) -> float:
    """Of one short training, as the command itself says."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "lmcli", "train", str(text), "--steps", str(steps)),
                *("--set", f"hidden={width}", "--set", "validations=1", "--set", "batch=16"),
                *("--workers", workers, "-o", f"{folder}/run", "--json"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            check=True,
        )
    return float(json.loads(done.stdout)["tokens_per_second"])


def measure(text: Path, width: int, steps: int, repeats: int) -> dict[str, object]:
    """Medians of both, and how many times faster the workers are."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, (workers, threads) in KINDS.items():
            found[kind].append(tokens_per_second(text, width, steps, workers, threads))
    alone, together = (statistics.median(speeds) for speeds in found.values())
    return {"width": width, "steps": steps, **found, "ratio": together / alone}


def main() -> None:
    """Measure all widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="128,256,512")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "france.txt"
        documents = islice(France(FranceSettings(size="small")).documents(), 2000)
        text.write_text("".join(f"{d}\n" for d in documents), encoding="utf-8")
        for width in map(int, arguments.widths.split(",")):
            steps = arguments.steps or STEPS.get(width, 100)
            row = measure(text, width, steps, arguments.repeats)
            rows.append(row)
            medians = [statistics.median(row[kind]) for kind in KINDS]
            sys.stderr.write(
                f"width {width}: {medians[0]:,.0f} tokens/s alone, {medians[1]:,.0f} together, "
                f"{row['ratio']:.2f} times\n"
            )
    result = json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1)
    if arguments.json:
        arguments.json.write_text(result, encoding="utf-8")
    else:
        sys.stdout.write(result + "\n")


if __name__ == "__main__":
    main()
