"""What the rows of a comparison score together: their mixture, beside the ranking.

**In:** the results of a comparison, the text that they were scored on.
**Out:** a row as JSON: the members, their weights, the score on the test part, the difference to
the best row. It has no place in the ranking, which is of single models, and no memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmcli.data.dataset import Dataset
from lmcli.evaluation.differences import Member, differences_to_best
from lmcli.evaluation.ensemble import Ensemble, fit_documents
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score
from lmcli.evaluation.trial_result import TrialResult
from lmcli.report.progress import OnProgress, warnings_only
from lmcli.run import Run


def mixed_row(
    results: Sequence[TrialResult], dataset: Dataset, on_progress: OnProgress = warnings_only
) -> dict[str, Any] | None:
    """The mixture of the first seed of each row that shares the best one's tokenizer.

    `results` are of one split, best first, one a row. None for fewer than two members, and without
    a test part: weights are fitted on validation.
    """
    if dataset.test is None or len(results) < 2:
        return None
    opened = [Run.open(Path(result.run)) for result in results]
    vocabulary = opened[0].tokenizer.to_json()
    kept = [n for n, run in enumerate(opened) if run.tokenizer.to_json() == vocabulary]
    if len(kept) < 2:
        return None
    runs = [opened[n] for n in kept]
    models = [run.model() for run in runs]
    mixture = fit_documents(runs, models, dataset.valid.part.documents, None, on_progress)
    ensemble, test = Ensemble(runs, models, mixture), dataset.test.part.documents
    score = Score.of(score_documents(models[0], runs[0].tokenizer, test, ensemble=ensemble))
    best = results[0]
    members = Member.of(best.name, [best.held_out], best.is_count_based), Member.of("mix", [score])
    (difference,) = differences_to_best(members)
    return {
        "name": "mix",
        "members": [results[n].name for n in kept],
        **{key: value for key, value in ensemble.to_json().items() if key.startswith("mix")},
        "test": {
            "nats_per_token": score.nats_per_token,
            "perplexity": score.perplexity,
            "bits_per_char": score.bits_per_char,
            "standard_error": score.standard_error,
        },
        "difference": difference.to_json(),
    }
