"""``lmcli compare``: several architectures on one text under one protocol."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.comparing import Comparison
    from lmcli.models.base import LanguageModel
    from lmcli.preparing import Source
    from lmcli.racing import Member, Outcome
    from lmcli.run import Run

ARCHS = "ngram,window,rnn,gru,lstm"


def compare(
    texts: o.Texts = None,
    arch: Annotated[
        str | None,
        o.option(
            "--arch",
            about="Architectures, separated by commas.",
            default=f"{ARCHS}, or none with --run",
            metavar="NAMES",
        ),
    ] = None,
    tokenizer: o.TokenizerName = "char",
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    seeds: Annotated[
        int, o.option("--seeds", about="Trainings per architecture.", min=1, metavar="N")
    ] = 1,
    match: Annotated[
        str,
        o.option("--match", about="Make equal: params (of the body) or width.", metavar="WHAT"),
    ] = "params",
    runs: Annotated[
        list[Path] | None, o.option("--run", about="Take this run; may be repeated.", metavar="RUN")
    ] = None,
    output: Annotated[
        Path | None,
        o.option(
            "--output", "-o", about="Folder of the runs.", default="runs/compare", metavar="DIR"
        ),
    ] = None,
    settings: o.Set = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.Split = "interleaved",
    documents: o.Documents = None,
    newlines: o.Newlines = "keep",
    encoding: o.Encoding = "utf-8",
    errors: o.Errors = "strict",
    workers: Annotated[
        int | None,
        o.option(
            "--workers", about="Trainings side by side.", default="one a core", min=1, metavar="N"
        ),
    ] = None,
    probe: Annotated[
        bool, o.option("--probe", about="Run all memory probes on what was trained.")
    ] = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Train several architectures alike and rank them, with error bars.

    [bold]Examples[/]

      lmcli compare my.txt

      lmcli compare my.txt --arch ngram,lstm --minutes 5 --seeds 3

      lmcli compare data/france.txt --tokenizer word --minutes 2
    """
    from lmcli.cli.probe import add_memory, with_probes
    from lmcli.cli.screen import emit, note, preparation_bar
    from lmcli.comparing import Comparison
    from lmcli.errors import UsageError
    from lmcli.preparing import TextChoice, check_pairs, prepare_source
    from lmcli.run import Run, check_free
    from lmcli.settings import split_pairs

    if not texts:
        raise UsageError("no text to compare on", "for example lmcli compare my.txt")
    o.one_of("match", match, ("params", "width"))
    o.one_of("split", split, ("interleaved", "tail"))
    budget = o.budget(minutes, steps, epochs, default=1.0)
    archs = _archs(arch, runs or [])
    opened = [(run, run.model()) for run in map(Run.open, runs or [])]
    pairs = split_pairs(settings or [])
    check_pairs(pairs, archs, tokenizer)
    folder = output or o.free_name(Path("runs"), "compare")
    _check_folder(folder, force, check_free)
    reading = o.text_options(encoding, errors, newlines, documents, texts)
    choice = TextChoice(tuple(texts), reading, split, tuple(valid or ()), tuple(test or ()))
    shown = not quiet and not as_json
    with preparation_bar(shown) as meter:
        source = prepare_source(choice, tokenizer, pairs, meter)
    members = _members(source, archs, pairs, budget, seeds, seed, device, match, folder)
    _clear(folder, runs or [])
    side_by_side = _workers(members, workers)
    if shown:
        for line in _announcement(source, members, budget, side_by_side):
            note(line)
    outcomes = _train(members, side_by_side, source, shown)
    outcomes += [_existing(run, model, source, archs) for run, model in opened]
    comparison = Comparison.of(outcomes)
    values = _values(comparison, source, members, budget, match, seeds, side_by_side)
    results = add_memory(values, source, seed, probe)
    result = with_probes(_result(comparison, values, folder), results)
    _keep(folder, result)
    emit(result, as_json, quiet)


