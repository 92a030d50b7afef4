"""What ``lmcli report`` does: the page of a run or a comparison.

**In:** a folder, the name of the page, folders for PNG and CSV if they are wanted.
**Out:** a `Report`: where everything is. Nothing that was saved is computed again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lmcli import __version__
from lmcli.errors import LmcliError
from lmcli.evaluation.comparison import Comparison
from lmcli.evaluation.filler_cost import cost_tables
from lmcli.evaluation.ranking_table import ranking_table
from lmcli.evaluation.row_memory import recall_tables
from lmcli.pages.export import csv_files, paths, png_files
from lmcli.pages.inside import gates_section, samples_section
from lmcli.pages.learning import learning_section
from lmcli.pages.memory import memory_section
from lmcli.pages.passages import held_out, passages_section
from lmcli.pages.provenance import provenance_section
from lmcli.pages.recall import recall_section
from lmcli.pages.subject import Subject
from lmcli.report.html import page
from lmcli.report.progress import Message, OnProgress, Stage, warnings_only, without_notes
from lmcli.report.result import (
    COUNT,
    Column,
    Facts,
    Figure,
    Reportable,
    Result,
    Section,
    Table,
    text,
)
from lmcli.run import Run
from lmcli.storage import check_output, write_output
from lmcli.training.demo import Demo
from lmcli.training.launch import train_result


@dataclass(frozen=True)
class Report(Reportable):
    """A page that was written, and the files beside it."""

    source: Path
    page: Path
    bytes: int
    figures: int
    tables: int
    png: tuple[Path, ...] = ()
    csv: tuple[Path, ...] = ()

    def result(self) -> Result:
        """What was written, and where."""
        files = {"png": self.png, "csv": self.csv}
        values = {"source": str(self.source), "page": str(self.page), "bytes": self.bytes}
        values |= {"figures": self.figures, "tables": self.tables}
        values |= {kind: [str(path) for path in some] for kind, some in files.items()}
        columns = [Column("page", text("page")), Column("bytes", COUNT, "bytes")]
        columns += [Column(name, COUNT, name) for name in ("figures", "tables")]
        written = {kind: some for kind, some in files.items() if some}
        shown = {kind: f"{len(s)} files in {s[0].parent}" for kind, s in written.items()}
        columns += [Column(kind, text(kind.upper())) for kind in shown]
        return Result("report", values, [Facts(columns, values | shown)])


def write_report(
    run: Run | str | Path,
    page_file: str | Path | None,
    png_folder: str | Path | None = None,
    csv_folder: str | Path | None = None,
    probes: bool = True,
    force: bool = False,
    on_progress: OnProgress = warnings_only,
) -> Report:
    """Write the page; with `probes` what it lacks of memory curves is measured first."""
    source = run.path if isinstance(run, Run) else Path(run)
    name = source.resolve().name
    output = Path(page_file) if page_file else source.resolve().with_name(f"{name}.html")
    png, csv = (Path(folder) if folder else None for folder in (png_folder, csv_folder))
    check_output(output, force)
    for folder in filter(None, (png, csv)):
        check_output(folder / "any", force=True)
    subject = Subject.open(source, on_progress)
    command = shlex.join(["lmcli", "report", str(source), "-o", str(output)])
    sections = page_sections(subject, probes, command, on_progress)
    on_progress(Stage("drawing the page", 0, 0, ""))
    about = f"Made by lmcli {__version__}."
    shown = page(page_title(subject), sections, lead(subject), about).encode()
    files = {
        "png": paths(png, png_files(sections) if png else {}),
        "csv": paths(csv, csv_files(sections) if csv else {}),
    }
    for path in (path for some in files.values() for path in some):
        check_output(path, force)
    _write({output: shown} | files["png"] | files["csv"])
    blocks = [block for section in sections for block in section.blocks]
    figures, tables = (sum(isinstance(b, kind) for b in blocks) for kind in (Figure, Table))
    return Report(source, output, len(shown), figures, tables, *map(tuple, files.values()))


Paged = TypeVar("Paged", Comparison, Demo)


def with_page(found: Paged, page_file: Path | None, on_progress: OnProgress) -> Paged:
    """The same with its page written; a page that fails is a warning, as the rest is saved."""
    if page_file is None:
        return found
    folder = found.folder if isinstance(found, Comparison) else found.comparison.folder
    try:
        write_report(folder, page_file, probes=False, force=True, on_progress=on_progress)
    except LmcliError as error:
        on_progress(Message(f"no page: {error.problem}; {error.hint}", "warning"))
        return found
    on_progress(Message(f"page: {page_file}"))
    return replace(found, page=page_file)


def _write(contents: Mapping[Path, bytes]) -> None:
    for path, content in contents.items():
        write_output(path, content)


def page_title(subject: Subject) -> str:
    """What the page is about, in a line."""
    names = list(subject.runs)
    many = f"{len(names)} small language models remember"
    one = f"the {names[0]} remembers"
    return f"What {many if len(names) > 1 else one} of {subject.text_name}"


def lead(subject: Subject) -> str:
    """What this is, for somebody who was not there."""
    names = list(subject.runs)
    if len(names) == 1:
        return "A small language model that was trained to guess the next token of a text."
    return (
        f"{', '.join(names[:-1])} and {names[-1]} were trained to guess the next token of the same "
        "text, under the same conditions. How far back does each of them remember?"
    )


def page_sections(
    subject: Subject, probes: bool, command: str, on_progress: OnProgress
) -> list[Section]:
    """The page from top to bottom."""
    told = without_notes(on_progress)
    told(Stage("reading what was saved", 0, 0, ""))
    found = [recall_section(subject), scores_section(subject), learning_section(subject)]
    found.append(memory_section(subject, probes, told))
    told(Stage("reading held-out text", 0, 0, ""))
    found.append(passages_section(subject, told))
    found.append(gates_section(subject, held_out(subject, told), told))
    told(Stage("writing samples", 0, 0, ""))
    found += [samples_section(subject, told), provenance_section(subject, command)]
    return [section for section in found if section is not None]


def scores_section(subject: Subject) -> Section | None:
    """The ranking with verdicts, or what the training of a run came to."""
    if subject.values is None:
        trained = subject.first.result("train")
        return Section("The training", train_result(trained).blocks) if trained else None
    ranking = ranking_table(subject.values)
    first = [c for c in ranking.columns if c.path in ("name", "verdict")]
    first += [c for c in ranking.columns if c.path.endswith((".bits_per_char", ".perplexity"))]
    others = [c for c in ranking.columns if c not in first]
    tables = [replace(ranking, columns=[*first, *others]), *cost_tables(subject.rows)]
    if not subject.is_france:
        tables[1:1] = recall_tables(subject.rows)
    return Section("Which one predicts the text best", tables)
