"""``lmcli train``: one model on a text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.preparing import Job, TextChoice
    from lmcli.run import Run
    from lmcli.training import Progress, Trainer

DEFAULT_MINUTES = 3.0


def train(
    ctx: typer.Context,
    texts: o.Texts = None,
    output: Annotated[
        Path | None,
        o.option("--output", "-o", about="Folder of the run.", default="runs/ARCH", metavar="RUN"),
    ] = None,
    arch: Annotated[
        str | None,
        o.option(
            "--arch", about="Architecture; lmcli list shows all.", default="lstm", metavar="NAME"
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        o.option("--tokenizer", about="byte, char, word or bpe.", default="char", metavar="NAME"),
    ] = None,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    epochs: o.Epochs = None,
    settings: o.Set = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.Split = "interleaved",
    documents: o.Documents = None,
    newlines: o.Newlines = "keep",
    encoding: o.Encoding = "utf-8",
    errors: o.Errors = "strict",
    seed: Annotated[
        int | None,
        o.option(
            "--seed",
            about="Seed of all randomness.",
            default="0",
            callback=o.check_seed,
            metavar="N",
        ),
    ] = None,
    device: o.Device = "auto",
    resume: Annotated[
        bool, o.option("--resume", about="Go on with the run where it stopped.")
    ] = False,
    force: o.Force = False,
    slim: Annotated[
        bool, o.option("--slim", about="Delete what only --resume needs when done.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Train one model on a text.

    [bold]Examples[/]

      lmcli train my.txt -o runs/mine

      lmcli train my.txt --arch gru --tokenizer word --minutes 10

      lmcli train names.txt --documents line --steps 2000

      lmcli train --resume -o runs/mine
    """
    from lmcli.cli.screen import emit, note
    from lmcli.errors import UsageError
    from lmcli.preparing import TextChoice
    from lmcli.run import check_free

    o.one_of("split", split, ("interleaved", "tail"))
    budget = o.budget(minutes, steps, epochs, DEFAULT_MINUTES)
    shown = not quiet and not as_json
    if resume:
        run, job = _resumed(output, texts or [], _asked(ctx), settings or [], shown)
    else:
        if not texts:
            raise UsageError("no text to train on", "for example lmcli train my.txt")
        arch, tokenizer = arch or "lstm", tokenizer or "char"
        path = output or o.free_name(Path("runs"), arch)
        check_free(path, force)
        reading = o.text_options(encoding, errors, newlines, documents, texts)
        choice = TextChoice(tuple(texts), reading, split, tuple(valid or ()), tuple(test or ()))
        job = _job(choice, arch, tokenizer, settings or [], budget, seed or 0, device, shown)
        run = job.create(path, force)
    for line in _choices(job, verbose) if shown else []:
        note(line)
    values = _train(run, job, resume, shown)
    if slim:
        run.slim()
    emit(_result(run, values), as_json, quiet)


def _job(
    choice: TextChoice,
    arch: str,
    tokenizer: str,
    settings: list[str],
    budget: Any,
    seed: int,
    device: str,
    shown: bool,
) -> Job:
    from lmcli.cli.screen import preparation_bar
    from lmcli.preparing import check_pairs, command_line, prepare_job, prepare_source
    from lmcli.settings import split_pairs

    pairs = split_pairs(settings)
    check_pairs(pairs, [arch], tokenizer)
    with preparation_bar(shown) as meter:
        source = prepare_source(choice, tokenizer, pairs, meter)
    return prepare_job(source, arch, pairs, budget, seed, device, command=command_line())


BUDGETS = ("minutes", "steps", "epochs")
READING = ("split", "valid", "test", "documents", "newlines", "encoding", "errors")
FIXED = (*BUDGETS, *READING, "arch", "tokenizer", "seed", "device")
"""options that a run has made its own: --resume may repeat them, not change them"""


def _asked(ctx: typer.Context) -> dict[str, Any]:
    """Those of the fixed options that were given, by flag, environment or config."""
    sources = {name: ctx.get_parameter_source(name) for name in FIXED}
    given = [name for name, source in sources.items() if source and source.name != "DEFAULT"]
    return {name: ctx.params[name] for name in given if ctx.params[name] is not None}


def _resumed(
    output: Path | None,
    texts: list[str],
    asked: Mapping[str, Any],
    settings: list[str],
    shown: bool,
) -> tuple[Run, Job]:
    """An existing run and its job; an option that differs from the recorded one is an error."""
    from lmcli.cli.screen import preparation_bar
    from lmcli.errors import UsageError
    from lmcli.preparing import check_pairs, reopen
    from lmcli.run import Run
    from lmcli.settings import split_pairs

    if output is None:
        raise UsageError("--resume needs the run", "lmcli train --resume -o RUN")
    run = Run.open(output)
    pairs = split_pairs(settings)
    check_pairs(pairs, [run.record.arch], run.record.tokenizer)
    _check_unchanged(run, asked, pairs)
    with preparation_bar(shown) as meter:
        job = reopen(run, tuple(texts), meter)
    if not job.counts:
        run.load_training()  # a checkpoint that is missing or damaged shows before anything else
    return run, job


