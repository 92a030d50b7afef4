"""``lmcli train``: one model on a text."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcli.cli import options as o

if TYPE_CHECKING:
    from lmcli.cli.trained import Trained
    from lmcli.data.corpus import CorpusSpec
    from lmcli.run import Run
    from lmcli.training.distributed import Workers
    from lmcli.training.job import Job
    from lmcli.training.trainer import Progress, Trainer

DEFAULT_MINUTES = 3.0


Output = Annotated[
    Path | None,
    o.option("--output", "-o", about="Folder of the run.", default="runs/ARCH", metavar="RUN"),
]
Arch = Annotated[
    str | None,
    o.option("--arch", about="Architecture; lmcli list shows all.", default="lstm", metavar="NAME"),
]
Tokenizer = Annotated[
    str | None,
    o.option(
        "--tokenizer",
        about="byte, char, word or bpe; lmcli list shows all.",
        default="char",
        metavar="NAME",
    ),
]
Seed = Annotated[
    int | None,
    o.option(
        "--seed", about="Seed of all randomness.", default="0", callback=o.check_seed, metavar="N"
    ),
]
Processes = Annotated[
    int | None,
    o.option(
        "--workers",
        about="Processes that share each batch; on several machines use torchrun.",
        default="1, or as the run to resume",
        min=1,
        metavar="N",
    ),
]
Resume = Annotated[bool, o.option("--resume", about="Go on with the run where it stopped.")]
Slim = Annotated[bool, o.option("--slim", about="Delete what only --resume needs when done.")]


def train(
    ctx: typer.Context,
    texts: o.Texts = None,
    output: Output = None,
    arch: Arch = None,
    tokenizer: Tokenizer = None,
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
    seed: Seed = None,
    device: o.Device = "auto",
    workers: Processes = None,
    resume: Resume = False,
    force: o.Force = False,
    slim: Slim = False,
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

      lmcli train my.txt --workers 2

      torchrun --nproc-per-node=2 -m lmcli train my.txt -o runs/mine
    """
    from lmcli.cli.console import emit, note
    from lmcli.cli.launching import joined, launch, processes
    from lmcli.cli.resuming import asked
    from lmcli.cli.trained import result, values
    from lmcli.errors import UsageError
    from lmcli.run import check_free
    from lmcli.settings import split_pairs

    o.one_of("split", split, ("interleaved", "tail"))
    budget = o.budget(minutes, steps, epochs, DEFAULT_MINUTES)
    if not texts and not resume:
        raise UsageError("no text to train on", "for example lmcli train my.txt")
    if resume and output is None:
        raise UsageError("--resume needs the run", "lmcli train --resume -o RUN")
    path = output or o.free_name(Path("runs"), arch or "lstm")
    count, several = processes(workers, path if resume else None)
    if several and "-" in (texts or ()):
        raise UsageError("several workers cannot share standard input", "name a file")
    if count:
        raise typer.Exit(launch(ctx.obj, count, path))
    shown = not quiet and not as_json
    with joined(path) as group:
        shown = shown and group.first
        if resume:
            run, job = _taken_up(group, path, texts or [], asked(ctx), settings or [], shown)
        else:
            held_out = split, valid, test
            choice = o.text_choice(texts, *held_out, encoding, errors, newlines, documents)
            with group.one_before_the_others():
                if group.first:
                    check_free(path, force)
                pairs, size = split_pairs(settings or []), group.size
                job = _job(choice, arch, tokenizer, pairs, budget, seed or 0, device, size, shown)
            run = _begun(group, path, job, force)
        for line in _choices(job, verbose) if shown else ():
            note(line)
        done = _train(run, job, resume, group, shown)
    if group.first:
        if slim:
            run.slim()
        emit(result(run, values(run, job, done)), as_json, quiet)


def _taken_up(
    group: Workers,
    path: Path,
    texts: list[str],
    asked: dict[str, Any],
    settings: list[str],
    shown: bool,
) -> tuple[Run, Job]:
    """The run that --resume goes on with, and its job."""
    from lmcli.cli.resuming import resumed

    with group.one_before_the_others():
        run, job = resumed(path, texts, asked, settings, shown)
    return (run if group.first else job.onlooker(path)), job


def _begun(group: Workers, path: Path, job: Job, force: bool) -> Run:
    """A new run; one that writes nothing where another process does."""
    group.place(job.device)
    group.check_same(job.essence())
    return job.create(path, force) if group.first else job.onlooker(path)


