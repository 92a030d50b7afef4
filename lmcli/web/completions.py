"""``/v1/completions``: the interface of OpenAI's completions, so that existing clients work.

**In:** a request as ``openai.OpenAI(base_url=...).completions.create`` sends it.
**Out:** choices with text, log-probabilities and a reason to end, whole or as events. Without a
seed each text is another; with one, choice i of a prompt has the seed ``seed + i``, and its text is
that of ``lmcli sample --seed``.

Log-probabilities are those of the model itself: temperature 1, no filter.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lmcli.generation.numpy_models.base import Floats
from lmcli.generation.sampling import GenerationStats, SamplingSettings
from lmcli.web.models import Model
from lmcli.web.reading import CONTEXT, PrefixReader, Reading
from lmcli.web.schemas import (
    MOST_TEXTS,
    MOST_TOKENS,
    Name,
    Request,
    Seed,
    Share,
    Stop,
    Temperature,
    Text,
)
from lmcli.web.streams import TextStream
from lmcli.web.workers import SLICE, Deadline, Lane


class StreamOptions(Request):
    """What a stream holds beside texts."""

    include_usage: bool = False


class CompletionRequest(Request):
    """A request for completions; what these models cannot do may only have its default."""

    model: Name
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)] = ""
    max_tokens: int | None = Field(16, ge=0, le=MOST_TOKENS)
    temperature: Temperature | None = 1.0
    top_p: Share | None = 1.0
    n: int | None = Field(1, ge=1, le=MOST_TEXTS)
    stop: Stop | list[Stop] | None = None
    seed: Seed | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=1000)
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None


class Logprobs(BaseModel):
    """The tokens of a text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None = None
    text_offset: list[int]

    def add(self, text: str, log: float, offset: int) -> None:
        """One more token."""
        self.tokens.append(text)
        self.token_logprobs.append(log)
        self.text_offset.append(offset)


class Choice(BaseModel):
    """One text, or the next part of one."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """All texts, or a part of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class Recorder(GenerationStats):
    """The tokens of a text as they are drawn, with the likeliest in the place of each."""

    def __init__(self, reader: PrefixReader, top: int | None) -> None:
        super().__init__()
        self.reader, self.top = reader, top
        self.ids: list[int] = []
        self.logs: list[Floats] = []
        """ln q of every token in the place of each, until it has been given"""

    def add(self, token: int, nats: float, logits: Floats) -> None:
        """Keep the token and the distribution it was drawn from."""
        super().add(token, nats, logits)
        self.ids.append(token)
        if self.top is not None:
            self.logs.append(self.reader.log_probabilities(logits.copy()))


class _Choice:
    """A text on its way."""

    def __init__(self, index: int, stats: Recorder, before: Sequence[int], offset: int) -> None:
        self.index, self.stats, self.offset = index, stats, offset
        self.text = ""
        self.reason: Literal["stop", "length"] | None = None
        self._ids = list(before[-CONTEXT:])
        self._listed = self._place = 0  # tokens that were given, and where the next one begins
        self._held: str | None = None  # what the next token has written
        self._decoder = stats.reader.tokenizer.decoder()
        for token in before:
            self._decoder.push(token)  # so that the first token is written as after the prompt

    def push(self, text: str, last: bool, stream: TextStream) -> Choice:
        """The next piece of the text, with the tokens that it makes certain."""
        self.text += text
        if last:
            ended = self.stats.tokens == stream.length and not self._has_stop(stream.stops)
            self.reason = "length" if ended else "stop"
        logprobs = None if self.stats.top is None else self._logprobs(self.stats.top)
        return Choice(index=self.index, text=text, logprobs=logprobs, finish_reason=self.reason)

    def _has_stop(self, stops: Sequence[str]) -> bool:
        return any(stop in self.stats.reader.tokenizer.decode(self.stats.ids) for stop in stops)

    def _logprobs(self, top: int) -> Logprobs:
        found, reader = Logprobs(tokens=[], token_logprobs=[], text_offset=[]), self.stats.reader
        tops: list[dict[str, float]] = []
        while (text := self._next_text()) is not None:
            token, logs = self.stats.ids[self._listed], self.stats.logs.pop(0)
            found.add(text, float(logs[token]), self.offset + self._place)
            best = reader.likeliest(logs, self._ids, top) if top else []
            tops.append({t.text or t.symbol: t.log_probability for t in best})
            self._ids = [*self._ids, token][-CONTEXT:]
            self._place += len(text)
            self._listed, self._held = self._listed + 1, None
        found.top_logprobs = tops if top else None
        return found

    def _next_text(self) -> str | None:
        """What the next token has written, if all of it is in the text; a stop string is not."""
        if self._listed == len(self.stats.ids):
            return None
        if self._held is None:
            self._held = self._decoder.push(self.stats.ids[self._listed])
        return self._held if self._place + len(self._held) <= len(self.text) else None


