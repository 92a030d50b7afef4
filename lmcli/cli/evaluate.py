"""``lmcli eval``: how likely a text is under a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.evaluate)


def evaluate(
    run: Annotated[Path, o.argument("RUN", "A trained run.")],
    texts: o.Texts = None,
    split: Annotated[
        str | None,
        o.option(
            "--split",
            about="Score the recorded train, valid or test part.",
            default="test, without a TEXT",
        ),
    ] = DEFAULT.split,
    level: Annotated[str, o.option("--level", about="summary, line or token.")] = DEFAULT.level,
    reset: Annotated[
        str, o.option("--reset", about="Forget at each: never, line or document.")
    ] = DEFAULT.reset,
    mix: Annotated[
        list[Path] | None,
        o.option(
            "--mix",
            about="Mix with this run, by weights fitted on RUN's validation part; repeatable.",
            metavar="RUN",
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(  # LMCLI_CACHE is a folder
            "--cache", help="Count the text read so far: tokens are scored, then counted."
        ),
    ] = DEFAULT.cache,
    adapt: Annotated[
        bool,
        o.option("--adapt", about="Train on the text read so far: tokens are scored, then learnt."),
    ] = DEFAULT.adapt,
    batch: Annotated[
        int | None,
        o.option(
            "--batch",
            about="Places read side by side; changes no number.",
            default="by architecture",
            min=1,
        ),
    ] = DEFAULT.batch,
    documents: Annotated[
        str | None,
        o.option("--documents", about="file, line or paragraph.", default="as in training"),
    ] = DEFAULT.documents,
    newlines: o.Newlines = DEFAULT.newlines,
    encoding: o.Encoding = DEFAULT.encoding,
    errors: o.Errors = DEFAULT.errors,
    device: o.Device = DEFAULT.device,
    html: o.Html = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Score a text: perplexity, bits per character, every token exactly once.

    Without a TEXT the held-out test part of the run's own text is scored.

    [bold]Examples[/]

      lmcli eval runs/mine

      lmcli eval runs/mine other.txt --json

      lmcli eval runs/mine --split valid

      lmcli eval runs/lstm --mix runs/ngram --cache

      echo "To be or not to be" | lmcli eval runs/mine - --level token
    """
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay

    o.one_of("errors", errors, ("strict", "replace", "ignore"))
    o.one_of("newlines", newlines, ("keep", "lf"))
    if documents is not None:
        o.one_of("documents", documents, ("file", "line", "paragraph"))
    with ProgressDisplay(not quiet and not as_json) as on_progress:
        found = api.evaluate(
            run, texts, split=split, level=level, reset=reset, mix=mix or (), cache=cache,
            adapt=adapt, batch=batch, documents=documents, newlines=newlines, encoding=encoding,
            errors=errors, device=device, on_progress=on_progress,
        )  # fmt: skip
    emit(found.result(), as_json, quiet, html)
