"""A run as an ONNX file that any runtime reads, checked against the run itself.

**In:** a trained run of any architecture but ngram and hybrid, whose tables of counts are no nets.
**Out:** a folder: model.onnx, the tokenizer, a page that says how to use them. Needs the extra
``[onnx]``: onnx to write the file, onnxruntime to compare its logits with the model's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmcli import __version__
from lmcli.errors import LmcliError, TrainingError, UnknownNameError
from lmcli.generation.export_folder import CARD, export_folder, write_config
from lmcli.generation.onnx_graph import LAYERS, onnx_model, state_names
from lmcli.registry import MODELS
from lmcli.storage import write_bytes

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel
    from lmcli.run import Run

FILE = "model.onnx"
SUPPORTED = (*LAYERS, "window", "attention")
TOLERANCE = 1e-5
"""difference of two logits, as a share of the largest or of 1"""
BATCH, LENGTH, CHUNKS = 3, 50, 4
"""what is read to compare: sequences, tokens, and how often the state is carried on"""


def export_onnx(run: Run, path: Path, force: bool = False) -> Run:
    """Write the folder; logits that differ from the model's are an error, and nothing is left."""
    record = run.record
    if record.arch not in SUPPORTED:
        known = ", ".join(name for name in MODELS.names() if name in SUPPORTED)
        problem = f"'{record.arch}' cannot be written as ONNX: it is a table of counts"
        if record.arch == "hybrid":
            problem = "'hybrid' cannot be written as ONNX: one part of it is a table of counts"
        elif record.arch != "ngram":
            problem = f"'{record.arch}' cannot be written as ONNX yet"
        raise UnknownNameError(problem, f"these can: {known}")
    try:
        import onnx
        import onnxruntime  # noqa: F401 - compares the file with the model
    except ModuleNotFoundError as error:
        problem = f"--to onnx needs {error.name}, which is not installed"
        raise LmcliError(problem, "pip install 'lmcli[onnx]'") from None
    model = run.model()
    about = {"lmcli": __version__, "arch": record.arch, "start_id": str(model.start_id)}
    with export_folder(run, path, FILE, force) as folder:
        proto = onnx_model(model, about)
        onnx.checker.check_model(proto)
        data = proto.SerializeToString()
        difference = largest_difference(model, data)
        if not difference <= TOLERANCE:
            problem = f"the ONNX file differs from the model by {difference:.1e}"
            raise TrainingError(problem, "please report this with the settings of the run")
        write_bytes(folder / FILE, data)
        write_config(folder, run, model)
        write_bytes(folder / CARD, page(run, model, difference).encode("utf-8"))
    return run


def largest_difference(model: LanguageModel, file: bytes) -> float:
    """Between logits over all chunks of random text; as a share of the largest, if that is > 1."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    draws = np.random.default_rng(0)
    ids = draws.integers(0, model.vocabulary, (BATCH, LENGTH * CHUNKS))
    ids[:, 0] = model.start_id
    ids[draws.random(ids.shape) < 0.02] = model.start_id  # new documents within the text
    names, state = state_names(model), model.initial_state(BATCH)
    carried = [part.numpy() for part in state]
    worst = largest = 0.0
    for tokens in np.split(ids, CHUNKS, axis=1):
        with torch.inference_mode():
            logits, state = model(torch.from_numpy(tokens), state)
        found, *carried = session.run(
            None, {"tokens": tokens, **dict(zip(names, carried, strict=True))}
        )
        worst = max(worst, float(np.abs(found - logits.numpy()).max()))
        largest = max(largest, float(logits.abs().max()))
    return worst / max(1.0, largest)


def page(run: Run, model: LanguageModel, difference: float) -> str:
    """How to use the folder."""
    rows = []
    for name, part in zip(state_names(model), model.initial_state(1), strict=True):
        shape = ", ".join(["batch", *map(str, part.shape[1:])])
        start = "0" if part.is_floating_point() else str(model.start_id)
        kind = "float32" if part.is_floating_point() else "int64"
        rows.append(f"| `{name}` -> `{name}_after` | {kind} ({shape}) | {start} |")
    states = {
        name: [list(part.shape[1:]), str(part.numpy().dtype), int(part.flatten()[:1].sum())]
        for name, part in zip(state_names(model), model.initial_state(1), strict=True)
    }
    return PAGE.format(
        arch=run.record.arch,
        tokenizer=run.record.tokenizer,
        difference=difference,
        start=model.start_id,
        rows="\n".join(rows),
        states=json.dumps(states),
    )


PAGE = """# A language model made by lmcli: {arch}, {tokenizer} tokens

`model.onnx` reads token ids and a state, and gives the logits of the token after each, and the
state after the last. Batch and length are free. When it was written its logits differed from those
of the model in torch by {difference:.0e} of the largest, or less, over {length} tokens of carried
state.

| input -> output | type | first value |
|---|---|---|
| `tokens` -> `logits` | int64 (batch, length) -> float32 (batch, length, vocabulary) | |
{rows}

A document begins with the id {start}, which makes the model forget all before it.

```python
import numpy as np, onnxruntime
from lmcli.generation.export import load_tokenizer  # needs no torch

tokenizer, session = load_tokenizer("."), onnxruntime.InferenceSession("model.onnx")
shapes = {states}
state = {{name: np.full((1, *shape), value, kind) for name, (shape, kind, value) in shapes.items()}}
ids = np.array([[{start}, *tokenizer.encode("the ")]])
for _ in range(100):
    logits, *after = session.run(None, {{"tokens": ids, **state}})
    state = dict(zip(state, after))
    p = np.exp((logits[0, -1] - logits[0, -1].max()) / 0.8)
    ids = np.array([[np.random.choice(len(p), p=p / p.sum())]])
    print(tokenizer.decode(ids[0]), end="")
```
""".replace("{length}", str(LENGTH * CHUNKS))
