"""What ``lmcli train`` has made, as a Result."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmcli.run import Run
    from lmcli.training.job import Job
    from lmcli.training.trainer import Progress


@dataclass(frozen=True)
class Trained:
    """Where a training ended."""

    last: Progress
    best_step: int
    epochs: float
    precision: str


def values(run: Run, job: Job, done: Trained) -> dict[str, Any]:
    """The keys of ``lmcli train --json``; what is validated on is scored exactly, once more."""
    from lmcli.cli.console import warn_uncounted
    from lmcli.evaluation.perplexity import score_documents
    from lmcli.evaluation.score import Score

    model, last = run.model(), done.last
    encoded, valid = job.dataset.tokenized, job.dataset.valid
    score = Score.of(score_documents(model, encoded.tokenizer, valid.part.documents))
    warn_uncounted(score, run.path)
    return {
        "run": str(run.path),
        "arch": job.arch,
        "tokenizer": job.dataset.tokenizer,
        "parameters": model.parameter_count(),
        "vocabulary": encoded.tokenizer.size,
        "train_tokens": job.dataset.targets(),
        "tokens_seen": last.tokens,
        "epochs": done.epochs,
        "steps": last.step,
        "seconds": last.seconds,
        "tokens_per_second": last.tokens / max(last.seconds, 1e-9),
        "valid": {
            "nats_per_token": score.nats_per_token,
            "bits_per_char": score.bits_per_char,
            "perplexity": score.perplexity,
            "standard_error": score.standard_error,
            "tokens": score.tokens,
            "share": valid.share,
        },
        "best_step": done.best_step,
        "stopped": last.done,
        "device": job.device,
        "precision": done.precision,
        "workers": job.workers,
    }


def result(run: Run, found: dict[str, Any]) -> Any:
    """The table and the next commands; kept in the run."""
    from lmcli.report.result import (
        BITS_PER_CHAR,
        COUNT,
        EPOCHS,
        NATS,
        PARAMETERS,
        PER_SECOND,
        PERPLEXITY,
        SECONDS,
        Column,
        Facts,
        Result,
        text,
    )

    columns = [
        Column("run", text("run")),
        Column("parameters", PARAMETERS),
        Column("vocabulary", COUNT, "vocabulary"),
        Column("tokens_seen", COUNT, "tokens seen"),
        Column("epochs", EPOCHS),
        Column("seconds", SECONDS),
        Column("tokens_per_second", PER_SECOND),
        Column("valid.nats_per_token", NATS),
        Column("valid.perplexity", PERPLEXITY),
        Column("valid.bits_per_char", BITS_PER_CHAR),
    ]
    path = shlex.quote(str(run.path))
    made = Result(
        "train",
        found,
        [Facts(columns, found)],
        [f"lmcli sample {path}", f"lmcli eval {path} --split test"],
    )
    run.save_result("train", made.to_json())
    return made