def _clear(folder: Path, kept: Sequence[Path]) -> None:
    """Remove the runs of the comparison that is replaced, but those that the new one takes."""
    import shutil

    from lmcli.run import RECORD, storage

    taken = {path.resolve() for path in kept}
    with storage(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if (path / RECORD).is_file() and path.resolve() not in taken:
                shutil.rmtree(path)


def _archs(arch: str | None, runs: Sequence[Path]) -> list[str]:
    """What is to be trained: what was asked for, nothing if there are runs, else the usual."""
    from lmcli.errors import UsageError

    if arch is None:
        return [] if runs else ARCHS.split(",")
    names = [name.strip() for name in arch.split(",") if name.strip()]
    if not names and not runs:
        raise UsageError("--arch names nothing", f"for example --arch {ARCHS}")
    return list(dict.fromkeys(names))


def _check_folder(folder: Path, force: bool, check_free: Any) -> None:
    """The folder must be new, empty, or a comparison, finished or not, that may be replaced."""
    from lmcli.errors import RunError
    from lmcli.run import RECORD

    finished = (folder / "comparison.json").is_file()
    inside = list(folder.iterdir()) if folder.is_dir() else []
    if finished or (inside and all((path / RECORD).is_file() for path in inside)):
        if not force:
            raise RunError(f"'{folder}' exists", "--force replaces it, -o takes another folder")
        return
    check_free(folder, force=False)


def _members(
    source: Source,
    archs: Sequence[str],
    pairs: Mapping[str, Any],
    budget: Any,
    seeds: int,
    seed: int,
    device: str,
    match: str,
    folder: Path,
) -> list[Member]:
    from lmcli.preparing import command_line, prepare_job
    from lmcli.racing import Member

    members = []
    for name in archs:
        for number in range(seeds):
            job = prepare_job(
                source, name, pairs, budget, seed + number, device, match, command_line()
            )
            if job.counts and number:
                continue  # counting knows no seed
            label = name if seeds == 1 or job.counts else f"{name}#{seed + number}"
            path = folder / label.replace("#", "-seed")
            race = not job.counts and "learning_rate" not in pairs
            members.append(Member(label, job, path, race))
    return members


def _workers(members: Sequence[Member], wanted: int | None) -> int:
    """How many trainings run side by side: as many as there are cores, one on a GPU."""
    from lmcli.racing import available_cores

    trained = sum(not m.job.counts for m in members)
    if not members or any(m.job.device != "cpu" for m in members):
        return 1
    return max(1, min(wanted or len(available_cores()), trained))


def _announcement(
    source: Source, members: Sequence[Member], budget: Any, workers: int
) -> list[str]:
    from lmcli.recipes import describe_choice

    corpus, encoded = source.corpus, source.encoded
    held_out = corpus.test or corpus.valid
    lines = [
        f"text: {corpus.train.chars:,} characters to train on, {held_out.chars:,} held out; "
        f"{len(encoded.train):,} {source.tokenizer} tokens, {encoded.tokenizer.size:,} different"
    ]
    seen = set()
    for member in members:
        if member.job.arch not in seen:
            seen.add(member.job.arch)
            lines.append(describe_choice(member.job.arch, member.job.settings, member.job.training))
    trained = sum(not m.job.counts for m in members)
    if budget.minutes and trained:
        total = budget.minutes * -(-trained // workers)
        lines.append(
            f"{trained} trainings of {budget.minutes:g} min, {workers} side by side: "
            f"about {total:.1f} min"
        )
    return lines


def _train(members: Sequence[Member], workers: int, source: Source, shown: bool) -> list[Outcome]:
    """Counted models here and now, the others side by side; Ctrl-C ends all."""
    from lmcli.cli.screen import TrainingBars, graceful_stop, note
    from lmcli.racing import train_member, train_members

    counted = [m for m in members if m.job.counts]
    trained = [m for m in members if not m.job.counts]
    outcomes: list[Outcome] = []
    chars = source.valid.part.chars / max(1, source.valid.targets)
    with graceful_stop() as stop, TrainingBars(shown, chars) as bars:
        for member in counted:
            outcomes += [_of_arch(e.outcome) for e in train_member(member) if e.outcome]
        events = train_members(trained, workers) if trained else iter(())
        for event in events:
            if event.progress:
                bars.show(event.member, event.progress)
            if event.outcome:
                outcomes.append(_of_arch(event.outcome))
            if stop:
                break
        events.close() if hasattr(events, "close") else None
    if stop:
        done = ", ".join(o.run for o in outcomes) or "none"
        note(f"stopped; finished runs: {done}")
        raise typer.Exit(stop.exit_code if stop.signal else 128 + signal.SIGINT)
    return outcomes


def _of_arch(outcome: Outcome) -> Outcome:
    """All seeds of an architecture are one row."""
    return replace(outcome, name=outcome.arch)


def _existing(run: Run, model: LanguageModel, source: Source, archs: Sequence[str]) -> Outcome:
    """A run that was trained before, scored on the same held-out text."""
    from lmcli.cli.group import warn
    from lmcli.racing import Outcome, score_parts

    path = run.path
    if run.record.corpus["sha256"] != source.corpus.sha256:
        warn(f"'{path}' was trained on another text and may have seen what is held out here")
    trained = run.result("train") or {}
    valid, test = score_parts(run, source)
    return Outcome(
        name=f"./{path}" if str(path) in archs else str(path),  # a name of its own
        arch=run.record.arch,
        seed=run.record.seed,
        run=str(path),
        parameters=model.parameter_count(),
        body_parameters=model.body_parameters(),
        flops_per_token=model.flops_per_token(),
        tokens_seen=trained.get("tokens_seen") or 0,
        seconds=trained.get("seconds") or 0.0,
        learning_rate=run.record.training.get("learning_rate"),
        valid=valid,
        test=test,
    )


def _values(
    comparison: Comparison,
    source: Source,
    members: Sequence[Member],
    budget: Any,
    match: str,
    seeds: int,
    workers: int,
) -> dict[str, Any]:
    """The keys of ``lmcli compare --json``."""
    from lmcli.comparing import optimum_row, protocol

    corpus, encoded = source.corpus, source.encoded
    rows = [s.to_json() | {"reach": None} for s in comparison.standings]
    optimum = optimum_row(source)
    if optimum:
        rows.append(optimum | {"reach": None})
        rows.sort(key=lambda row: (row["test"] or row["valid"])["bits_per_char"])
    parts = [p for p in (corpus.train, corpus.valid, corpus.test) if p]
    streams = [s for s in (encoded.train, encoded.valid, encoded.test) if s is not None]
    return {
        "corpus": {
            "sha256": corpus.sha256,
            "chars": sum(p.chars for p in parts),
            "tokens": sum(map(len, streams)) - sum(len(p.pieces) for p in parts),
            "tokenizer": source.tokenizer,
        },
        "protocol": protocol(members[0].job, budget, match, seeds, workers) if members else {},
        "rows": rows,
        "differences": [d.to_json() for d in comparison.differences],
    }


def _result(comparison: Comparison, values: dict[str, Any], folder: Path) -> Any:
    from lmcli.cli.probe import reach_text
    from lmcli.result import (
        BITS_PER_CHAR,
        PARAMETERS,
        PERPLEXITY,
        Column,
        Metric,
        Result,
        Table,
        text,
    )

    part = "test" if all(row["test"] for row in values["rows"]) else "valid"
    verdicts = {d["a"]: d for d in values["differences"]}
    best = comparison.standings[0].name
    shown = []
    for row in values["rows"]:
        against = verdicts.get(row["name"])
        verdict = "best" if row["name"] == best else ""
        if against:
            verdict = f"{against['verdict']} ({against['bits_per_char']:+.3f})"
        shown.append(row | {"verdict": verdict, "million": _million(row["tokens_seen"])})
        shown[-1]["reached"] = reach_text(row["reach"])
    columns = [
        Column("name", text("model")),
        Column("parameters", PARAMETERS),
        Column("million", Metric("M tokens", 1)),
        Column("seconds", Metric("s", 0)),
        Column(f"{part}.perplexity", PERPLEXITY),
        Column(f"{part}.bits_per_char", BITS_PER_CHAR),
        Column("reached", text("reach")),
        Column("verdict", text("against best")),
    ]
    what = "held-out text" if part == "test" else "validation text (there is no test part)"
    note = "± is one standard error; a verdict is a paired 95 % interval in bits/char"
    table = Table(f"{what}, best first", columns, shown, note)
    place = shlex.quote(str(folder))
    again = f"lmcli sample {shlex.quote(comparison.standings[0].outcomes[0].run)}"
    if any(row["arch"] == "optimum" for row in values["rows"]):
        again = f"lmcli cloze {place}/*"
    return Result("compare", values, [table], [again])


def _million(tokens: float | None) -> float | None:
    return None if tokens is None else tokens / 1e6


def _keep(folder: Path, result: Any) -> None:
    """The result beside the runs, for `lmcli report` and for later."""
    from lmcli.run import storage, write_json

    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", result.to_json())
