"""``lmcli probe``: how far back each run remembers, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.data.corpus import Corpus
    from lmcli.data.split import Split
    from lmcli.evaluation.probes.base import ProbeData, ProbedModel, ProbeResult
    from lmcli.run import Run


def probe(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] RUN... [TEXT...]",
            help="A probe (all that apply without one), trained runs, other texts than their own.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        o.option(
            "--set",
            about="A setting of the probe; lmcli list NAME shows them.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    config: o.Config = None,
) -> None:
    """Measure how far back each run remembers, with intervals, chance and control rows.

    Without a TEXT the held-out part of the runs' own text is taken.

    [bold]Examples[/]

      lmcli probe runs/lstm runs/rnn

      lmcli probe recall runs/compare/*

      lmcli probe context runs/lstm other.txt --set longest=256
    """
    from lmcli.cli.console import emit, note
    from lmcli.evaluation.probes.base import ProbedModel
    from lmcli.registry import PROBES
    from lmcli.run import Run
    from lmcli.settings import split_pairs

    name, paths, texts = sort_arguments(arguments or [])
    names = [name] if name else PROBES.names()
    wanted = probe_settings(names, split_pairs(settings or []))
    runs = [Run.open(path) for path in paths]
    material = material_of(runs, texts)
    subjects = [ProbedModel.of(run) for run in runs]
    said = None if quiet or as_json else note
    results = run_probes(wanted, subjects, material, seed, said)
    emit(one_result(results[0]) if name else all_results(results), as_json, quiet)


def sort_arguments(arguments: Sequence[str]) -> tuple[str | None, list[Path], list[str]]:
    """The probe's name if there is one, the runs, the texts."""
    from lmcli.errors import UsageError
    from lmcli.registry import PROBES

    rest = list(arguments)
    name = None
    if rest and not Path(rest[0]).exists():
        plain = rest[0].isidentifier()
        if rest[0] in PROBES.names() or (plain and len(rest) > 1):
            name = PROBES.check(rest.pop(0))
    runs = [Path(a) for a in rest if (Path(a) / "run.json").is_file()]
    texts = [a for a in rest if Path(a) not in runs and Path(a).name != "comparison.json"]
    if not runs:
        if texts and not Path(texts[0]).is_file():
            from lmcli.run import Run

            Run.open(Path(texts[0]))  # says what is wrong with it
        raise UsageError("no run to probe", "for example lmcli probe runs/lstm runs/rnn")
    return name, runs, texts


def probe_settings(names: Sequence[str], pairs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each probe with its settings; a pair that none of them knows is a UsageError."""
    from lmcli.registry import PROBES
    from lmcli.settings import check_known, update

    members = {name: PROBES.load(name) for name in names}
    check_known(pairs, *(m.Settings for m in members.values()))
    return {name: (m(), update(m.Settings(), pairs)) for name, m in members.items()}


def material_of(runs: Sequence[Run], texts: Sequence[str]) -> ProbeData:
    """The given texts, or the held-out parts of the text that all runs were trained on."""
    from lmcli.data.corpus import CorpusSpec, read_documents, reopen_corpus
    from lmcli.errors import LmcliError, TextError
    from lmcli.evaluation.probes.base import ProbeData

    first = CorpusSpec.from_json(runs[0].record.corpus)
    if texts:
        try:
            train = _some(reopen_corpus(runs[0].record.corpus, runs[0].path).train)
        except LmcliError:
            train = ()
        documents = read_documents(list(texts), first.options)
        return ProbeData(tuple(d.text for d in documents), train, *_grammar(texts))
    for run in runs[1:]:
        same = run.record.corpus["sha256"] == runs[0].record.corpus["sha256"]
        if not same or CorpusSpec.from_json(run.record.corpus) != first:
            raise TextError(
                f"'{run.path}' and '{runs[0].path}' were trained on different texts",
                "name a text that both are to be tested on",
            )
    return material_from(reopen_corpus(runs[0].record.corpus, runs[0].path))


def material_from(corpus: Corpus) -> ProbeData:
    """What a corpus holds out: the validation and the test part."""
    from lmcli.evaluation.probes.base import ProbeData

    held_out = (*_some(corpus.valid), *(_some(corpus.test) if corpus.test else ()))
    return ProbeData(held_out, _some(corpus.train), *_grammar(corpus.spec.texts))


MOST_CHARACTERS = 1 << 25
"""of each part that probes look at: of a bigger one they get an evenly spread sample"""


def _some(part: Split) -> tuple[str, ...]:
    return tuple(part.sample(MOST_CHARACTERS).documents)


def _grammar(texts: Sequence[str]) -> tuple[Path | None, dict[str, float]]:
    """Items and optimum beside a text that a grammar made."""
    from lmcli.grammars.base import companions, read_about

    for name in texts:
        items, about = companions(Path(name))
        if items.is_file():
            optimum = read_about(about).get("optimum", {}) if about.is_file() else {}
            return items, dict(optimum)
    return None, {}


def run_probes(
    probes: Mapping[str, tuple[Any, Any]],
    subjects: Sequence[ProbedModel],
    material: ProbeData,
    seed: int,
    said: Any = None,
) -> list[ProbeResult]:
    """Every probe over the runs it applies to; one asked for by name must apply to some."""
    from dataclasses import replace

    from lmcli.errors import TextError

    results = []
    for name, (member, settings) in probes.items():
        reasons = {s.name: member.applies(s, material, settings) for s in subjects}
        left_out = list(dict.fromkeys(r for r in reasons.values() if r))
        mine = [s for s in subjects if reasons[s.name] is None]
        if said:
            said(f"probe {name}: {', '.join(s.arch for s in mine) or 'left out'}")
        if mine:
            result = member.run(mine, material, settings, seed)
            results.append(replace(result, notes=[*result.notes, *left_out]))
        elif len(probes) == 1:
            raise TextError(
                f"probe {name} does not apply: {left_out[0]}", "lmcli probe RUN runs what does"
            )
        elif said:
            said(f"  {'; '.join(left_out)}")
    return results


# ------------------------------------------------------------------ what is shown


def one_result(result: ProbeResult) -> Any:
    """Picture, table, verdict of one probe."""
    from lmcli.report.result import Passage, Result

    return Result("probe", result.to_json(), [*_blocks(result), Passage(result.verdict)])


def _blocks(result: ProbeResult) -> list[Any]:
    from lmcli.report.result import Table

    blocks: list[Any] = list(result.figures) if result.rows else []
    if result.table:
        blocks.append(Table("", result.columns, result.table, "\n".join(result.notes)))
    return blocks


def all_results(results: Sequence[ProbeResult]) -> Any:
    """Pictures and verdicts of all probes, and a summary: a row a run, a column a probe."""
    from lmcli.report.result import Column, Passage, Result, Table, text

    blocks: list[Any] = []
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        blocks += list(result.figures) if result.rows else []
        blocks += [Passage(n) for n in result.notes]
        blocks.append(Passage(f"{result.probe}: {result.verdict}\n"))
        for row in result.summary:
            mine = rows.setdefault(row["run"], {"run": row["run"], "arch": row["arch"]})
            mine[result.probe] = row["figure"]
    columns = [Column("name", text("run"))]
    columns += [Column(r.probe, text(f"{r.probe} {UNITS.get(r.probe, '')}")) for r in results]
    shown = [row | {"name": Path(row["run"]).name} for row in rows.values()]
    blocks.append(Table("summary", columns, shown))
    values = {
        "probe": "all",
        "rows": list(rows.values()),
        "verdict": ". ".join(f"{r.probe}: {r.verdict}" for r in results),
        "probes": [r.to_json() for r in results],
    }
    return Result("probe", values, blocks)


UNITS = {
    "recall": "(reaches back)",
    "context": "(of use)",
    "echo": "(copies)",
    "gradient": "(1/1000 at lag)",
    "halflife": "(of units)",
}
