"""The runs that are served, each opened once.

**In:** folders of runs and of comparisons, or none: all runs below ``runs``.
**Out:** `Models`: runs by name. Requests name a run; no request can name a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import LmcliError, RunError
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.run import RECORD, WEIGHTS, Run
from lmcli.storage import read_json

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel
    from lmcli.web.reading import PrefixReader

FOLDER = Path("runs")
COMPARISON = "comparison.json"
MOST = 64
"""runs that are opened"""
SHOWN = 6
"""runs that the page begins with"""


class KeptRun(Run):
    """A run whose torch model is made once and kept."""

    _kept: LanguageModel | None = None

    def model(self, device: str = "cpu") -> LanguageModel:
        """The model with its best weights; all callers share it."""
        if self._kept is None:
            self._kept = super().model(device)
        return self._kept


class Model:
    """A run under the name by which requests know it."""

    def __init__(self, name: str, run: KeptRun) -> None:
        self.name, self.run = name, run

    @property
    def arch(self) -> str:
        """Its architecture."""
        return self.run.record.arch

    @cached_property
    def reader(self) -> PrefixReader:
        """Reads texts token by token, without torch where there is a NumPy model."""
        from lmcli.generation.numpy_models.base import TorchAdapter, open_numpy_model
        from lmcli.web.reading import PrefixReader

        model = open_numpy_model(self.run) or TorchAdapter(self.run.model())
        return PrefixReader(model, self.run.tokenizer)

    def without_path(self, message: str) -> str:
        """A message with the run's name in the place of its path."""
        return message.replace(str(self.run.path), self.name)

    def about(self) -> dict[str, Any]:
        """What a reader may want to know of it."""
        record = self.run.record
        with suppress(LmcliError):
            trained = self.run.result("train") or {}
        return {
            "arch": self.arch,
            "tokenizer": record.tokenizer,
            "vocabulary": record.vocabulary,
            "parameters": trained.get("parameters"),
            "test_perplexity": (trained.get("test") or {}).get("perplexity"),
            "text": ", ".join(Path(text).name for text in record.corpus["texts"][:3]),
            "seed": record.seed,
        }


class Models(Mapping[str, Model]):
    """Runs by name, in the order they were given."""

    def __init__(self, runs: Sequence[KeptRun], comparison: Path | None = None) -> None:
        self._models = {
            name: Model(name, run) for name, run in zip(_names(runs), runs, strict=True)
        }
        self.comparison = comparison
        """the folder of the first comparison, if one was given"""

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    @cached_property
    def shown(self) -> list[str]:
        """What the page begins with: a run of each architecture first, then others."""
        by_variant: dict[str, list[str]] = {}
        for name, model in self._models.items():
            variant = f"{model.arch} {model.run.record.settings}"
            by_variant.setdefault(variant, []).append(name)
        firsts = [names[0] for names in by_variant.values()]
        return sorted(firsts[:SHOWN], key=list(self._models).index)


def open_models(paths: Sequence[Path], on_progress: OnProgress = warnings_only) -> Models:
    """The runs at `paths`, and those in folders of runs; without paths all below ``runs``."""
    given = list(paths) or [FOLDER]
    by_place: dict[Path, Path] = {}
    for folder in (f for path in given for f in _run_folders(path, is_given=bool(paths))):
        by_place.setdefault(folder.resolve(), folder)
    folders = list(by_place.values())
    if not folders:
        raise RunError(f"no trained runs in '{given[0]}'", "lmcli train my.txt -o RUN makes one")
    if len(folders) > MOST:
        said = f"{len(folders)} runs: the first {MOST} are served, name those that you want"
        on_progress(Message(said, "warning"))
    runs = []
    for folder in folders[:MOST]:
        run = Run.open(folder)
        run.weights_file()  # says what is missing
        runs.append(KeptRun(run.path, run.record, run.tokenizer))
    compared = [p for path in given for p in (path, path.parent) if (p / COMPARISON).is_file()]
    return Models(runs, compared[0] if compared else None)


def _run_folders(path: Path, is_given: bool) -> list[Path]:
    """The run itself, or the finished runs in a folder; what is no run is an error if given."""
    if (path / RECORD).is_file() or not path.is_dir():
        if is_given and path.is_file() and (path.parent / COMPARISON).is_file():
            return []  # a glob for the runs of a comparison catches its files too
        if is_given:
            Run.open(path).weights_file()  # says what is wrong
        return [path] if (path / RECORD).is_file() else []
    inside = sorted(file.parent for deep in ("*", "*/*") for file in path.glob(f"{deep}/{RECORD}"))
    found = [folder for folder in [*_compared(path), *inside] if (folder / WEIGHTS).is_file()]
    if is_given and not found:
        raise RunError(f"'{path}' is no run, and has none in it", "give a folder that train made")
    return found


def _compared(folder: Path) -> list[Path]:
    """The runs of a comparison, which may lie elsewhere, the best first; none if it is no such."""
    if not (folder / COMPARISON).is_file():
        return []
    rows = read_json(folder / COMPARISON).get("rows") or ()
    named = [Path(seed["run"]) for row in rows for seed in row.get("seeds") or ()]
    places = [(path, folder / path.name) for path in named]
    return [next((p for p in two if (p / RECORD).is_file()), two[0]) for two in places]


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names; where two are alike, with the folder above, and then with a number."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.path.resolve().parent.name}/{run.name}" for run in runs]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
