"""``lmcli sample``: text from a run, as it is made."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lmcli.cli import options as o


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
    from lmcli.cli.group import warn_unknown
    from lmcli.cli.screen import emit_json
    from lmcli.result import Result
    from lmcli.run import Run
    from lmcli.sampling import Sampled, SamplingSettings
    from lmcli.sampling import sample as stream

    o.finite(temperature=temperature, top_p=top_p, min_p=min_p)
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    run = Run.open(run_path)
    model, tokenizer = run.model(), run.tokenizer
    warn_unknown(tokenizer, prompt)
    base = seed if seed is not None else time.time_ns() % 2**31
    options = SamplingSettings(temperature, top_k, top_p, min_p)
    end = {"line": "\n", "paragraph": "\n\n"}.get(run.record.corpus["options"]["documents"], "")
    for number in range(count):
        began, sampled = time.perf_counter(), Sampled()
        pieces = stream(
            model,
            tokenizer,
            prompt,
            length,
            options,
            base + number,
            tuple(stop or ()),
            end,
            sampled,
        )
        if not as_json:
            _print(prompt, pieces, separate=number < count - 1)
            continue
        text = "".join(pieces)
        values: dict[str, Any] = {"run": str(run_path), "prompt": prompt, "text": text}
        values |= {"tokens": sampled.tokens, "nats": sampled.nats}
        values |= {"seconds": time.perf_counter() - began, "seed": base + number}
        emit_json(Result("sample", values).to_json())


def _print(prompt: str, pieces: Iterator[str], separate: bool) -> None:
    """Write pieces as they come, in the encoding of stdout."""
    out, encoding = sys.stdout.buffer, sys.stdout.encoding or "utf-8"
    sys.stdout.flush()
    try:
        out.write(prompt.encode(encoding, "replace"))
        text = prompt
        for text in pieces:
            out.write(text.encode(encoding, "replace"))
            out.flush()
        if not text.endswith("\n"):
            out.write(b"\n")
        if separate:
            out.write(b"---\n")
        out.flush()
    except KeyboardInterrupt:
        out.write(b"\n")
        out.flush()
        raise
