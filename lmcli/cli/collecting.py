"""``lmcli compare --run``: runs that exist, as members of a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmcli.data.dataset import Dataset
    from lmcli.models.base import LanguageModel
    from lmcli.run import Run
    from lmcli.training.sweep import TrialResult

Opened = tuple["Run", "LanguageModel"]


def open_runs(paths: Sequence[Path]) -> list[Opened]:
    """The runs at these places; a folder that holds runs stands for all of them."""
    from lmcli.run import RECORD, Run

    found: list[Path] = []
    for path in paths:
        inside = sorted(p.parent for p in path.glob(f"[!.]*/{RECORD}"))  # less the half-written
        found += [path] if (path / RECORD).is_file() or not inside else inside
    return [(run, run.model()) for run in map(Run.open, found)]


def collect(
    opened: Sequence[Opened], dataset: Dataset, trained: Sequence[str]
) -> list[TrialResult]:
    """Each run scored on the same held-out text, under the name of its row."""
    names = _names([run for run, _ in opened], trained)
    return [_outcome(*one, name, dataset) for one, name in zip(opened, names, strict=True)]


def _names(runs: Sequence[Run], trained: Sequence[str]) -> list[str]:
    """Runs that differ by nothing but their seeds are one row; the others go by their paths."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(_essence(run), []).append(run)
    rows = [g for g in alike.values() if len(g) > 1 and len(g) == len({r.record.seed for r in g})]
    taken = [*trained, *(group[0].record.arch for group in rows)]
    names: dict[int, str] = {}
    for group in rows:
        arch = group[0].record.arch
        name = arch if taken.count(arch) == 1 else f"{group[0].path} and {len(group) - 1} more"
        names |= {id(run): name for run in group}
    return [names.get(id(run)) or _path_name(run.path, taken) for run in runs]


def _path_name(path: Path, taken: Sequence[str]) -> str:
    """A path as a name that no architecture has."""
    return f"./{path}" if str(path) in taken else str(path)


def _essence(run: Run) -> str:
    """All that makes a run, but for its seed."""
    record = {k: v for k, v in vars(run.record).items() if k not in ("seed", "command", "versions")}
    return json.dumps(record, sort_keys=True)


def _outcome(run: Run, model: LanguageModel, name: str, dataset: Dataset) -> TrialResult:
    from lmcli.cli.console import warn
    from lmcli.training.sweep import TrialResult

    if run.record.corpus["sha256"] != dataset.corpus.sha256:
        warn(f"'{run.path}' was trained on another text and may have seen what is held out here")
    trained = run.result("train") or {}
    tokens, seconds = trained.get("tokens_seen") or 0, trained.get("seconds") or 0.0
    rate = run.record.training.get("learning_rate")
    return TrialResult.of(name, run, model, dataset, tokens, seconds, rate)
