"""What TAB completes: runs, names of members, settings, and the values of options.

**In:** the words typed so far.
**Out:** words with a line of help. Nothing is imported but what lists names: no torch, no numpy.

bash takes `=` for the end of a word, so that of ``--set hidden=64`` only ``64`` is completed;
`bash_values` sees to that. zsh and fish complete the whole word.
"""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from lmcli.cli.setting_names import SettingName, setting_names
from lmcli.registry import GRAMMARS, MODELS, PROBES, TOKENIZERS, Family
from lmcli.run_list import run_folders

Words = list[tuple[str, str]]
"""a word and its help"""
MOST = 200
"""runs that are offered"""
WIDTH = 60
"""characters of help beside a word"""
TRAINING = "lmcli.training.training_settings:TrainingSettings"
CHOICES: Mapping[str, tuple[str, ...]] = {
    "--split": ("interleaved", "tail"),
    "--errors": ("strict", "replace", "ignore"),
    "--newlines": ("keep", "lf"),
    "--documents": ("file", "line", "paragraph"),
    "--device": ("auto", "cuda", "mps", "cpu"),
    "--match": ("params", "width", "state"),
    "--level": ("summary", "line", "token"),
    "--reset": ("never", "line", "document"),
    "--to": ("numpy", "onnx", "hf"),
    "--size": ("small", "default", "long"),
    "--encoding": ("utf-8", "utf-16", "cp1252", "latin-1"),
}
PARTS = ("train", "valid", "test")


def members(family: Family) -> Words:
    """The names of a family, each with what it is."""
    return [(name, short(family.summary(name))) for name in family.names()]


def short(about: str) -> str:
    """A help text of one line: shells would take a second one for another word."""
    return textwrap.shorten(about, WIDTH, placeholder=" ...")


def runs(incomplete: str) -> Words:
    """Runs below the folder that is being typed; below the working folder, and in runs/."""
    folder = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete))  # noqa: PTH120
    found = itertools.islice(run_folders(folder), MOST)
    return [(str(path), "run") for path in found if path != Path()]


def architectures(incomplete: str) -> Words:
    """Names, of which several may be joined by commas."""
    before, comma, _ = incomplete.rpartition(",")
    return [(f"{before}{comma}{name}", about) for name, about in members(MODELS)]


def known_settings(ctx: Any) -> dict[str, SettingName]:
    """Those that ``--set`` of a command takes, with the architecture and tokenizer given."""
    command, given = ctx.info_name, ctx.params
    if command == "make":
        families = [(GRAMMARS, name) for name in _typed(GRAMMARS)]
    elif command == "probe":
        families = [(PROBES, name) for name in _typed(PROBES)]
    else:
        archs = [name.partition(":")[0] for name in str(given.get("arch") or "lstm").split(",")]
        families = [(MODELS, name) for name in archs if name in MODELS.names()]
        tokenizer = str(given.get("tokenizer") or "char")
        families += [(TOKENIZERS, tokenizer)] if tokenizer in TOKENIZERS.names() else []
    found: dict[str, SettingName] = {}
    for family, name in families:
        found |= setting_names(family, name)
    return found if command in ("make", "probe") else found | setting_names(TRAINING)


def _typed(family: Family) -> list[str]:
    """Those members that the command line names, else all.

    The parser gives up the arguments of a line that ends in ``--set``.
    """
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    words = set(line.split())
    return [name for name in family.names() if name in words] or family.names()


def settings(ctx: Any, incomplete: str) -> Words:
    """``name=``, and once it is there the values of those that have choices."""
    known = known_settings(ctx)
    name, equals, _ = incomplete.partition("=")
    if equals:
        return [(f"{name}={value}", "") for value in (known[name].values if name in known else ())]
    fits = [(known_name, s) for known_name, s in known.items() if known_name.startswith(name)]
    if len(fits) > 1:
        return [(f"{fit}=", short(setting.about)) for fit, setting in fits]
    # with its values, as a shell sets a blank after a word that is the only one
    return [
        (f"{fit}={value}", short(setting.about))
        for fit, setting in fits
        for value in ("", *(setting.values or (setting.default,)))
    ]


def completer(flag: str) -> Callable[..., Words] | None:
    """The callback of an option, or of an argument by its metavar; None where files are named."""
    if flag in CHOICES:
        return lambda ctx, incomplete: [(value, "") for value in _choices(ctx, flag)]
    return COMPLETERS.get(flag)


def _choices(ctx: typer.Context, flag: str) -> Iterable[str]:
    return PARTS if flag == "--split" and ctx.info_name == "eval" else CHOICES[flag]


def _of_settings(ctx: typer.Context, incomplete: str) -> Words:
    return settings(ctx, incomplete)


def _of_runs(incomplete: str) -> Words:
    return runs(incomplete)


def _of_archs(incomplete: str) -> Words:
    return architectures(incomplete)


def _of_tokenizers() -> Words:
    return members(TOKENIZERS)


def _of_grammars() -> Words:
    return members(GRAMMARS)


def _of_probes_and_runs(incomplete: str) -> Words:
    return [*members(PROBES), *runs(incomplete)]


def _of_all() -> Words:
    return [pair for f in (MODELS, TOKENIZERS, GRAMMARS, PROBES) for pair in members(f)]


COMPLETERS: Mapping[str, Callable[..., Words]] = {
    "RUN": _of_runs,
    "RUN...": _of_runs,
    "--run": _of_runs,
    "--versus": _of_runs,
    "--arch": _of_archs,
    "--tokenizer": _of_tokenizers,
    "--set": _of_settings,
    "GRAMMAR": _of_grammars,
    "[NAME] RUN... [TEXT...]": _of_probes_and_runs,
    "NAME": _of_all,
}


# ------------------------------------------------------------------ bash


def bash_values(command_of: Callable[[list[str]], Any]) -> list[str] | None:
    """What bash is to put after the ``=`` of ``--set name=``; None where it asks for another word.

    `command_of` gives the context of a command line that is not finished.
    """
    if os.environ.get("_LMCLI_COMPLETE") != "complete_bash":
        return None
    words = os.environ.get("COMP_WORDS", "").split("\n")
    place = int(os.environ.get("COMP_CWORD") or 0)
    at = place if words[place : place + 1] == ["="] else place - 1
    if at < 3 or words[at] != "=" or words[at - 2] != "--set":
        return None
    typed = "" if at == place else "".join(words[place : place + 1])
    context = command_of(words[1 : at - 2])
    offered = settings(context, f"{words[at - 1]}=")
    values = [word.partition("=")[2] for word, _ in offered]
    return [value for value in values if value.startswith(typed)]