def _check_unchanged(run: Run, asked: Mapping[str, Any], pairs: Mapping[str, str]) -> None:
    """A RunError that names the first difference between what is asked for and what was."""
    from lmcli.devices import pick_device
    from lmcli.errors import RunError

    record = run.record
    recorded = {**record.training, **record.settings, **record.tokenizer_settings}
    recorded |= {"arch": record.arch, "tokenizer": record.tokenizer, "seed": record.seed}
    recorded |= record.budget | record.corpus["options"] | {"device": record.device}
    recorded |= {name: record.corpus[name] for name in ("split", "valid", "test")}
    budget = next(f"--{n} {record.budget[n]:g}" for n in BUDGETS if record.budget[n] is not None)
    flags = {name: f"--{name} {value}" for name, value in asked.items()}
    flags |= {name: f"--set {name}={value}" for name, value in pairs.items()}
    for name, value in {**asked, **pairs}.items():
        wanted = pick_device(value) if name == "device" else value
        if not _same(wanted, recorded.get(name)):
            before = f"budget {budget}" if name in BUDGETS else f"{name} {recorded.get(name)}"
            raise RunError(
                f"{flags[name]} differs from the run's {before}",
                "leave it out to go on, or train a new run",
            )


def _same(a: Any, b: Any) -> bool:
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a).lower() == str(b).lower()


def _choices(job: Job, verbose: bool) -> list[str]:
    """What was chosen, for the user to see."""
    from lmcli.devices import pick_precision
    from lmcli.recipes import describe_choice

    encoded, corpus = job.source.encoded, job.source.corpus
    model = job.model()
    tokens = len(encoded.train)
    lines = [
        f"text: {corpus.train.chars:,} characters to train on, {corpus.valid.chars:,} to validate; "
        f"{tokens:,} {job.source.tokenizer} tokens, {encoded.tokenizer.size:,} different",
        *([_sampled(job)] if job.source.valid.share < 1 else []),
        describe_choice(job.arch, job.settings, job.training),
    ]
    if verbose:
        precision = pick_precision(job.training.precision, job.device)
        lines.append(
            f"{model.parameter_count():,} parameters, {precision} on {job.device}; "
            f"validating on {job.source.valid.targets:,} tokens; budget: {_budget(job)}"
        )
    return lines


def _sampled(job: Job) -> str:
    valid = job.source.valid
    return (
        f"of the validation part {valid.share:.2%} is scored, {valid.targets:,} tokens from all "
        "over it; lmcli eval RUN --split valid scores all"
    )


def _budget(job: Job) -> str:
    given = {name: getattr(job.budget, name) for name in BUDGETS}
    return "".join(f"{value:g} {name}" for name, value in given.items() if value is not None)


def _train(run: Run, job: Job, resume: bool, shown: bool) -> dict[str, Any]:
    """Train to the end of the budget, or to Ctrl-C; the values of the train result."""
    from lmcli.devices import pick_precision
    from lmcli.keeping import count_into
    from lmcli.keeping import resume as restore

    if job.counts:
        model = job.model()
        progress = count_into(run, model, job.source.encoded.train, job.source.valid.stream)
        return _values(run, job, progress, 1, 1.0, "float64")
    trainer = job.trainer()
    lines = restore(run, trainer) if resume else 0
    last = _loop(run, job, trainer, lines, shown)
    precision = pick_precision(job.training.precision, job.device)
    epochs = trainer.step / trainer.streams.steps_per_epoch
    return _values(run, job, last, trainer.best_step, epochs, precision)


def _loop(run: Run, job: Job, trainer: Trainer, log_lines: int, shown: bool) -> Progress:
    """Drive the trainer, draw the bar, obey Ctrl-C."""
    from lmcli.cli.screen import TrainingBars, graceful_stop, note
    from lmcli.keeping import train_into
    from lmcli.training import Progress

    chars = job.source.valid.part.chars / trainer.valid_targets
    last = Progress(
        trainer.step, trainer.fraction, trainer.tokens, trainer.seconds, 0.0, 0.0, trainer.best
    )
    loop = train_into(run, trainer, log_lines)
    with graceful_stop() as stop, TrainingBars(shown, chars) as bars:
        for last in loop:
            bars.show(job.arch, last)
            if stop:
                break
        loop.close()
    if stop and last.done is None:
        again = shlex.join(["lmcli", "train", "--resume", "-o", str(run.path)])
        note(f"stopped at step {last.step}; go on with: {again}")
        raise typer.Exit(stop.exit_code)
    return last


def _values(
    run: Run, job: Job, last: Progress, best_step: int, epochs: float, precision: str
) -> dict[str, Any]:
    """The keys of ``lmcli train --json``; what is validated on is scored exactly, once more."""
    from lmcli.scoring import Score, score_pieces

    model = run.model()
    encoded, valid = job.source.encoded, job.source.valid
    score = Score.of(score_pieces(model, encoded.tokenizer, valid.part.pieces))
    return {
        "run": str(run.path),
        "arch": job.arch,
        "tokenizer": job.source.tokenizer,
        "parameters": model.parameter_count(),
        "vocabulary": encoded.tokenizer.size,
        "train_tokens": job.source.targets(),
        "tokens_seen": last.tokens,
        "epochs": epochs,
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
        "best_step": best_step,
        "stopped": last.done,
        "device": job.device,
        "precision": precision,
    }


def _result(run: Run, values: dict[str, Any]) -> Any:
    from lmcli.result import (
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
    result = Result(
        "train",
        values,
        [Facts(columns, values)],
        [f"lmcli sample {path}", f"lmcli eval {path} --split test"],
    )
    run.save_result("train", result.to_json())
    return result
