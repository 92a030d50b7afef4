"""A run for others: without torch, as ONNX, or in the layout of the Hugging Face Hub.

**In:** a trained run.
**Out:** a folder, and what was written (`Export`). That of ``--to numpy`` is a run of its own,
weights only, so every command reads it; those that need only the NumPy model (`lmcli sample`) also
run on a machine without torch. The others: onnx_export.py, hf_export.py; they are read by
`load_tokenizer` and `load_hf`.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lmcli.errors import RunError, UnknownNameError, UsageError, did_you_mean
from lmcli.folder_replacement import remove, replacing
from lmcli.generation.export_folder import load_tokenizer as load_tokenizer
from lmcli.generation.hf_export import export_hf
from lmcli.generation.hf_export import load_hf as load_hf
from lmcli.generation.onnx_export import export_onnx
from lmcli.registry import NUMPY_MODELS
from lmcli.report.result import COUNT, Column, Facts, Reportable, Result, text
from lmcli.run import OURS, RECORD, WEIGHTS, Run, check_free
from lmcli.storage import storage, write_bytes
from lmcli.tensor_files import read_tensors
from lmcli.write_lock import locked

README, TITLE = "README.txt", "A language model made by lmcli"


@dataclass(frozen=True)
class Export(Reportable):
    """What was written, and where."""

    run: str
    to: str
    output: str
    bytes: int
    arch: str

    def result(self) -> Result:
        """The facts, and the next command."""
        columns = [Column(name, text(name)) for name in ("output", "arch", "to")]
        columns.append(Column("bytes", COUNT, "bytes"))
        values = asdict(self)
        path = shlex.quote(self.output)
        command = f"lmcli sample {path}" if self.to == "numpy" else f"cat {path}/README.md"
        return Result("export", values, [Facts(columns, values)], [command])


def export_run(run: Run, to: str, output: Path | None, force: bool) -> Export:
    """Write the run in a form that others can use; `output` is RUN-KIND if not given."""
    if to not in WRITERS:
        raise UsageError(f"--to {to}: no such choice", did_you_mean(to, WRITERS))
    source = run.path if run.path.name not in ("", "..") else run.path.resolve()
    path = output or source.with_name(f"{run.name}-{to}")
    exported = WRITERS[to](run, path, force)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return Export(str(run.path), to, str(path), size, exported.record.arch)


def export_numpy(run: Run, path: Path, force: bool = False) -> Run:
    """Write the run to a new folder; one that exists is an error, or with `force` replaced."""
    with locked(path):
        return _export_numpy(run, path, force)


def _export_numpy(run: Run, path: Path, force: bool) -> Run:
    if run.record.arch not in NUMPY_MODELS.names():
        raise UnknownNameError(
            f"'{run.record.arch}' cannot run without torch yet",
            f"these can: {', '.join(NUMPY_MODELS.names())}",
        )
    if path.resolve() == run.path.resolve():
        raise RunError(f"'{path}' is the run itself", "choose another name with -o")
    if (path / RECORD).is_file() and not force:
        raise RunError(f"'{path}' exists", "--force replaces it, -o gives another name")
    check_free(path, force)
    model = run.model()
    _, about = read_tensors(run.path / WEIGHTS)
    # an older run lacks settings that were added later; the export has all
    record = replace(run.record, settings=asdict(model.settings)).for_others()
    with replacing(path, (*OURS, README) if _has_page(path) else OURS) as folder:
        exported = Run.create(folder, record, run.tokenizer)
        try:
            exported.save_weights(model.tensors(), int(about.get("step", 0)))
            write_bytes(folder / README, page(exported).encode("utf-8"))
        except BaseException:  # an incomplete export is removed
            with suppress(OSError):
                remove(folder, (*OURS, README))
            raise
    return Run(path, exported.record, run.tokenizer)


def _has_page(path: Path) -> bool:
    """Whether README.txt is that of an earlier export, not the user's own."""
    file = path / README
    with storage(file):
        return file.is_file() and file.read_bytes().startswith(TITLE.encode())


_MINIMAL = "the state before it is taken as 0"
START_RULES = {
    "lstm": "the output is h computed from h = c = 0; the state after it is h = c = 0",
    "gru": "r = z = 0, so that h = tanh(W_n x + b_n)",
    "rnn": "the state before it is taken as 0, so that h = f(W x + b)",
    "mingru": _MINIMAL,
    "minlstm": _MINIMAL,
    "window": "all tokens before it are read as this token too",
    "hybrid": "the LSTM's output is h computed from h = c = 0; the state after it is h = c = 0; "
    "and it is the first token of every context of the n-gram",
    "ngram": "it is the first token of every context; none before it is looked at",
}
"""for who computes a model anew: without the rule the first tokens are off by 0.6 nats and more"""


def page(run: Run) -> str:
    """How to use the folder."""
    return f"""{TITLE}: {run.record.arch}, {run.record.tokenizer} tokens.

    run.json              architecture, settings, where it was trained
    tokenizer.json        text <-> numbers
    weights.safetensors   the weights, float32

A document begins with the token {run.record.vocabulary}, which is read and never predicted. At it
{START_RULES[run.record.arch]}.

It needs Python with lmcli, numpy and safetensors (and tokenizers, for bpe), but not torch:

    pip install numpy safetensors typer rich
    pip install --no-deps lmcli    (or the folder of its source)
    lmcli sample FOLDER --prompt "..."

From Python, in this folder:

    import lmcli
    print(*lmcli.sample(".", "The ", length=200, seed=0), sep="")
"""


WRITERS = {"numpy": export_numpy, "onnx": export_onnx, "hf": export_hf}
"""writers by the name of the form"""
