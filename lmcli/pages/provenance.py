"""How everything was made: text, settings, versions, and the command lines to repeat it.

**In:** a `Subject`.
**Out:** a `Section` of facts and a table of settings.
"""

from __future__ import annotations

from typing import Any

from lmcli.pages.subject import Subject
from lmcli.report.result import COUNT, Block, Column, Facts, Metric, Section, Table, text

SETTINGS = (
    Column("name", text("model")),
    Column("seed", Metric("seed")),
    Column("tokenizer", text("tokenizer")),
    Column("vocabulary", COUNT, "vocabulary"),
    Column("rate", Metric("learning rate", 5)),
    Column("batch", Metric("batch")),
    Column("truncation", Metric("truncation")),
    Column("settings", text("settings")),
)


def provenance_section(subject: Subject, command: str) -> Section:
    """All that somebody needs to make the same page again."""
    record = subject.first.record
    corpus = record.corpus
    facts = {
        "texts": ", ".join(corpus["texts"]),
        "sha256": corpus["sha256"],
        "split": f"{corpus['split']}, a document is a {corpus['options']['documents']}",
        "budget": ", ".join(f"{v:g} {n}" for n, v in record.budget.items() if v is not None),
        "device": record.device,
        "versions": ", ".join(f"{name} {v}" for name, v in record.versions.items()),
        "command": record.command,
        "page": command,
    }
    named = {
        "texts": "text", "sha256": "its SHA-256 checksum", "split": "held out by",
        "budget": "budget of each training", "device": "device", "versions": "versions",
        "command": "trained with", "page": "this page",
    }  # fmt: skip
    columns = [Column(name, text(named[name])) for name, value in facts.items() if value]
    rows = [_row(name, run) for name, seeds in subject.runs.items() for run in seeds]
    blocks: list[Block] = [
        Facts(columns, facts),
        Table("settings of each training", SETTINGS, rows),
    ]
    return Section("How this was made", blocks)


def _row(name: str, run: Any) -> dict[str, Any]:
    record, training = run.record, run.record.training
    shown = (f"{n}={v}" for n, v in record.settings.items() if v not in (None, False, 0, 0.0))
    return {
        "name": name,
        "seed": record.seed,
        "tokenizer": record.tokenizer,
        "vocabulary": record.vocabulary,
        "rate": training.get("learning_rate"),
        "batch": training.get("batch"),
        "truncation": training.get("truncation"),
        "settings": ", ".join(shown),
    }
