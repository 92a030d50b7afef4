"""``lmcli cloze``: fill in the blank, one row a run, one column a gap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.evaluation.cloze import Cloze
    from lmcli.grammars.base import Item
    from lmcli.models.base import LanguageModel
    from lmcli.run import Run

STRETCHES = 20
"""fillers that a gap is averaged over"""
ASKED = {
    "country": ("does it still know the country? by words between cue and blank", "words"),
    "carry": ("does the carry arrive? by digits that it runs", "digits"),
}
"""kinds of items whose accuracy is shown by gap: the question, and what a gap is counted in"""


def cloze(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Trained runs.")],
    text: Annotated[
        str | None, o.option("--text", about="A text with a blank: ___ .", metavar="TEXT")
    ] = None,
    candidates: Annotated[
        str | None,
        o.option("--candidates", about="Words to choose from, with commas.", metavar="A,B"),
    ] = None,
    swap: Annotated[
        str | None, o.option("--swap", about="Compare with another cue.", metavar="OLD=NEW")
    ] = None,
    gaps: Annotated[
        str | None,
        o.option("--gaps", about="Words of filler at '...', with commas.", metavar="N,N"),
    ] = None,
    filler: Annotated[
        str | None, o.option("--filler", about="Text to take the filler from.", metavar="TEXT")
    ] = None,
    items: Annotated[
        Path | None,
        o.option("--items", about="Held-out items of lmcli make.", default="those beside the text"),
    ] = None,
    top: Annotated[int, o.option("--top", about="Show so many words.", min=1, metavar="N")] = 5,
    seed: o.Seed = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Fill in the blank, and see how far back each run remembers what it needs.

    [bold]Examples[/]

      lmcli cloze runs/mine --text "To be or not to ___"

      lmcli cloze runs/lstm runs/rnn --text "Anna grew up in France . ... now she speaks fluent ___"
      --candidates French,German --swap France=Germany --gaps 0,10,100 --filler data/france.txt

      lmcli cloze runs/compare/*            (the items beside a text of lmcli make)
    """
    from lmcli.cli.console import emit
    from lmcli.run import Run

    opened = [Run.open(path) for path in _only_runs(runs)]
    wanted = _gaps(gaps)
    if text is None:
        _check_needs_text(candidates=candidates, swap=swap, filler=filler)
        result = _by_items(opened, items, wanted)
    else:
        choices = [c.strip() for c in (candidates or "").split(",") if c.strip()]
        result = _by_text(opened, text, choices, swap, wanted, filler, top, seed)
    emit(result, as_json, quiet)


def _only_runs(paths: Sequence[Path]) -> list[Path]:
    """The paths, less the files that a glob over a comparison's folder also catches."""
    folders = [p for p in paths if p.name != "comparison.json"]
    return folders or list(paths)


def _check_needs_text(**options: str | None) -> None:
    """A UsageError for an option that says something about a text that is not there."""
    from lmcli.errors import UsageError

    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} needs a text", f'--text "... ___" --{name} {value}')


