"""How long a keystroke takes on the page of ``lmcli serve``, by the browser's own clock.

Five models of width 256 (an n-gram, a window, an RNN, a GRU, an LSTM) read what is typed, one key
every 80 ms. A keystroke lasts from the time stamp of the input event to the frame after all bars
have changed (``performance.measure``); a request from its start to the last byte of the answer
(resource timing). Also the first paint. Prints medians and 99th percentiles as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

import lmcli

ARCHS = ("ngram", "window", "rnn", "gru", "lstm")
WIDTH = 256
TEXT = (
    "Anna grew up in France . the old dog ran up to the gate and back . at noon we all had rice "
    "and a cup of tea . it was a hot day and the wind was soft . now she speaks fluent French ."
)


def make_runs(folder: Path, tokenizer: str) -> list[Path]:
    """Runs with hardly trained weights: speed does not depend on them."""
    text = folder / "france.txt"
    lmcli.make("france", text, size="small")
    for arch in ARCHS:
        how: dict[str, Any] = {} if arch == "ngram" else {"steps": 2, "settings": {"hidden": WIDTH}}
        lmcli.train(text, arch=arch, tokenizer=tokenizer, output=folder / arch, **how)
    return [folder / arch for arch in ARCHS]


def type_and_measure(page: Page, delay: float) -> dict[str, float]:
    """Type the text key by key; milliseconds."""
    page.locator("#prompt").fill("")
    page.wait_for_timeout(500)
    page.evaluate("performance.clearMeasures(); performance.clearResourceTimings()")
    page.evaluate("performance.setResourceTimingBufferSize(10000)")
    page.locator("#prompt").press_sequentially(TEXT, delay=delay)
    page.wait_for_timeout(500)
    keys = page.evaluate("performance.getEntriesByName('keystroke').map(e => e.duration)")
    asked = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/v1/next'))"
        ".map(e => e.duration)"
    )
    return {
        "keys": len(TEXT),
        "shown": len(keys),
        "keystroke median ms": statistics.median(keys),
        "keystroke 99 % ms": percentile(keys, 99),
        "request median ms": statistics.median(asked),
        "request 99 % ms": percentile(asked, 99),
    }


def percentile(values: list[float], share: int) -> float:
    """The value below which so many per cent of all lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def measured(tokenizer: str, delay: float) -> dict[str, object]:
    """One server, one page."""
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder), tokenizer)
        words = [sys.executable, "-m", "lmcli", "serve", *map(str, runs), "--port", "0", "--json"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": 1366, "height": 900})
                page.goto(address)
                page.locator("body[data-ready]").wait_for()
                page.locator("#memory[data-gap]").wait_for(timeout=60_000)  # torch is loaded
                paint = page.evaluate("performance.getEntriesByType('paint')[0].startTime")
                found = type_and_measure(page, delay)
                browser.close()
        finally:
            server.terminate()
            server.wait()
    return {"tokenizer": tokenizer, "first paint ms": paint, **found}


def main() -> None:
    """For words and for characters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=80, help="milliseconds between two keys")
    options = parser.parse_args()
    about = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "machine": platform.machine()}
    rows = [about | measured(tokenizer, options.delay) for tokenizer in ("word", "char")]
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
