"""What the server knows and computes: models, texts, threads.

**In:** requests that were checked (`schemas`).
**Out:** answers (`schemas`).

One thread reads and samples with the NumPy models, a keystroke at a time; another one works with
torch: blanks and gates. Torch is loaded by the second one when the server starts, so that neither
the first page nor the first keystroke waits for it.
"""

from __future__ import annotations

import math
import random
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcli.errors import RunError
from lmcli.evaluation.score import Score
from lmcli.report.colors import css_variables
from lmcli.report.progress import Message
from lmcli.web import schemas
from lmcli.web.models import Model, Models
from lmcli.web.questions import EXAMPLE, command, first_prompt, known_question, own_texts
from lmcli.web.reading import Reading, Token
from lmcli.web.streams import TextStream
from lmcli.web.workers import SLICE, Deadline, Lane, one_thread

if TYPE_CHECKING:
    from lmcli.evaluation.activations import Activations

LN2 = math.log(2)
READ_SECONDS, TEXT_SECONDS, TORCH_SECONDS, FIGURE_SECONDS = 30.0, 120.0, 60.0, 300.0
"""that a request may take"""
GATES_KEPT = 8
VARYING = 8
"""units that are suggested"""


class Service:
    """The models with the threads that work on them."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.texts = own_texts(models)
        self.question = known_question(models)
        self._numpy, self._torch = one_thread("numpy"), one_thread("torch")
        self._figures = one_thread("figures")  # they may take half a minute
        self.fast = Lane(self._numpy, active=8, most=256, seconds=READ_SECONDS)
        self.texts_lane = Lane(self._numpy, active=16, most=128, seconds=TEXT_SECONDS)
        self.slow = Lane(self._torch, active=4, most=64, seconds=TORCH_SECONDS)
        self.figures_lane = Lane(self._figures, active=1, most=4, seconds=FIGURE_SECONDS)
        self._inside: OrderedDict[tuple[str, str], Activations] = OrderedDict()

    def warm_up(self) -> None:
        """Open what the page begins with, before it is asked for."""
        for model in (self.models[name] for name in self.models.shown):
            self._numpy.submit(getattr, model, "reader")
            self._torch.submit(model.run.model)

    def close(self) -> None:
        """Drop what waits."""
        for thread in (self._numpy, self._torch, self._figures):
            thread.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------- reading

    async def open(self, model: Model) -> None:
        """Have the thread of the NumPy models open this one; only that thread may use it."""
        await self.fast.run(partial(getattr, model, "reader"))

    async def read(
        self, model: Model, text: str, deadline: Deadline, typing: bool = False
    ) -> Reading:
        """The text as the model reads it, in slices, as far as it can be read while typed."""

        def read() -> Reading | None:
            return model.reader.read(model.reader.typed(text) if typing else text, SLICE)

        while True:
            deadline.check()
            reading = await self.fast.run(read)
            if reading is not None:
                return reading

    # -------------------------------------------------------------- sampling

    async def sample(
        self, body: schemas.SampleRequest, chosen: Sequence[Model], deadline: Deadline
    ) -> AsyncIterator[str]:
        """Pieces of the texts of all runs as they are made, by turns; then the figures of each."""
        from lmcli.generation.sampling import GenerationStats, SamplingSettings

        settings = SamplingSettings(body.temperature, body.top_k, body.top_p, body.min_p)
        seed = random.SystemRandom().randrange(2**31) if body.seed is None else body.seed
        stats = {model.name: GenerationStats() for model in chosen}
        running = [
            TextStream(
                model, body.prompt, body.length, settings, [seed], body.stop, [stats[model.name]]
            )
            for model in chosen
        ]
        while running:
            deadline.check()
            for stream in list(running):
                name = stream.model.name
                text = "".join(chunk for _, chunk, _ in await self.texts_lane.run(stream.slice))
                event: dict[str, Any] = {"model": name, "text": text, "done": stream.ended}
                if stream.ended:
                    running.remove(stream)
                    own = stats[name]
                    event |= {"tokens": own.tokens, "nats": own.nats, "seed": seed}
                yield _json(event)

    # -------------------------------------------------------------- with torch

    async def cloze(
        self, body: schemas.ClozeRequest, chosen: Sequence[Model], deadline: Deadline
    ) -> schemas.ClozeResponse:
        """The rows of ``lmcli cloze``, run by run."""
        from lmcli.evaluation.cloze import Question

        def ask() -> Question:
            gaps = None
            if body.gaps is not None and body.filler is not None:
                gaps = {gap: self.texts[body.filler].fillers(gap) for gap in body.gaps}
            return Question.of(body.text, body.candidates, body.swap, gaps, body.top)

        question = await self.slow.run(ask)
        rows, said, warnings = list[schemas.ClozeRow](), list[Any](), list[str]()
        for model in chosen:
            deadline.check()
            remarks: list[Message] = []
            found = await self.slow.run(partial(_answer, model, question, remarks))
            rows += [schemas.ClozeRow(**row | {"model": model.name}) for row in found.rows]
            said.append({"model": model.name, "words": found.words})
            warnings += [f"{model.name}: {remark.text}" for remark in remarks]
        example = None
        if question.longest is not None:
            example = {"gap": question.longest, "text": question.example(), "answers": said}
        options = {
            "text": body.text,
            "candidates": ",".join(body.candidates or ()),
            "swap": body.swap,
            "gaps": ",".join(map(str, body.gaps or ())),
            "filler": self.texts[body.filler].path if body.filler and body.gaps else None,
        }
        line = command([str(model.run.path) for model in chosen], options)
        return schemas.ClozeResponse(rows=rows, example=example, command=line, warnings=warnings)

    def inspect(self, model: Model, body: schemas.InspectRequest) -> schemas.InspectResponse:
        """One unit along a text; for a run that has no gates none."""
        read = self._read_inside(model, body.text)
        if read is None:
            return schemas.InspectResponse(model=model.name, gates=[])
        names = read.matching(body.gate)
        first = next((name for name in names if name.endswith("cell")), names[0])
        gate = body.gate if body.gate in names else first
        varying = read.most_varying(gate, VARYING)
        unit = varying[0] if body.unit is None else body.unit
        values, means = read.unit(gate, unit).tolist(), read.average(gate).tolist()
        most = max(1.0, *map(abs, values))
        signed = bool(read.values[gate].min() < 0)
        rows = zip(read.tokens, read.nats.tolist(), values, means, strict=True)
        return schemas.InspectResponse(
            model=model.name,
            gates=[schemas.Gate(name=n, units=v.shape[1]) for n, v in read.values.items()],
            gate=gate,
            unit=unit,
            low=-most if signed else 0.0,
            high=most,
            most_varying=varying,
            tokens=[schemas.InspectToken(text=t, nats=n, value=v, mean=m) for t, n, v, m in rows],
        )

    def _read_inside(self, model: Model, text: str) -> Activations | None:
        """The readings of the latest texts are kept."""
        from lmcli.evaluation.activations import read_inside, record

        tokenizer, key = model.run.tokenizer, (model.name, text)
        if key not in self._inside:
            while len(self._inside) >= GATES_KEPT:
                self._inside.popitem(last=False)
            if not record(model.run.model(), [tokenizer.encode(text[:1]).tolist()]):
                return None
            self._inside[key] = read_inside(model.run.model(), tokenizer, [text])
        self._inside.move_to_end(key)
        return self._inside[key]

    @cached_property
    def figures(self) -> str:
        """The page of the comparison, from what was saved: that of ``lmcli report``."""
        from lmcli.pages.report import lead, page_sections, page_title
        from lmcli.pages.subject import Subject
        from lmcli.report.html import page

        folder = self.models.comparison
        if folder is None:
            raise RunError("no comparison is served", "lmcli serve runs/compare")
        subject = Subject.open(folder, lambda event: None)
        line = shlex.join(["lmcli", "report", str(folder)])
        sections = page_sections(subject, False, line, lambda event: None)
        return page(page_title(subject), sections, lead(subject))

    # -------------------------------------------------------------- about

    def model_list(self) -> schemas.ModelList:
        """All runs."""
        cards = [
            schemas.ModelCard(
                id=name,
                created=int(model.run.weights_file().stat().st_mtime),
                color=model.arch,
                shown=name in self.models.shown,
                **model.about(),
            )
            for name, model in self.models.items()
        ]
        return schemas.ModelList(data=cards, fillers=list(self.texts))

    def page(self) -> dict[str, Any]:
        """What the page begins with."""
        question = self.question
        return {
            **self.model_list().model_dump(),
            "prompt": first_prompt(self.models, question),
            "question": None if question is None else question.to_json(),
            "example": EXAMPLE,
            "has_comparison": self.models.comparison is not None,
        }


def _answer(model: Model, question: Any, remarks: list[Message]) -> Any:
    from lmcli.evaluation.cloze import answer

    return answer(model.run, question, lambda event: remarks.append(event))


def _json(values: Any) -> str:
    import json

    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def next_of(model: Model, reading: Reading, body: schemas.NextRequest) -> schemas.ModelNext:
    """The likeliest next tokens, and how surprising those before them were."""
    unread = body.prompt.removeprefix(reading.scored.text)
    logs, ids = reading.after, reading.scored.ids
    p = np.exp(logs)
    known = p > 0
    tokens = token_scores(reading)
    unseen = dict.fromkeys(t.text.strip() or t.text for t in tokens if t.unknown)
    return schemas.ModelNext(
        model=model.name,
        next=[_next_token(t, unread) for t in model.reader.likeliest(logs, ids.tolist(), body.top)],
        entropy_bits=float(-(p[known] * logs[known]).sum() / LN2),
        tokens=tokens if body.score else None,
        unknown=list(unseen),
    )


def _next_token(token: Token, unread: str) -> schemas.NextToken:
    fits = token.text.startswith(unread) and not token.unknown
    return schemas.NextToken(
        text=token.text.removeprefix(unread) if fits else "",
        symbol=token.symbol,
        probability=math.exp(token.log_probability),
        log_probability=token.log_probability,
        unknown=token.unknown,
    )


def token_scores(reading: Reading) -> list[schemas.TokenScore]:
    """The tokens of a text with their surprisal."""
    scored = reading.scored
    if not scored.text:
        return []
    columns = zip(scored.spans(), scored.ids.tolist(), scored.nats.tolist(), strict=True)
    return [
        schemas.TokenScore(
            text=scored.text[begin:end], nats=nats, bits=nats / LN2, unknown=i == scored.unknown
        )
        for (begin, end), i, nats in columns
    ]


def score_of(model: Model, reading: Reading) -> schemas.ModelScore:
    """The sums of ``lmcli eval``."""
    score = Score.of([reading.scored])
    return schemas.ModelScore(
        model=model.name,
        tokens=token_scores(reading),
        nats=score.nats,
        perplexity=score.perplexity if math.isfinite(score.perplexity) else None,
        bits_per_char=score.bits_per_char if math.isfinite(score.bits_per_char) else None,
        unknown_tokens=score.unknown_tokens,
    )


def colors_css() -> str:
    """The colours of all figures, light and dark."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(dark=True)} }} }}"
    return f":root {{ {css_variables(dark=False)} }}\n{dark}\n"
