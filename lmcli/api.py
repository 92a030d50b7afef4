"""lmcli from Python: each command as a function.

**In:** paths or addresses of texts, runs or their paths, options with the commands' names.
**Out:** runs, streams of text, results with ``to_json()``. Nothing is printed; progress goes to
`on_progress` (see `lmcli.report.progress`). Errors are `LmcliError`s with a problem and a hint.

Importing this file loads neither torch nor numpy; each function imports the stage that it calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import TextError, UsageError
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import Run, free_name
from lmcli.settings import one_of, update

if TYPE_CHECKING:
    from lmcli.evaluation.perplexity import Evaluation

Texts = str | Path | Sequence[str | Path]
"""a path, an address, or a list of them"""
RunLike = Run | str | Path
"""a run or the path of one"""
Settings = Mapping[str, Any] | None
"""what ``--set`` takes, by name"""


def load(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return path if isinstance(path, Run) else Run.open(Path(path))


def _names(texts: Texts | None) -> list[str]:
    """The texts as the command line would name them."""
    if texts is None:
        return []
    return [str(texts)] if isinstance(texts, str | Path) else [str(t) for t in texts]


# ------------------------------------------------------------------ training


def train(
    texts: Texts,
    *,
    arch: str = "lstm",
    tokenizer: str = "char",
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    settings: Settings = None,
    seed: int = 0,
    output: str | Path | None = None,
    valid: Texts | None = None,
    test: Texts | None = None,
    split: str = "interleaved",
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    device: str = "auto",
    workers: int | None = None,
    force: bool = False,
    slim: bool = False,
    verbose: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Run:
    """Train one model on texts, for 3 minutes if no budget is given.

    The result is ``run.result("train")``. If `on_progress` stops the training there is none, and
    `resume` continues it. `output` is runs/ARCH if not given, or the first such name that is free.
    """
    options = _plain(locals())
    from lmcli.training.launch import train

    options["output"] = Path(output) if output else free_name(Path("runs"), arch)
    return train(options | {"resume": False}, on_progress)


def resume(
    run: RunLike,
    texts: Texts | None = None,
    *,
    on_progress: OnProgress = warnings_only,
    **options: Any,
) -> Run:
    """Continue a training where it stopped, with the texts at their places, or at new ones.

    Of the options of `train`, `device`, `workers`, `slim` and `verbose` may be given, and those
    that the run was made with: a value that differs is a RunError.
    """
    from lmcli.training.launch import train

    path = run.path if isinstance(run, Run) else Path(run)
    given = _plain({"texts": texts, **options})
    return train(given | {"output": path, "resume": True}, on_progress)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as options: texts as lists, without the callback."""
    options = {name: value for name, value in values.items() if name != "on_progress"}
    return options | {n: _names(options[n]) for n in ("texts", "valid", "test") if n in options}


# ------------------------------------------------------------------ measuring


def evaluate(
    run: RunLike,
    texts: Texts | None = None,
    *,
    split: str | None = None,
    level: str = "summary",
    reset: str = "document",
    batch: int = 32,
    documents: str | None = None,
    newlines: str = "keep",
    encoding: str = "utf-8",
    errors: str = "strict",
    device: str = "auto",
    on_progress: OnProgress = warnings_only,
) -> Evaluation:
    """Score a text, or the `split` of the run's own: every token exactly once."""
    from lmcli.evaluation.perplexity import LEVELS, RESETS, evaluate_documents
    from lmcli.system import pick_device

    one_of("level", level, LEVELS)
    one_of("reset", reset, RESETS)
    run, wanted = load(run), _names(texts)
    model = run.model(pick_device(device))
    if split is not None:
        names, pieces = _recorded_split(run, wanted, split, on_progress)
    elif wanted:
        how = {"encoding": encoding, "errors": errors, "newlines": newlines}
        names, pieces = _read(run, wanted, documents, how, on_progress)
    else:
        raise UsageError("no text to score", "give a file, - for standard input, or --split")
    return evaluate_documents(run, model, names, pieces, level, reset, batch, on_progress)


def _recorded_split(
    run: Run, texts: Sequence[str], split: str, on_progress: OnProgress
) -> tuple[Sequence[str], Sequence[str]]:
    """Names and documents of the training, validation or test part of a run's own text."""
    from lmcli.data.texts import ProgressCounter
    from lmcli.training.job import reopen_corpus

    one_of("split", split, ("train", "valid", "test"))
    corpus = reopen_corpus(run, tuple(texts), ProgressCounter(on_progress))
    part = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}[split]
    if part is None or not part.documents:
        raise TextError(
            f"'{run.path}' was trained without a {split} part", "--split valid, or give a text"
        )
    return corpus.names, part.documents


def _read(
    run: Run,
    texts: Sequence[str],
    documents: str | None,
    how: dict[str, str],
    on_progress: OnProgress,
) -> tuple[Sequence[str], Sequence[str]]:
    """Names, the first 100, and documents, which are what they were in training by default."""
    from itertools import islice

    from lmcli.data.reading import Reader, TextOptions, find_documents
    from lmcli.data.texts import ProgressCounter

    unit = documents or run.record.corpus["options"]["documents"]
    options = update(TextOptions(), {**how, "documents": unit})
    reader = Reader(meter=ProgressCounter(on_progress))
    names, pieces = find_documents(texts, options, reader)
    return list(islice(names, 100)), pieces