def _job(
    choice: CorpusSpec,
    arch: str | None,
    tokenizer: str | None,
    pairs: dict[str, str],
    budget: Any,
    seed: int,
    device: str,
    workers: int,
    shown: bool,
) -> Job:
    from lmcli.cli.progress import preparation_bar
    from lmcli.data.dataset import load_dataset
    from lmcli.training.job import check_pairs, command_line, prepare_job

    arch, tokenizer = arch or "lstm", tokenizer or "char"
    check_pairs(pairs, [arch], tokenizer)
    with preparation_bar(shown) as on_progress:
        dataset = load_dataset(choice, tokenizer, pairs, on_progress)
    command = command_line()
    return prepare_job(dataset, arch, pairs, budget, seed, device, command=command, workers=workers)


def _choices(job: Job, verbose: bool) -> list[str]:
    """What was chosen, for the user to see."""
    from lmcli.system import pick_precision
    from lmcli.training.defaults import describe_defaults

    encoded, corpus = job.dataset.tokenized, job.dataset.corpus
    model = job.model()
    together = f" | {job.workers} workers" if job.workers > 1 else ""
    tokens = len(encoded.train)
    lines = [
        f"text: {corpus.train.chars:,} characters to train on, {corpus.valid.chars:,} to validate; "
        f"{tokens:,} {job.dataset.tokenizer} tokens, {encoded.tokenizer.size:,} different",
        *([_sampled(job)] if job.dataset.valid.share < 1 else []),
        describe_defaults(job.arch, job.settings, job.training) + together,
    ]
    if verbose:
        precision = pick_precision(job.training.precision, job.device)
        lines.append(
            f"{model.parameter_count():,} parameters, {precision} on {job.device}; "
            f"validating on {job.dataset.valid.targets:,} tokens; budget: {_budget(job)}"
        )
    return lines


def _sampled(job: Job) -> str:
    valid = job.dataset.valid
    return (
        f"of the validation part {valid.share:.2%} is scored, {valid.targets:,} tokens from all "
        "over it; lmcli eval RUN --split valid scores all"
    )


def _budget(job: Job) -> str:
    given = vars(job.budget)
    return "".join(f"{value:g} {name}" for name, value in given.items() if value is not None)


def _train(run: Run, job: Job, resume: bool, group: Workers, shown: bool) -> Trained:
    """Train to the end of the budget, or to Ctrl-C."""
    from lmcli.cli.trained import Trained
    from lmcli.system import pick_precision
    from lmcli.training.checkpoint import count_into
    from lmcli.training.checkpoint import resume as restore

    if job.counts:
        model = job.model()
        progress = count_into(run, model, job.dataset.tokenized.train, job.dataset.valid.stream)
        return Trained(progress, 1, 1.0, "float64")
    trainer = job.trainer(group)
    lines = restore(run, trainer) if resume else 0
    group.check_same(f"step {trainer.step} of {job.essence()}")
    last = _loop(run, job, trainer, lines, shown)
    precision = pick_precision(job.training.precision, job.device)
    epochs = trainer.step / trainer.streams.steps_per_epoch
    return Trained(last, trainer.best_step, epochs, precision)


def _loop(run: Run, job: Job, trainer: Trainer, log_lines: int, shown: bool) -> Progress:
    """Drive the trainer, draw the bar, obey Ctrl-C."""
    from lmcli.cli.console import note
    from lmcli.cli.progress import TrainingBars, graceful_stop
    from lmcli.training.checkpoint import train_into
    from lmcli.training.trainer import Progress

    chars = job.dataset.valid.part.chars / trainer.valid_targets
    last = Progress(
        trainer.step, trainer.fraction, trainer.tokens, trainer.seconds, 0.0, 0.0, trainer.best
    )
    loop, left = train_into(run, trainer, log_lines), False
    with graceful_stop() as stop, TrainingBars(shown, chars) as bars:
        for last in loop:
            bars.show(job.arch, last)
            left = trainer.workers.leave(bool(stop))
            if left:
                break
        loop.close()
        trainer.workers.part()
    if left and last.done is None:
        if trainer.workers.first:
            again = shlex.join(["lmcli", "train", "--resume", "-o", str(run.path)])
            note(f"stopped at step {last.step}; go on with: {again}")
        raise typer.Exit(stop.exit_code if stop else 128 + signal.SIGTERM)
    return last
