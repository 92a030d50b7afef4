"""A run for others: a folder that can be sampled from without torch.

**In:** a trained run whose architecture has a stepper.
**Out:** a run of its own, weights only, with a page that says how to use it.

What is written is a run like any other, so that every command takes it; only those that need no
more than a stepper (`lmcli sample`) do so on a machine without torch.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lmcli.errors import RunError, UnknownNameError
from lmcli.registry import NUMPY_MODELS
from lmcli.run import OURS, RECORD, WEIGHTS, Run, check_free
from lmcli.storage import read_tensors, remove, replacing, storage, write_bytes

README, TITLE = "README.txt", "A language model made by lmcli"


def export_numpy(run: Run, path: Path, force: bool = False) -> Run:
    """Write the run to a new folder; one that exists is an error, or with `force` replaced."""
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
    # an older run lacks the settings that came later; here all are written down
    record = replace(run.record, settings=asdict(model.settings))
    with replacing(path, (*OURS, README) if _has_page(path) else OURS) as folder:
        exported = Run.create(folder, record, run.tokenizer)
        try:
            exported.save_weights(model.tensors(), int(about.get("step", 0)))
            write_bytes(folder / README, page(exported).encode("utf-8"))
        except BaseException:  # half an export is none
            with suppress(OSError):
                remove(folder, (*OURS, README))
            raise
    return Run(path, record, run.tokenizer)


def _has_page(path: Path) -> bool:
    """Whether README.txt is that of an earlier export, not the user's own."""
    file = path / README
    with storage(file):
        return file.is_file() and file.read_bytes().startswith(TITLE.encode())


def page(run: Run) -> str:
    """What a reader of the folder has to know."""
    return f"""{TITLE}: {run.record.arch}, {run.record.tokenizer} tokens.

    run.json              architecture, settings, where it was trained
    tokenizer.json        text <-> numbers
    weights.safetensors   the weights, float32

It needs Python with lmcli, numpy and safetensors (and tokenizers, for bpe), but not torch:

    pip install numpy safetensors typer rich
    pip install --no-deps lmcli    (or the folder of its source)
    lmcli sample FOLDER --prompt "..."

From Python, in this folder:

{SNIPPET}"""


SNIPPET = """\
    from pathlib import Path
    from lmcli.run import Run
    from lmcli.generation.numpy_models.base import open_numpy_model
    from lmcli.generation.sampling import SamplingSettings, sample
    run = Run.open(Path("."))
    model = open_numpy_model(run)
    print(*sample(model, run.tokenizer, "The ", 200, SamplingSettings(), seed=0), sep="")
"""
