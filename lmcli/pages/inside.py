"""The gates of one model while it reads an example, and samples of all models side by side.

**In:** a `Subject`.
**Out:** a `Section` each.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from lmcli.errors import LmcliError
from lmcli.evaluation.inspection import inspect_text
from lmcli.generation.generate import Samples
from lmcli.generation.sampling import SamplingSettings
from lmcli.pages.recall import Example
from lmcli.pages.subject import Subject
from lmcli.report.progress import OnProgress
from lmcli.report.result import Column, Section, Strips, Table, text

GATED = ("lstm", "gru", "minlstm", "mingru", "rnn", "hybrid")
"""whose inside is shown: the first of these that there is"""
EXAMPLE = 120
"""characters of the example"""
LENGTHS = {"char": 300, "byte": 300, "word": 60, "bpe": 90}
"""of a sample, in tokens"""
TEMPERATURE = 0.8
READ = (
    "Each column is a token of the text, each row a value while it is read: bits is how surprising "
    "the token was, the others are means over all units. A forget gate near 1 keeps what the cell "
    "holds, an input gate near 0 lets nothing new in."
)
CAUTION = (
    "A mean over units hides what single units do, and one text is an example; lmcli inspect also "
    "shows single units."
)


def gates_section(
    subject: Subject, documents: Sequence[str], on_progress: OnProgress
) -> Section | None:
    """None where no model has anything to look at, or no text is at hand."""
    archs = {run.record.arch: name for name, run in reversed(subject.firsts.items())}
    arch = next((arch for arch in GATED if arch in archs), None)
    example = example_text(subject, documents)
    if arch is None or not example:
        return None
    run = subject.firsts[archs[arch]]
    try:
        result = inspect_text(run, example, on_progress=on_progress).result()
    except LmcliError:
        return None
    blocks = [
        replace(block, read=READ, caution=CAUTION) if isinstance(block, Strips) else block
        for block in result.blocks
    ]
    again = f"lmcli inspect {shlex.quote(str(run.path))} {shlex.quote(example)}"
    return Section(f"Inside the {archs[arch]}", blocks, f"The same in a terminal: {again}")


def example_text(subject: Subject, documents: Sequence[str]) -> str:
    """A short text with its answer from the items, or the beginning of the held-out part."""
    if subject.items is not None and (example := Example.of(subject.items, longest_gap=10)):
        return example.text + example.answer
    beginning = " ".join("".join(documents)[: 2 * EXAMPLE].split())
    if len(beginning) <= EXAMPLE:
        return beginning
    return beginning[:EXAMPLE].rpartition(" ")[0] or beginning[:EXAMPLE]


def samples_section(subject: Subject, on_progress: OnProgress) -> Section:
    """What each model writes, without a prompt and with the same seed."""
    rows = []
    for name, run in subject.firsts.items():
        samples = Samples(
            run, "", SamplingSettings(TEMPERATURE), length=LENGTHS.get(run.record.tokenizer, 100),
            stops=(), count=1, seed=0, on_progress=on_progress,
        )  # fmt: skip
        rows.append({"name": name, "text": next(samples.texts()).text.strip()})
    columns = [Column("name", text("model")), Column("text", text("text"))]
    read = f"Each text is the first that the model wrote (seed 0, temperature {TEMPERATURE})."
    caution = "A sample shows style, not memory: a model that forgets can still write fluently."
    return Section("What they write", [Table("", columns, rows, read=read, caution=caution)])
