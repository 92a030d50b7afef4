"""The best possible scores of a text that a grammar has made.

**In:** a `Dataset`, and what the grammar has written beside its text.
**Out:** a row of a comparison: no model can do better on these very documents.
"""

from __future__ import annotations

import math
from typing import Any

from lmcli.data.dataset import Dataset
from lmcli.grammars.base import find_companions
from lmcli.registry import GRAMMARS
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.settings import update

NO_TRAINING = (
    "parameters",
    "body_parameters",
    "tokens_seen",
    "seconds",
    "tokens_per_second",
    "flops_per_token",
    "learning_rate",
    "run",
)


def optimum_row(dataset: Dataset, on_progress: OnProgress = warnings_only) -> dict[str, Any] | None:
    """A row named optimum; None for a text that no grammar has made as it is."""
    grammar = made_by(dataset, on_progress)
    if grammar is None:
        return None
    row: dict[str, Any] = dict.fromkeys(NO_TRAINING) | {"name": "optimum", "arch": "optimum"}
    for name, held_out in (("valid", dataset.valid), ("test", dataset.test)):
        if held_out is None:
            row[name] = None
            continue
        part, tokens = held_out.part, held_out.targets
        lines = (line for document in part.documents for line in document.splitlines())
        try:
            nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        except ValueError:
            return None  # edited by hand: the optimum is not known any more
        row[name] = {
            "nats_per_token": nats / tokens,
            "perplexity": math.exp(nats / tokens),
            "bits_per_char": nats / math.log(2) / part.chars,
            "standard_error": None,
        }
    return row | {"seeds": []}


def made_by(dataset: Dataset, on_progress: OnProgress = warnings_only) -> Any:
    """The grammar that made the text and knows its optimum, by the about file beside it."""
    texts = dataset.spec.texts
    about = find_companions(texts, on_progress).about if len(texts) == 1 else None
    if about is None or "filler" in about["recipe"]:  # the text of a user has no known optimum
        return None
    recipe = dict(about["recipe"])
    cls = GRAMMARS.load(recipe.pop("grammar"))
    grammar = cls(update(cls.Settings(), recipe))
    return grammar if hasattr(grammar, "token_log_probabilities") else None
