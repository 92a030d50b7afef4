"""Several architectures on one text under one protocol -> a ranking with paired differences.

**In:** a source, the members to train, a budget each; or runs that exist.
**Out:** `Standing` per architecture, `Difference` between each and the best.

Members are trained side by side, each on its own share of the cores, because two small trainings
on one core each get through more text than one on two. Learning rates come from a race within the
budget: three rates start, the best on validation goes on.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmcli.corpus import Corpus
from lmcli.errors import LmcliError, TrainingError
from lmcli.grammars.base import companions, read_about
from lmcli.preparing import Job, Source
from lmcli.registry import GRAMMARS
from lmcli.run import Run
from lmcli.scoring import RESAMPLES, Floats, Score, score_pieces
from lmcli.settings import update
from lmcli.training import Budget, Progress, Trainer, count_into, train_into

RACE_RATES = (0.5, 1.0, 2.0)
"""learning rates that are tried, as multiples of the recipe's"""
RACE_SHARE = 0.04
"""share of the budget that each trial gets"""


@dataclass(frozen=True)
class Member:
    """One training of a comparison."""

    name: str
    job: Job
    path: Path
    race: bool
    """whether the learning rate is to be found"""


@dataclass(frozen=True)
class Outcome:
    """What came of a member. Seconds and tokens are those of the race and the training."""

    name: str
    arch: str
    seed: int
    run: str
    parameters: int
    body_parameters: int
    flops_per_token: int
    tokens_seen: int
    seconds: float
    learning_rate: float | None
    valid: Score
    test: Score | None

    @property
    def held_out(self) -> Score:
        """The test part, or the validation part where there is no other."""
        return self.test or self.valid


@dataclass(frozen=True)
class Event:
    """Something a member reports while it is trained."""

    member: str
    progress: Progress | None = None
    outcome: Outcome | None = None
    error: tuple[str, str, str] | None = None
    """kind, problem and hint of what went wrong"""


# ------------------------------------------------------------------ training one member


def train_member(member: Member) -> Iterator[Event]:
    """Race, train, score; everything is kept in the member's run."""
    job = member.job
    run = job.create(member.path, force=True)
    if job.counts:
        model = job.model()
        encoded = job.source.encoded
        progress = count_into(run, model, encoded.train, encoded.valid)
        yield Event(member.name, progress)
        tokens, seconds, rate = progress.tokens, progress.seconds, None
    else:
        trainer, spent = race(job) if member.race else (job.trainer(), 0.0)
        job = replace(job, training=trainer.settings)
        run = job.create(member.path, force=True)
        for progress in train_into(run, trainer):
            yield Event(member.name, progress)
        tokens, seconds = trainer.tokens, trainer.seconds + spent
        rate = trainer.settings.learning_rate
    run.slim()
    valid, test = score_parts(run, job.source.corpus)
    yield Event(member.name, outcome=_outcome(member, run, job, tokens, seconds, rate, valid, test))


def race(job: Job) -> tuple[Trainer, float]:
    """The trainer whose learning rate did best in a short trial, and what the others cost.

    The winner keeps what it has learnt; the budget shrinks by the seconds that the losers took.
    """
    share = RACE_SHARE
    rate = job.training.learning_rate or 2e-3
    rates = [rate * factor for factor in RACE_RATES]
    trials = []
    for trial_rate in rates:
        trainer = replace(job, training=replace(job.training, learning_rate=trial_rate)).trainer()
        loss = math.inf
        with suppress(TrainingError):
            for progress in trainer.run(until=share):
                loss = progress.loss
            loss = trainer.measure()
        trials.append((loss, trainer))
    _, winner = min(trials, key=lambda trial: trial[0])
    spent = sum(t.seconds for _, t in trials if t is not winner)
    winner.shorten(spent, share * (len(rates) - 1))
    return winner, spent


def score_parts(run: Run, corpus: Corpus) -> tuple[Score, Score | None]:
    """The validation and the test part under the best weights, exactly."""
    model, tokenizer = run.model(), run.tokenizer
    valid = Score.of(score_pieces(model, tokenizer, corpus.valid.pieces))
    if corpus.test is None:
        return valid, None
    return valid, Score.of(score_pieces(model, tokenizer, corpus.test.pieces))


def _outcome(
    member: Member,
    run: Run,
    job: Job,
    tokens: int,
    seconds: float,
    rate: float | None,
    valid: Score,
    test: Score | None,
) -> Outcome:
    model = run.model()
    return Outcome(
        name=member.name,
        arch=job.arch,
        seed=job.seed,
        run=str(member.path),
        parameters=model.parameter_count(),
        body_parameters=model.body_parameters(),
        flops_per_token=model.flops_per_token(),
        tokens_seen=tokens,
        seconds=seconds,
        learning_rate=rate,
        valid=valid,
        test=test,
    )


