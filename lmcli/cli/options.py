"""Options that several commands share: the same name, help and environment variable everywhere.

Precedence: flag, then ``LMCLI_<COMMAND>_<NAME>``, then ``LMCLI_<NAME>``, then
``--config FILE.toml``, then the default.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from lmcli.cli.completion import completer
from lmcli.cli.config import read_config
from lmcli.errors import UsageError
from lmcli.settings import one_of as one_of
from lmcli.settings import split_pairs

LARGEST_SEED = 2**32 - 1


def check_seed(seed: int | None) -> int | None:
    """A seed as torch and numpy take it; anything else is a UsageError."""
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"--seed {seed} is out of range", f"it must be from 0 to {LARGEST_SEED}")
    return seed


def check_page(ctx: typer.Context, path: Path | None) -> Path | None:
    """A page that could not be written is an error now, not after the work."""
    if path is not None and not ctx.resilient_parsing:
        from lmcli.storage import check_output

        check_output(path, bool(ctx.params.get("force")))
    return path


def option(*flags: str, about: str, default: str = "", **more: Any) -> Any:
    """A typer option that also reads LMCLI_<NAME>; the name is that of the first long flag.

    `default` is shown where the default is found out later.
    """
    about += f" [dim]\\[default: {default}][/dim]" if default else ""
    long = next(flag for flag in flags if flag.startswith("--"))
    variable = "LMCLI_" + long.split("/")[0].lstrip("-").replace("-", "_").upper()
    more |= {"envvar": variable, "show_envvar": False, "autocompletion": completer(long)}
    return typer.Option(*flags, help=about, **more)


def argument(metavar: str, about: str, **more: Any) -> Any:
    """A typer argument; its metavar decides what it is completed by."""
    completion = completer(metavar)
    return typer.Argument(metavar=metavar, help=about, autocompletion=completion, **more)


def defaults(function: Callable[..., Any]) -> Any:
    """The defaults of an api function, as attributes: each stands in its signature only."""
    parameters = inspect.signature(function).parameters.values()
    return SimpleNamespace(**{p.name: p.default for p in parameters})


def values(ctx: typer.Context, function: Callable[..., Any]) -> dict[str, Any]:
    """The values of a command's options that are parameters of an api function."""
    names = vars(defaults(function))
    options = {name: value for name, value in ctx.params.items() if name in names}
    if "settings" in options:
        options["settings"] = split_pairs(options["settings"] or ())
    return options


def given(ctx: typer.Context, function: Callable[..., Any]) -> dict[str, Any]:
    """Those of them that a flag, the environment or the config gives."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    chosen = {name for name, source in sources.items() if source and source.name != "DEFAULT"}
    return {n: v for n, v in values(ctx, function).items() if n in chosen and v is not None}


def is_of_comparison(path: Path) -> bool:
    """Whether this is a file in the folder of a comparison: a glob for its runs catches it too."""
    marks = (path.parent / name for name in ("comparison.json", ".unfinished.json"))
    return path.is_file() and any(mark.is_file() for mark in marks)


Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT...",
        help="Files, globs, folders, URLs, or - for standard input.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="LMCLI_CONFIG",
        help="Take defaults from a TOML file.",
        callback=read_config,
        is_eager=True,
        show_envvar=False,
        metavar="FILE",
    ),
]
Json = Annotated[bool, option("--json", about="Print one JSON object with raw numbers.")]
Quiet = Annotated[bool, option("--quiet", "-q", about="No progress and no hints.")]
Verbose = Annotated[bool, option("--verbose", "-v", about="Say more on stderr.")]
Seed = Annotated[
    int, option("--seed", about="Seed of all randomness.", callback=check_seed, metavar="N")
]
Device = Annotated[str, option("--device", about="auto, cuda, mps or cpu.", metavar="NAME")]
Force = Annotated[
    bool,  # eager, so that it is known when other options are checked
    typer.Option("--force", help="Replace an output that exists.", is_eager=True),
]
Html = Annotated[
    Path | None,
    option(
        "--html",
        about="Write the result as a page too: one file that needs no network.",
        callback=check_page,
        metavar="FILE",
    ),
]


def _set(of: str) -> Any:
    about = f"A setting of {of}; lmcli list NAME shows all."
    return option("--set", about=about, metavar="NAME=VALUE")


Set = Annotated[list[str] | None, _set("architecture, tokenizer or training")]
ProbeSet = Annotated[list[str] | None, _set("the probe")]
GrammarSet = Annotated[list[str] | None, _set("the grammar")]
TokenizerName = Annotated[
    str,
    option("--tokenizer", about="byte, char, word or bpe; lmcli list shows all.", metavar="NAME"),
]
Minutes = Annotated[
    float | None,
    option("--minutes", about="Budget in minutes of training.", min=0.001, metavar="N"),
]
Steps = Annotated[int | None, option("--steps", about="Budget in updates.", min=1, metavar="N")]
Epochs = Annotated[
    float | None,
    option("--epochs", about="Budget in passes over the text.", min=1e-6, metavar="N"),
]
Split = Annotated[
    str,
    option(
        "--split", about="How to hold out text: interleaved blocks, or the tail.", metavar="KIND"
    ),
]
Valid = Annotated[
    list[str] | None, option("--valid", about="Validate on this text.", metavar="TEXT")
]
Test = Annotated[list[str] | None, option("--test", about="Test on this text.", metavar="TEXT")]
Documents = Annotated[
    str | None,
    option(
        "--documents",
        about="What a document is: file, line or paragraph.",
        default="file; line for texts of lmcli make",
        metavar="UNIT",
    ),
]
Newlines = Annotated[
    str, option("--newlines", about="keep, or lf to turn CRLF into LF.", metavar="KIND")
]
Encoding = Annotated[str, option("--encoding", about="Encoding of the texts.", metavar="NAME")]
Errors = Annotated[
    str,
    option("--errors", about="Bytes that are no text: strict, replace or ignore.", metavar="KIND"),
]


def finite(**values: float | None) -> None:
    """A UsageError for the first value that is NaN or infinite."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} {value}: not a finite number", f"for example {flag} 0.9")