def _gaps(gaps: str | None) -> list[int] | None:
    from lmcli.errors import UsageError

    if gaps is None:
        return None
    try:
        found = [int(g) for g in gaps.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UsageError(f"--gaps {gaps}: not whole numbers", "for example --gaps 0,10,100")
    return found


# ------------------------------------------------------------------ a text of the user's


def _by_text(
    runs: Sequence[Run],
    text: str,
    candidates: Sequence[str],
    swap: str | None,
    gaps: list[int] | None,
    filler: str | None,
    top: int,
    seed: int,
) -> Any:
    from lmcli.cli.console import warn_unknown
    from lmcli.errors import UsageError
    from lmcli.evaluation.cloze import PLACE, Cloze, filler_stretches

    blank = Cloze.parse(text)
    old, equals, new = (swap or "").partition("=")
    if swap and not (old and equals and new):
        raise UsageError(f"--swap {swap}: not OLD=NEW", "for example --swap France=Germany")
    if gaps is not None and filler is None:
        raise UsageError("--gaps needs a text to fill them with", "--filler my.txt")
    chunks: dict[int | None, list[str]] = {None: [""]}
    if gaps is not None and filler is not None:
        from lmcli.data.corpus import read_documents
        from lmcli.data.text import TextOptions

        words = "\n".join(d.text for d in read_documents([filler], TextOptions()))
        chunks = {g: filler_stretches(words, g, STRETCHES if g else 1, seed) for g in gaps}
    rows = []
    for run in runs:
        model = run.model()
        unfilled = blank.with_gap("") if PLACE in blank.left and gaps is not None else blank
        warn_unknown(run.tokenizer, unfilled.left.strip(" "))
        if swap:
            warn_unknown(run.tokenizer, new)
        for gap, fillers in chunks.items():
            texts = [blank if gap is None else blank.with_gap(f) for f in fillers]
            pair = (old, new) if swap else None
            found = _candidates(model, run, texts, candidates, pair, top)
            row = {"run": str(run.path), "arch": run.record.arch, "gap": gap, "candidates": found}
            rows.append(row)
    return _text_result(rows, list(chunks), bool(swap))


def _candidates(
    model: LanguageModel,
    run: Run,
    texts: Sequence[Cloze],
    candidates: Sequence[str],
    swap: tuple[str, str] | None,
    top: int,
) -> list[dict[str, Any]]:
    """Mean probability of each candidate, best first, and what the swap does to its log-odds."""
    import numpy as np

    from lmcli.evaluation.cloze import candidate_scores, log_odds, normalised, top_words

    tokenizer = run.tokenizer
    known = list(candidates)
    if not known:
        if len(texts) == 1 and not swap:
            words = top_words(model, tokenizer, texts[0], top)
            return [{"text": w, "probability": p, "log_odds_swap": None} for w, p in words]
        known = [w for w, _ in top_words(model, tokenizer, texts[0], top)]

    def probabilities(cloze: Cloze) -> Any:
        scores = candidate_scores(model, tokenizer, cloze, known)
        return normalised(scores) if candidates else np.exp(scores)

    real = np.stack([probabilities(t) for t in texts])  # (fillers, candidates)
    moved = [None] * len(known)
    if swap:
        other = np.stack([probabilities(t.swapped(*swap)) for t in texts])
        moved = (log_odds(real) - log_odds(other)).mean(0).tolist()
    found = zip(known, real.mean(0).tolist(), moved, strict=True)
    rows = [{"text": w, "probability": p, "log_odds_swap": d} for w, p, d in found]
    return sorted(rows, key=lambda r: -r["probability"])[: len(known) if candidates else top]


def _text_result(rows: list[dict[str, Any]], gaps: list[int | None], swap: bool) -> Any:
    from lmcli.report.result import LOG_ODDS, PROBABILITY, Block, Column, Result, Table, text

    def line(c: dict[str, Any]) -> str:
        shown = f"{c['text']} {PROBABILITY.show(c['probability'])}"
        moved = c["log_odds_swap"]
        return shown if moved is None else f"{shown} ({'+' * (moved >= 0)}{LOG_ODDS.show(moved)})"

    blocks: list[Block] = []
    table_rows: dict[str, dict[str, Any]] = {}
    for row in rows:
        cell = "\n".join(map(line, row["candidates"]))
        table_rows.setdefault(row["run"], {"run": row["run"]})[f"gap{row['gap']}"] = cell
    columns = [Column("run", text("run"))]
    for gap in gaps:
        columns.append(Column(f"gap{gap}", text("in the blank" if gap is None else f"gap {gap}")))
    note = "in brackets: what the true cue adds to the log-odds, against the swapped one"
    blocks.append(Table("", columns, list(table_rows.values()), note if swap else ""))
    return Result("cloze", {"rows": rows}, blocks)


# ------------------------------------------------------------------ items of a grammar


def _by_items(runs: Sequence[Run], items: Path | None, gaps: list[int] | None) -> Any:
    """Forced choice over the held-out items beside the text that the runs were trained on."""
    from lmcli.evaluation.cloze import recall

    rows = []
    for run in runs:
        model = run.model()
        for kind, gap, some in _item_groups(items or _items_of(run), gaps):
            r = recall(model, run.tokenizer, some)
            low, high = r.interval
            row = {"run": str(run.path), "arch": run.record.arch, "gap": gap, "kind": kind}
            row |= {"accuracy": r.accuracy, "low": low, "high": high, "count": r.count}
            row |= {"chance": r.chance, "target_nats": r.target_nats, "candidates": []}
            rows.append(row)
    return _items_result(rows)


def _items_of(run: Run) -> Path:
    from lmcli.errors import UsageError
    from lmcli.grammars.base import companions

    for name in run.record.corpus["texts"]:
        items, _ = companions(Path(name))
        if items.is_file():
            return items
    raise UsageError("no text with a blank", f'lmcli cloze {run.path} --text "... ___"')


def _item_groups(path: Path, gaps: list[int] | None) -> list[tuple[str, int, list[Item]]]:
    """Items by kind and gap: the control first, then what is asked by gap."""
    from lmcli.errors import TextError
    from lmcli.grammars.base import read_items

    groups: dict[tuple[str, int], list[Item]] = {}
    for item in read_items(path):
        if item.kind == "control" or (item.kind in ASKED and (not gaps or item.gap in gaps)):
            groups.setdefault((item.kind, item.gap), []).append(item)
    if not any(kind in ASKED for kind, _ in groups):
        raise TextError(f"'{path}' has no items with these gaps", "leave --gaps out to see which")
    order = sorted(groups, key=lambda key: (key[0] != "control", key[1]))
    return [(kind, gap, groups[kind, gap]) for kind, gap in order]


def _items_result(rows: list[dict[str, Any]]) -> Any:
    from lmcli.report.result import WHOLE_PERCENT, Column, Result, Table, text

    by_run: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = "control" if row["kind"] == "control" else f"gap{row['gap']}"
        by_run.setdefault(row["run"], {"arch": row["arch"]})[key] = row["accuracy"]
    asked = [r for r in rows if r["kind"] in ASKED]
    title, unit = ASKED[asked[0]["kind"]]
    chance: dict[str, Any] = {"arch": "chance"}
    for row in rows:
        key = "control" if row["kind"] == "control" else f"gap{row['gap']}"
        chance[key] = row["chance"]
    columns = [Column("arch", text("model"))]
    if any(r["kind"] == "control" for r in rows):
        columns.append(Column("control", WHOLE_PERCENT, "control"))
    gaps = dict.fromkeys(r["gap"] for r in asked)
    columns += [Column(f"gap{g}", WHOLE_PERCENT, f"{g} {unit}") for g in gaps]
    widest = max(r["high"] - r["low"] for r in rows) / 2
    note = (
        f"right answers out of {int(1 / asked[0]['chance'] + 0.5)}, {asked[0]['count']} texts "
        f"a gap (95 % intervals of ± {100 * widest:.0f} points or less)"
    )
    if any(r["kind"] == "control" for r in rows):
        note += "; control: 3 words back, within everyone's reach"
    table = Table(title, columns, [*by_run.values(), chance], note)
    return Result("cloze", {"rows": rows}, [table])
