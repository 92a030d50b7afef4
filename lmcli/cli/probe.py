"""``lmcli probe``: how far back each run remembers, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from lmcli import api
from lmcli.cli import options as o

DEFAULT = o.defaults(api.probe)


def probe(
    arguments: Annotated[
        list[str] | None,
        o.argument(
            "[NAME] RUN... [TEXT...]",
            "A probe (all that apply without one), trained runs, other texts than their own.",
            show_default=False,
        ),
    ] = None,
    settings: o.ProbeSet = None,
    seed: o.Seed = DEFAULT.seed,
    html: o.Html = None,
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Measure how far back each run remembers, with intervals, chance and control rows.

    Without a TEXT the held-out part of the runs' own text is taken.

    [bold]Examples[/]

      lmcli probe runs/lstm runs/rnn

      lmcli probe recall runs/compare/*

      lmcli probe context runs/lstm other.txt --set longest=256
    """
    from lmcli.cli.console import emit
    from lmcli.cli.progress import ProgressDisplay
    from lmcli.settings import split_pairs

    name, paths, texts = sort_arguments(arguments or [])
    with ProgressDisplay(not quiet and not as_json) as on_progress:
        found = api.probe(
            paths, texts, name=name, settings=split_pairs(settings or []), seed=seed,
            on_progress=on_progress,
        )  # fmt: skip
    emit(found.result(), as_json, quiet, html)


def sort_arguments(arguments: Sequence[str]) -> tuple[str | None, list[Path], list[str]]:
    """The probe's name if there is one, the runs, the texts."""
    from lmcli.errors import UsageError
    from lmcli.registry import PROBES

    rest = list(arguments)
    name = None
    if rest and not Path(rest[0]).exists():
        plain = rest[0].isidentifier()
        if rest[0] in PROBES.names() or (plain and len(rest) > 1):
            name = PROBES.check(rest.pop(0))
    runs = [Path(a) for a in rest if (Path(a) / "run.json").is_file()]
    texts = [a for a in rest if Path(a) not in runs and not o.is_of_comparison(Path(a))]
    if not runs:
        if texts and not Path(texts[0]).is_file():
            api.load(texts[0])  # says what is wrong with it
        raise UsageError("no run to probe", "for example lmcli probe runs/lstm runs/rnn")
    return name, runs, texts
