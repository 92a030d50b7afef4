"""``lmcli sample``: text from a run, as it is made."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lmcli import api
from lmcli.cli import options as o
from lmcli.errors import UsageError
from lmcli.report.charset import OBEYED

if TYPE_CHECKING:
    from lmcli.generation.generate import Samples

DEFAULT = o.defaults(api.sample)
FLUSH_SECONDS = 0.03
"""seconds between two writes, each of which costs as much as several tokens"""


def sample(
    run: Annotated[Path, o.argument("RUN", "A trained run.")],
    prompt: Annotated[
        str, o.option("--prompt", "-p", about="Text to continue; - reads standard input.")
    ] = DEFAULT.prompt,
    length: Annotated[
        int, o.option("--length", about="Tokens to make; 0 = until stopped.", min=0)
    ] = DEFAULT.length,
    temperature: Annotated[
        float,
        o.option(
            "--temperature",
            about="Below 1 safer, above 1 more varied; 0 always the likeliest token.",
            min=0,
        ),
    ] = DEFAULT.temperature,
    top_k: Annotated[
        int | None, o.option("--top-k", about="Draw from the K most likely tokens.", min=1)
    ] = None,
    top_p: Annotated[
        float | None,
        o.option(
            "--top-p",
            about="Draw from the most likely tokens of total probability P.",
            min=0,
            max=1,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        o.option("--min-p", about="Leave out tokens below P times the most likely.", min=0, max=1),
    ] = None,
    stop: Annotated[
        list[str] | None, o.option("--stop", about="Stop before this text.", metavar="TEXT")
    ] = None,
    count: Annotated[int, o.option("--count", about="How many samples.", min=1)] = DEFAULT.count,
    seed: Annotated[
        int | None,
        o.option(
            "--seed",
            about="Seed; without it each text is another.",
            callback=o.check_seed,
            metavar="N",
        ),
    ] = None,
    mix: Annotated[
        list[Path] | None,
        o.option(
            "--mix",
            about="Draw from the mixture with this run, fitted on validation; repeatable.",
            metavar="RUN",
        ),
    ] = None,
    novelty: Annotated[
        bool,
        o.option(
            "--novelty",
            about="Mark spans of 8 or more tokens that stand in the training text.",
        ),
    ] = DEFAULT.novelty,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Stream text from a trained run.

    [bold]Examples[/]

      lmcli sample runs/mine --prompt "Once upon"

      lmcli sample runs/mine --length 0 | head -c 1000

      lmcli sample runs/names --count 5 --length 30 --temperature 1

      lmcli sample runs/lstm --mix runs/ngram --novelty
    """
    if "numpy" not in sys.modules:  # NumPy reads it when it is loaded; more threads cost more
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # than they save in products this small
    from lmcli.cli.console import emit, show_message

    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    if as_json and not length and not stop:
        raise UsageError("--length 0 --json never ends: JSON comes whole", "give a --length")
    if novelty and not length and not stop:
        raise UsageError("--length 0 --novelty never ends: it needs whole texts", "give a --length")
    samples = api.sample(
        run,
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=stop or (),
        count=count,
        seed=seed,
        mix=mix or (),
        novelty=novelty,
        on_progress=show_message,
    )
    if as_json or novelty:
        for text in samples.texts():
            emit(text.result(), as_json)
    else:
        _print(samples)


def _print(samples: Samples) -> None:
    """Write chunks as they come, text after text, in the encoding of stdout."""
    page, left = _Page(), samples.count
    try:
        page.begin(samples.prompt)
        for chunk, last in samples.chunks():
            page.write(chunk)
            if last:
                left -= 1
                page.end_line()
                if left:
                    page.hold("---\n")
                    page.begin(samples.prompt)
        page.flush()
    except KeyboardInterrupt:
        page.hold("\n")
        page.flush()
        raise


class _Page:
    """Standard output, written to at once and then every few hundredths of a second."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self.out, self.encoding = sys.stdout.buffer, sys.stdout.encoding or "utf-8"
        self.shown = sys.stdout.isatty()
        self.held: list[str] = []
        self.ends = ""
        self.written = 0.0

    def begin(self, prompt: str) -> None:
        """The prompt, to be written with its continuation."""
        self.held.append(prompt)
        self.ends = prompt

    def hold(self, text: str) -> None:
        """Text to be written with the next one."""
        self.held.append(text)
        self.ends = text or self.ends

    def write(self, text: str) -> None:
        """Text to be written soon."""
        self.hold(text)
        now = time.perf_counter()
        if now - self.written >= FLUSH_SECONDS:
            self.flush()
            self.written = now

    def end_line(self) -> None:
        """End the line, unless the text has ended it."""
        if not self.ends.endswith("\n"):
            self.hold("\n")

    def flush(self) -> None:
        """Write everything held."""
        text, self.held = "".join(self.held), []
        if self.shown:
            text = text.translate(OBEYED)
        self.out.write(text.encode(self.encoding, "replace"))
        self.out.flush()
