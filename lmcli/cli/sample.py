"""``lmcli sample``: text from a run, as it is made."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.generation.sampling import GenerationStats, TextChunk

SHOWN_EVERY = 0.03
"""Seconds between two writings: no reader sees less, and each costs as much as several tokens."""


def sample(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="A trained run.")],
    prompt: Annotated[
        str, o.option("--prompt", "-p", about="Text to go on from; - reads standard input.")
    ] = "",
    length: Annotated[
        int, o.option("--length", about="Tokens to make; 0 = until stopped.", min=0)
    ] = 500,
    temperature: Annotated[
        float, o.option("--temperature", about="Below 1 bolder, 0 always the likeliest.", min=0)
    ] = 0.8,
    top_k: Annotated[
        int | None, o.option("--top-k", about="Draw from the K likeliest.", min=1)
    ] = None,
    top_p: Annotated[
        float | None, o.option("--top-p", about="Draw from the likeliest P of it.", min=0, max=1)
    ] = None,
    min_p: Annotated[
        float | None, o.option("--min-p", about="Leave out below P x the likeliest.", min=0, max=1)
    ] = None,
    stop: Annotated[
        list[str] | None, o.option("--stop", about="Stop before this text.", metavar="TEXT")
    ] = None,
    count: Annotated[int, o.option("--count", about="How many samples.", min=1)] = 1,
    seed: Annotated[
        int | None,
        o.option(
            "--seed",
            about="Seed; another each time if not given.",
            callback=o.check_seed,
            metavar="N",
        ),
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Stream text from a trained run.

    [bold]Examples[/]

      lmcli sample runs/mine --prompt "Once upon"

      lmcli sample runs/mine --length 0 | head -c 1000

      lmcli sample runs/names --count 5 --length 30 --temperature 1
    """
    if "numpy" not in sys.modules:  # it looks once, on loading; waking threads costs more than
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # they save in products this small
    from lmcli.cli.console import warn_unknown
    from lmcli.generation.numpy_models.base import open_numpy_model
    from lmcli.generation.parallel import processes_for, spread
    from lmcli.generation.sampling import (
        GenerationStats,
        SamplingSettings,
        batch_size,
        sample_batch,
    )
    from lmcli.run import Run

    o.finite(temperature=temperature, top_p=top_p, min_p=min_p)
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    run = Run.open(run_path)
    model, tokenizer = open_numpy_model(run) or run.model(), run.tokenizer
    warn_unknown(tokenizer, prompt)
    base = seed if seed is not None else time.time_ns() % 2**31
    options = SamplingSettings(temperature, top_k, top_p, min_p)
    end = {"line": "\n", "paragraph": "\n\n"}.get(run.record.corpus["options"]["documents"], "")
    stops = tuple(stop or ())
    together = batch_size(count, length, tokenizer.size) * processes_for(model, count, length)

    def make(
        seeds: Sequence[int], counted: Sequence[GenerationStats] | None
    ) -> Iterator[TextChunk]:
        return sample_batch(model, tokenizer, prompt, length, options, seeds, stops, end, counted)

    for begin in range(0, count, together):
        seeds = range(base + begin, base + min(begin + together, count))
        sampled = [GenerationStats() for _ in seeds] if as_json else None
        pieces = spread(make, seeds, processes_for(model, len(seeds), length), sampled)
        if sampled is None:
            _print(prompt, pieces, len(seeds), separate=begin + len(seeds) < count)
        else:
            _emit({"run": str(run_path), "prompt": prompt}, pieces, seeds, sampled)


def _emit(
    values: dict[str, Any],
    pieces: Iterator[TextChunk],
    seeds: Sequence[int],
    sampled: Sequence[GenerationStats],
) -> None:
    """An object a text, in their order."""
    from lmcli.cli.console import emit_json
    from lmcli.generation.sampling import in_order
    from lmcli.report.result import Result

    began, text, turn = time.perf_counter(), "", 0
    for piece, last in in_order(pieces, len(seeds)):
        text += piece
        if last:
            counted = sampled[turn]
            made = {"text": text, "tokens": counted.tokens, "nats": counted.nats}
            made |= {"seconds": time.perf_counter() - began, "seed": seeds[turn]}
            emit_json(Result("sample", values | made).to_json())
            text, turn = "", turn + 1


def _print(prompt: str, pieces: Iterator[TextChunk], texts: int, separate: bool) -> None:
    """Write pieces as they come, text after text, in the encoding of stdout."""
    from lmcli.generation.sampling import in_order

    page = _Page()
    try:
        page.begin(prompt)
        for piece, last in in_order(pieces, texts):
            page.write(piece)
            if last:
                texts -= 1
                page.end_line()
                if texts or separate:
                    page.hold("---\n")
                if texts:
                    page.begin(prompt)
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
        self.held: list[str] = []
        self.ends = ""
        self.written = 0.0

    def begin(self, prompt: str) -> None:
        """The prompt, to be written with what it leads to."""
        self.held.append(prompt)
        self.ends = prompt

    def hold(self, text: str) -> None:
        """Text to be written with what comes next."""
        self.held.append(text)
        self.ends = text or self.ends

    def write(self, text: str) -> None:
        """Text to be written soon."""
        self.hold(text)
        now = time.perf_counter()
        if now - self.written >= SHOWN_EVERY:
            self.flush()
            self.written = now

    def end_line(self) -> None:
        """End the line, unless the text has."""
        if not self.ends.endswith("\n"):
            self.hold("\n")

    def flush(self) -> None:
        """Write all."""
        text, self.held = "".join(self.held), []
        self.out.write(text.encode(self.encoding, "replace"))
        self.out.flush()
