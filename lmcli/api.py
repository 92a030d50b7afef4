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

from lmcli.errors import UsageError
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import Run

if TYPE_CHECKING:
    from lmcli.generation.export import Export
    from lmcli.generation.generate import Samples
    from lmcli.grammars.base import MadeText
    from lmcli.grammars.france.facts import Facts
    from lmcli.grammars.france.natural import NaturalFrance, SourceText

Texts = str | Path | Sequence[str | Path]
"""a path, an address, or a list of them"""
RunLike = Run | str | Path
"""a run or the path of one"""


def load(path: RunLike) -> Run:
    """An existing run. What is no run, or a damaged one, is a RunError."""
    return path if isinstance(path, Run) else Run.open(Path(path))


def sample(
    run: RunLike,
    prompt: str = "",
    *,
    length: int = 500,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Sequence[str] = (),
    count: int = 1,
    seed: int | None = None,
    on_progress: OnProgress = warnings_only,
) -> Samples:
    """Text that continues the prompt, as an iterator of chunks; needs no torch for most runs.

    `length` is in tokens, 0 without end. Without a seed each call gives another text.
    """
    from lmcli.generation.generate import Samples
    from lmcli.generation.sampling import SamplingSettings

    settings = SamplingSettings(temperature, top_k, top_p, min_p)
    return Samples(
        load(run),
        prompt,
        settings,
        length=length,
        stops=stop,
        count=count,
        seed=seed,
        on_progress=on_progress,
    )


def make(
    grammar: str,
    output: str | Path | None = None,
    *,
    size: str | None = None,
    level: int | None = None,
    digits: int | None = None,
    carry_length: int | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    filler: Texts | None = None,
    facts: str | Path | None = None,
    pairs: str | Path | None = None,
    frame: str | None = None,
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> MadeText:
    """Write the text of a grammar to `output` (GRAMMAR.txt), with items and about file beside it.

    None takes the grammar's own default; an option that the grammar lacks is a UsageError. With
    `filler`, texts of your own, the sentences between cue and query are theirs; `facts` (auto, a
    language, a TOML file), or `pairs` (a CSV file) and `frame`, say what the others are.
    """
    from lmcli.grammars.base import write_grammar
    from lmcli.registry import GRAMMARS
    from lmcli.settings import check_known, update

    cls: Any = GRAMMARS.load(grammar)
    parts: Sequence[Any] = ()
    if filler is not None or facts or pairs or frame:
        cls, *parts = _natural(grammar, filler, facts, pairs, frame, on_progress)
    named = {"size": size, "level": level, "digits": digits, "carry_length": carry_length}
    given = {name: value for name, value in (named | {"seed": seed}).items() if value is not None}
    given |= settings or {}
    check_known(given, cls.Settings)
    made = cls(*parts, update(cls.Settings(), given))
    return write_grammar(made, Path(output or f"{grammar}.txt"), force)


def _natural(
    grammar: str,
    filler: Texts | None,
    facts: str | Path | None,
    pairs: str | Path | None,
    frame: str | None,
    on_progress: OnProgress,
) -> tuple[type[NaturalFrance], SourceText, Facts]:
    """What makes documents from a text of the user's own, split as `train` splits it."""
    from itertools import zip_longest

    from lmcli.data.corpus import CorpusSpec, load_corpus
    from lmcli.grammars.france.natural import NaturalFrance, SourceText, choose_facts

    if grammar != NaturalFrance.name or filler is None:
        problem = "--filler, --facts, --pairs and --frame are for make france --filler TEXT"
        raise UsageError(problem, "lmcli make france --filler my.txt")
    texts = [filler] if isinstance(filler, str | Path) else filler
    parts = load_corpus(CorpusSpec(tuple(map(str, texts))), on_progress)
    held_out = zip_longest(parts.valid.documents, parts.test.documents if parts.test else ())
    together = tuple(piece for two in held_out for piece in two if piece)
    source = SourceText(parts.names, parts.sha256, tuple(parts.train.documents), together)
    return NaturalFrance, source, choose_facts(source, facts, pairs, frame, on_progress)


def export(
    run: RunLike, *, to: str = "numpy", output: str | Path | None = None, force: bool = False
) -> Export:
    """Write a run as a folder that others can use; `numpy`: text is sampled without torch."""
    from lmcli.generation.export import export_run

    return export_run(load(run), to, None if output is None else Path(output), force)