class Completions:
    """The answer to one request, made in slices."""

    def __init__(self, request: CompletionRequest, model: Model, seed: int, lane: Lane) -> None:
        self.request, self.model, self.seed, self.lane = request, model, seed, lane
        self.prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        self.count = request.n or 1
        self.length = 16 if request.max_tokens is None else request.max_tokens
        stop = request.stop or []
        self.stops = [stop] if isinstance(stop, str) else stop
        self.usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        self.id, self.created = f"cmpl-{uuid.uuid4().hex}", int(time.time())

    @property
    def settings(self) -> SamplingSettings:
        """As ``lmcli sample`` takes them."""
        temperature = 1.0 if self.request.temperature is None else self.request.temperature
        top_p = self.request.top_p
        return SamplingSettings(temperature, top_p=None if top_p in (None, 1.0) else top_p)

    async def parts(self, deadline: Deadline) -> AsyncIterator[Choice]:
        """The next piece of a text, whichever it is; its last piece has the reason to end."""
        for number, prompt in enumerate(self.prompts):
            choices = self._begin(number, prompt)
            if self.request.echo:
                async for part in self._echo(prompt, choices, deadline):
                    yield part
            if not self.length:
                for choice in choices:
                    yield Choice(index=choice.index, text="", finish_reason="length")
                continue
            stats = [choice.stats for choice in choices]
            seeds = range(self.seed, self.seed + self.count)
            made = self.length, self.settings, seeds, self.stops, stats
            stream = TextStream(self.model, prompt, *made)
            while not stream.ended:
                deadline.check()
                for part in await self.lane.run(partial(_slice, stream, choices)):
                    yield part
            self.usage.completion_tokens += sum(one.tokens for one in stats)
            self.usage.total_tokens += sum(one.tokens for one in stats)

    def _begin(self, number: int, prompt: str) -> list[_Choice]:
        reader = self.model.reader
        ids = reader.tokenizer.encode(prompt).tolist()
        self.usage.prompt_tokens += len(ids)
        self.usage.total_tokens += len(ids)
        offset = len(prompt) if self.request.echo else 0
        first = number * self.count
        tops = [Recorder(reader, self.request.logprobs) for _ in range(self.count)]
        return [_Choice(first + i, stats, ids, offset) for i, stats in enumerate(tops)]

    async def _echo(
        self, prompt: str, choices: Sequence[_Choice], deadline: Deadline
    ) -> AsyncIterator[Choice]:
        """The prompt itself, with the log-probabilities of its tokens."""
        logprobs = None
        if self.request.logprobs is not None:
            reading = None
            while reading is None:
                deadline.check()
                reading = await self.lane.run(partial(self.model.reader.read, prompt, SLICE))
            logprobs = _of_prompt(reading)
        for choice in choices:
            yield Choice(index=choice.index, text=prompt, logprobs=logprobs)

    def whole(self, parts: Sequence[Choice]) -> Completion:
        """All parts put together, text by text."""
        choices = {part.index: Choice(index=part.index, text="") for part in parts}
        for part in parts:
            choice = choices[part.index]
            choice.text += part.text
            choice.finish_reason = part.finish_reason or choice.finish_reason
            if part.logprobs is not None:
                choice.logprobs = _joined(choice.logprobs, part.logprobs)
        ordered = [choices[index] for index in sorted(choices)]
        return self.completion(ordered, self.usage)

    def completion(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        """Some choices with what stands in every answer."""
        about: Any = {"id": self.id, "created": self.created, "model": self.model.name}
        return Completion(**about, choices=choices, usage=usage)

    async def events(self, deadline: Deadline) -> AsyncIterator[str]:
        """The parts as JSON, one an event."""
        async for part in self.parts(deadline):
            yield self.completion([part]).model_dump_json(exclude={"usage"})
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield self.completion([], self.usage).model_dump_json()


def _slice(stream: TextStream, choices: Sequence[_Choice]) -> list[Choice]:
    """The pieces of one slice."""
    return [choices[number].push(text, last, stream) for number, text, last in stream.slice()]


def _of_prompt(reading: Reading) -> Logprobs:
    """The tokens of a text that was read."""
    scored = reading.scored
    found = Logprobs(tokens=[], token_logprobs=[], text_offset=[])
    if not scored.text:
        return found
    for (begin, end), nats in zip(scored.spans(), scored.nats.tolist(), strict=True):
        found.add(scored.text[begin:end], -nats, begin)
    return found


def _joined(first: Logprobs | None, second: Logprobs) -> Logprobs:
    if first is None:
        return second
    tops = [one.top_logprobs or [{} for _ in one.tokens] for one in (first, second)]
    return Logprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=tops[0] + tops[1] if any(map(any, tops)) else None,
        text_offset=first.text_offset + second.text_offset,
    )