# ------------------------------------------------------------------ side by side


def train_members(members: Sequence[Member], workers: int) -> Iterator[Event]:
    """Train all, `workers` at a time in processes of their own; leaving the loop ends them."""
    if workers <= 1 or len(members) == 1:
        for member in members:
            yield from train_member(member)
        return
    yield from _Pool(members, workers).run()


class _Pool:
    """Worker processes, one slot of cores each."""

    def __init__(self, members: Sequence[Member], workers: int) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.events: Any = self.context.Queue()
        self.waiting = list(members)
        self.slots = share_cores(workers)
        self.running: dict[str, tuple[Any, int]] = {}
        self.free = list(range(workers))

    def run(self) -> Iterator[Event]:
        """Events of all members until the last outcome."""
        try:
            self._fill()
            while self.running:
                event = self._next_event()
                if event.error:
                    raise LmcliError(*event.error[1:])
                if event.outcome:
                    process, slot = self.running.pop(event.member)
                    process.join()
                    self.free.append(slot)
                    self._fill()
                yield event
        finally:
            for process, _ in self.running.values():
                process.terminate()
            for process, _ in self.running.values():
                process.join()

    def _fill(self) -> None:
        while self.free and self.waiting:
            slot, member = self.free.pop(0), self.waiting.pop(0)
            arguments = (member, self.slots[slot], self.events)
            process = self.context.Process(target=_work, args=arguments, daemon=True)
            with _deaf_to_ctrl_c():  # which is inherited: the parent decides
                process.start()
            self.running[member.name] = (process, slot)

    def _next_event(self) -> Event:
        while True:
            with suppress(queue.Empty):
                event: Event = self.events.get(timeout=1.0)
                return event
            for name, (process, _) in self.running.items():
                if not process.is_alive() and self.events.empty():
                    raise TrainingError(
                        f"the training of {name} ended with code {process.exitcode}",
                        "there may be too little memory: try --workers 1",
                    )


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Put SIGINT off for a moment, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def share_cores(workers: int) -> list[list[int]]:
    """The cores this process may use, dealt out evenly.

    >>> [len(s) for s in share_cores(1)] == [len(available_cores())]
    True
    """
    cores = available_cores()
    each = max(1, len(cores) // workers)
    return [(cores * workers)[i * each : (i + 1) * each] for i in range(workers)]


def available_cores() -> list[int]:
    """The numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _work(member: Member, cores: list[int], events: Any) -> None:
    """A worker process: train one member on its cores."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    last = 0.0
    try:
        for event in train_member(member):
            due = event.progress is None or event.progress.logged or event.progress.done
            if due or (event.progress and event.progress.seconds - last > 0.25):
                last = event.progress.seconds if event.progress else last
                events.put(event)
    except LmcliError as error:
        problem = f"{member.name}: {error.problem}"
        events.put(Event(member.name, error=(type(error).__name__, problem, error.hint)))
    except Exception:
        traceback.print_exc()
        raise


# ------------------------------------------------------------------ ranking


@dataclass(frozen=True)
class Standing:
    """One row of the ranking: an architecture over its seeds."""

    name: str
    arch: str
    outcomes: Sequence[Outcome]

    def mean(self, value: Callable[[Outcome], float]) -> float:
        """A value averaged over seeds."""
        return sum(map(value, self.outcomes)) / len(self.outcomes)

    @property
    def bits_per_char(self) -> float:
        """On the held-out part; what rows are sorted by."""
        return self.mean(lambda o: o.held_out.bits_per_char)

    def to_json(self) -> dict[str, Any]:
        """A row of ``compare --json``."""
        first, count = self.outcomes[0], len(self.outcomes)
        tested = all(o.test for o in self.outcomes)
        return {
            "name": self.name,
            "arch": self.arch,
            "parameters": first.parameters,
            "body_parameters": first.body_parameters,
            "tokens_seen": self.mean(lambda o: o.tokens_seen),
            "seconds": self.mean(lambda o: o.seconds),
            "tokens_per_second": self.mean(lambda o: o.tokens_seen / max(o.seconds, 1e-9)),
            "flops_per_token": first.flops_per_token,
            "learning_rate": first.learning_rate,
            "valid": summary([o.valid for o in self.outcomes]),
            "test": summary([o.held_out for o in self.outcomes]) if tested else None,
            "seeds": [
                {"seed": o.seed, "run": o.run, "bits_per_char": o.held_out.bits_per_char}
                for o in self.outcomes
            ],
            "run": first.run if count == 1 else None,
        }


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Means over seeds; the standard error holds both the text's and the seeds' share."""
    bits = [s.bits_per_char for s in scores]
    text_error = float(np.mean([s.standard_error for s in scores]))
    seed_error = float(np.std(bits, ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else 0.0
    nats = float(np.mean([s.nats_per_token for s in scores]))
    return {
        "nats_per_token": nats,
        "perplexity": math.exp(nats) if nats < 700 else math.inf,
        "bits_per_char": float(np.mean(bits)),
        "standard_error": math.hypot(text_error, seed_error),
    }


@dataclass(frozen=True)
class Difference:
    """bits_per_char of a minus that of b on the same blocks, with a 95 % interval."""

    a: str
    b: str
    bits_per_char: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of a."""
        if self.low > 0:
            return "worse"
        return "better" if self.high < 0 else "no detectable difference"

    def to_json(self) -> dict[str, Any]:
        """An entry of ``differences``."""
        return {**vars(self), "verdict": self.verdict}


def paired_difference(
    a: str, a_scores: Sequence[Score], b: str, b_scores: Sequence[Score]
) -> Difference:
    """Paired bootstrap over blocks of text, and over seeds where there are several."""
    rng = np.random.default_rng(0)
    sizes = a_scores[0].block_chars
    blocks = len(sizes)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)

    def resampled(scores: Sequence[Score]) -> Floats:
        nats = counts @ np.stack([s.block_nats for s in scores]).T  # (RESAMPLES, seeds)
        seeds = rng.integers(len(scores), size=(RESAMPLES, len(scores)))
        mean: Floats = np.take_along_axis(nats, seeds, axis=1).mean(axis=1)
        return mean / (counts @ sizes) / math.log(2)

    apart = resampled(a_scores) - resampled(b_scores)
    low, high = np.percentile(apart, [2.5, 97.5])
    mean = np.mean([s.bits_per_char for s in a_scores]) - np.mean(
        [s.bits_per_char for s in b_scores]
    )
    return Difference(a, b, float(mean), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """All standings, best first, and each one's difference to the best."""

    standings: Sequence[Standing]
    differences: Sequence[Difference] = field(default_factory=tuple)

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Comparison:
        """Rank outcomes; those of one name are seeds of one row."""
        groups: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            groups.setdefault(outcome.name, []).append(outcome)
        standings = [Standing(name, g[0].arch, g) for name, g in groups.items()]
        standings.sort(key=lambda s: s.bits_per_char)
        best = standings[0]
        return cls(standings, [_against(s, best) for s in standings[1:]])


def _against(standing: Standing, best: Standing) -> Difference:
    scores = [[o.held_out for o in s.outcomes] for s in (standing, best)]
    return paired_difference(standing.name, scores[0], best.name, scores[1])


def protocol(job: Job, budget: Budget, match: str, seeds: int, workers: int) -> Mapping[str, Any]:
    """The conditions that were the same for all members."""
    return {
        "minutes": budget.minutes,
        "steps": budget.steps,
        "epochs": budget.epochs,
        "match": match,
        "seeds": seeds,
        "batch": job.training.batch,
        "truncation": job.training.truncation,
        "side_by_side": workers,
        "cores_each": len(share_cores(workers)[0]),
        "learning_rates": list(RACE_RATES),
        "race_share": RACE_SHARE,
        "device": job.device,
        "split": job.source.corpus.split.kind,
    }


# ------------------------------------------------------------------ the known optimum


def optimum_row(source: Source) -> dict[str, Any] | None:
    """What nobody can beat on these very documents, where the text was made by a grammar.

    The grammar itself says how likely each held-out document is.
    """
    grammar = made_by(source)
    if grammar is None:
        return None
    corpus, encoded = source.corpus, source.encoded
    parts = {"valid": (corpus.valid, encoded.valid), "test": (corpus.test, encoded.test)}
    row: dict[str, Any] = dict.fromkeys(NO_TRAINING) | {"name": "optimum", "arch": "optimum"}
    for name, (part, stream) in parts.items():
        if part is None or stream is None:
            row[name] = None
            continue
        lines = [line for piece in part.pieces for line in piece.splitlines()]
        try:
            nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        except ValueError:
            return None  # edited by hand: the optimum is not known any more
        tokens = int((stream != encoded.tokenizer.start).sum())
        row[name] = {
            "nats_per_token": nats / tokens,
            "perplexity": math.exp(nats / tokens),
            "bits_per_char": nats / math.log(2) / part.chars,
            "standard_error": None,
        }
    return row | {"seeds": []}


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


def made_by(source: Source) -> Any:
    """The grammar that made the text, by the about-file beside it; None for any other text."""
    if len(source.choice.texts) != 1 or not Path(source.choice.texts[0]).name:
        return None
    _, about = companions(Path(source.choice.texts[0]))
    if not about.is_file():
        return None
    recipe = dict(read_about(about)["recipe"])
    cls = GRAMMARS.load(recipe.pop("grammar"))
    grammar = cls(update(cls.Settings(), recipe))
    return grammar if hasattr(grammar, "token_log_probabilities") else None
