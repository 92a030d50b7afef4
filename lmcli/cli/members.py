"""What ``lmcli compare --arch`` names: architectures, each with settings of its own if it likes.

**In:** ``lstm,gru,lstm:coupled=true``, pairs for all, budget, seeds.
**Out:** a `Trial` a training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmcli.data.dataset import Dataset
    from lmcli.training.sweep import Trial

ARCHS = "ngram,window,rnn,gru,lstm"


@dataclass(frozen=True)
class TrialSpec:
    """One row of a comparison to be trained."""

    name: str
    """as it was written: ``lstm:coupled=true``"""
    arch: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    """settings of this one alone"""


def trial_specs(arch: str | None, with_runs: bool) -> list[TrialSpec]:
    """What is to be trained: what was asked for, nothing if there are runs, else the usual.

    >>> [(e.arch, dict(e.pairs)) for e in trial_specs("gru, lstm:coupled=true:chrono=99", False)]
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
    return [TrialSpec(name, base, split_pairs(pairs)) for name, base, *pairs in parts]


def check_trial_specs(found: Sequence[TrialSpec], pairs: Mapping[str, Any], tokenizer: str) -> None:
    """A UsageError for an unknown name, of an architecture or of a setting."""
    from lmcli.registry import MODELS
    from lmcli.settings import check_known, update
    from lmcli.training.job import check_pairs
    from lmcli.training.trainer import TrainingSettings

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
    dataset: Dataset,
    found: Iterable[TrialSpec],
    pairs: Mapping[str, Any],
    budget: Any,
    seeds: Sequence[int],
    device: str,
    match: str,
    folder: Path,
) -> list[Trial]:
    """A member for each entrant and seed; one that counts knows no seed.

    A width given for all is the LSTM's where parameters are to match, one's own is as it is.
    """
    from lmcli.models.lstm import LSTMSettings
    from lmcli.settings import update
    from lmcli.training.job import command_line, prepare_job
    from lmcli.training.sweep import Trial

    width = None
    if match == "params" and "hidden" in pairs:
        width = update(LSTMSettings(), pairs).hidden
        pairs = {name: value for name, value in pairs.items() if name != "hidden"}
    made = []
    for entrant in found:
        wanted = {**pairs, **entrant.pairs}
        for seed in seeds:
            job = prepare_job(
                dataset, entrant.arch, wanted, budget, seed, device, match, command_line(), width
            )
            if job.counts and seed != seeds[0]:
                continue
            label = entrant.name if len(seeds) == 1 or job.counts else f"{entrant.name}#{seed}"
            path = folder / re.sub(r"[^\w.-]+", "-", label.replace("#", "-seed"))
            learning_rate_search = not job.counts and not {"learning_rate"} & {
                *pairs,
                *entrant.pairs,
            }
            made.append(Trial(label, job, path, learning_rate_search))
    return made
