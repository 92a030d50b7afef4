"""A run in the layout of the Hugging Face Hub: safetensors, config.json, a model card.

**In:** a trained run.
**Out:** a folder that can be uploaded as it is, and `load_hf`, which reads it again.
transformers is needed for neither: its classes hold no such architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import RunError
from lmcli.generation.export_folder import (
    CARD,
    export_folder,
    load_tokenizer,
    read_config,
    write_config,
)
from lmcli.registry import MODELS
from lmcli.report.result import BITS_PER_CHAR, PARAMETERS, PERPLEXITY, Metric
from lmcli.run import Run
from lmcli.storage import read_json, write_bytes
from lmcli.tensor_files import write_tensors

if TYPE_CHECKING:
    from lmcli.models.base import LanguageModel

FILE = "model.safetensors"


class ExportedRun(Run):
    """A model in the layout of the Hub; it can be scored, sampled and probed like a run."""

    def weights_file(self) -> Path:
        """Where the weights are."""
        if not (self.path / FILE).is_file():
            raise RunError(f"'{self.path}' has no {FILE}", "export the run again")
        return self.path / FILE


def load_hf(path: str | Path) -> Run:
    """A model that was written by ``lmcli export --to hf``, for every function that takes a run."""
    path = Path(path)
    return ExportedRun(path, read_config(path), load_tokenizer(path))


def export_hf(run: Run, path: Path, force: bool = False) -> Run:
    """Write the folder; one that exists is an error, or with `force` replaced."""
    model = run.model()
    with export_folder(run, path, FILE, force) as folder:
        record = write_config(folder, run, model)
        write_tensors(folder / FILE, model.tensors(), {"run": record.id})
        write_bytes(folder / CARD, model_card(run, model).encode("utf-8", "replace"))
    return ExportedRun(path, record, run.tokenizer)


# ------------------------------------------------------------------ the card


def model_card(run: Run, model: LanguageModel) -> str:
    """What the model is, what it was trained on, how good it is, how far back it remembers."""
    record = run.record
    texts = ", ".join(Path(name).name for name in record.corpus["texts"])
    settings = ", ".join(f"{k}={v}" for k, v in vars(model.settings).items() if v is not None)
    return CARD_PAGE.format(
        arch=record.arch,
        summary=MODELS.summary(record.arch),
        tokenizer=record.tokenizer,
        vocabulary=f"{record.vocabulary:,}",
        parameters=PARAMETERS.show(model.parameter_count()),
        settings=settings,
        texts=texts,
        sha256=record.corpus["sha256"],
        seed=record.seed,
        budget=_budget(record.budget),
        version=record.versions.get("lmcli", "?"),
        scores=_scores(run.result("train") or {}),
        memory=_memory(run, model),
    )


def _budget(budget: Mapping[str, Any]) -> str:
    given = [f"{value:g} {name}" for name, value in budget.items() if value is not None]
    return given[0] if given else "as long as it needs"


def _scores(result: Mapping[str, Any]) -> str:
    """A row for the validation and the test part, as far as they were scored."""
    rows = []
    for part in ("valid", "test"):
        if score := result.get(part):
            bits = BITS_PER_CHAR.show(score["bits_per_char"], score.get("standard_error"))
            rows.append(f"| {part} | {PERPLEXITY.show(score['perplexity'])} | {bits} |")
    head = "| held-out part | perplexity per token | bits per character |\n|---|---|---|\n"
    return head + "\n".join(rows) if rows else "The run was exported before it was scored."


def _memory(run: Run, model: LanguageModel) -> str:
    """What can be remembered, and what was measured where the run is one of a comparison."""
    limit = model.context_length
    seen = "Its architecture sets no limit to how far back it sees"
    if limit is not None:
        seen = f"It sees the last {limit:,} tokens"
    floats = Metric("state").show(model.state_size)
    lines = [f"{seen}; its state holds {floats} numbers."]
    reach = _measured_reach(run)
    if reach is None:
        lines.append("How far back it remembers was not measured: `lmcli probe` does that.")
    elif reach["tokens"]:
        least = "at least " if reach.get("at_least") else ""
        lines.append(
            f"In its comparison a word or fact helped {least}{reach['tokens']:,} tokens on."
        )
    else:
        lines.append("In its comparison no help of words further back was shown.")
    return " ".join(lines)


def _measured_reach(run: Run) -> Mapping[str, Any] | None:
    """The reach of its row in the comparison that the run lies in."""
    file = run.path.resolve().parent / "comparison.json"
    if not file.is_file():
        return None
    for row in read_json(file).get("rows", ()):
        names = [row.get("run"), *(seed.get("run") for seed in row.get("seeds") or ())]
        if run.name in {Path(name).name for name in names if name}:
            reach: dict[str, Any] = row.get("reach") or {}
            return reach if reach.get("tokens") is not None else None
    return None


CARD_PAGE = """---
library_name: lmcli
pipeline_tag: text-generation
tags:
- lmcli
- {arch}
---

# {arch}, {tokenizer} tokens

{summary}

| | |
|---|---|
| parameters | {parameters} |
| vocabulary | {vocabulary} {tokenizer} tokens |
| settings | {settings} |
| text | {texts} |
| sha256 of the text | `{sha256}` |
| budget | {budget}, seed {seed} |
| made with | lmcli {version} |

## Scores

{scores}

Every token of a part is scored once, given all before it in its document.

## Memory

{memory}

## Use

```python
import lmcli
from lmcli.generation.export import load_hf

run = load_hf(".")
print("The ", *lmcli.sample(run, "The ", length=200), sep="")
print(lmcli.evaluate(run, "other.txt").to_json()["bits_per_char"])
```

A small model of one text: it says what that text says, and knows nothing else.
"""
