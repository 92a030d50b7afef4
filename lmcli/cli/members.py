"""What ``lmcli compare --arch`` names: architectures, each with settings of its own if it likes.

**In:** ``lstm,gru,lstm:coupled=true``, pairs for all, budget, seeds.
**Out:** a `Member` a training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmcli.racing import Member
    from lmcli.sources import Source

ARCHS = "ngram,window,rnn,gru,lstm"


@dataclass(frozen=True)
class Entrant:
    """One row of a comparison to be trained."""

    name: str
    """as it was written: ``lstm:coupled=true``"""
    arch: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    """settings of this one alone"""


def entrants(arch: str | None, with_runs: bool) -> list[Entrant]:
    """What is to be trained: what was asked for, nothing if there are runs, else the usual.

    >>> [(e.arch, dict(e.pairs)) for e in entrants("gru, lstm:coupled=true:chrono=99", False)]
    [('gru', {}), ('lstm', {'coupled': 'true', 'chrono': '99'})]
    """
    from lmcli.errors import UsageError
    from lmcli.settings import split_pairs

    if arch is None:
        arch = "" if with_runs else ARCHS
    names = list(dict.fromkeys(name.strip() for name in arch.split(",") if name.strip()))
    if not names and not with_runs:
        raise UsageError("--arch names nothing", f"for example --arch {ARCHS}")
    parts = [(name, *name.split(":")) for name in names]
    return [Entrant(name, base, split_pairs(pairs)) for name, base, *pairs in parts]


def check_entrants(found: Sequence[Entrant], pairs: Mapping[str, Any], tokenizer: str) -> None:
    """A UsageError for an unknown name, of an architecture or of a setting."""
    from lmcli.preparing import check_pairs
    from lmcli.registry import MODELS
    from lmcli.settings import check_known, update
    from lmcli.training import TrainingSettings

    check_pairs(pairs, [e.arch for e in found], tokenizer)
    for entrant in found:
        settings = MODELS.load(entrant.arch).Settings
        check_known(entrant.pairs, settings, TrainingSettings)
        update(settings(), entrant.pairs)


def row_name(label: str) -> str:
    """The row that a member belongs to: its name without the seed.

    >>> row_name("lstm:coupled=true#2")
    'lstm:coupled=true'
    """
    return label.partition("#")[0]


def members(
    source: Source,
    found: Iterable[Entrant],
    pairs: Mapping[str, Any],
    budget: Any,
    seeds: Sequence[int],
    device: str,
    match: str,
    folder: Path,
) -> list[Member]:
    """A member for each entrant and seed; one that counts knows no seed.

    A width given for all is the LSTM's where parameters are to match, one's own is as it is.
    """
    from lmcli.models.lstm import LSTMSettings
    from lmcli.preparing import command_line, prepare_job
    from lmcli.racing import Member
    from lmcli.settings import update

    width = None
    if match == "params" and "hidden" in pairs:
        width = update(LSTMSettings(), pairs).hidden
        pairs = {name: value for name, value in pairs.items() if name != "hidden"}
    made = []
    for entrant in found:
        wanted = {**pairs, **entrant.pairs}
        for seed in seeds:
            job = prepare_job(
                source, entrant.arch, wanted, budget, seed, device, match, command_line(), width
            )
            if job.counts and seed != seeds[0]:
                continue
            label = entrant.name if len(seeds) == 1 or job.counts else f"{entrant.name}#{seed}"
            path = folder / re.sub(r"[^\w.-]+", "-", label.replace("#", "-seed"))
            race = not job.counts and not {"learning_rate"} & {*pairs, *entrant.pairs}
            made.append(Member(label, job, path, race))
    return made
