"""Server-sent events: an answer that is sent while it is made.

**In:** a lane, and a function that gives events as JSON.
**Out:** a response; leaving it (a closed tab, an aborted fetch) stops the work. An error after the
first event is an event too, and the last one is ``[DONE]``, as OpenAI's clients expect.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lmcli.errors import LmcliError
from lmcli.web.security import error_json
from lmcli.web.workers import BusyError, Deadline, Lane

Events = Callable[[Deadline], AsyncIterator[str]]


class EventStream(StreamingResponse):
    """A stream that holds its place in a lane until it ends."""

    media_type = "text/event-stream"
    place: AsyncExitStack

    @classmethod
    async def begin(cls, lane: Lane, events: Events) -> EventStream:
        """The response, once it has a place; BusyError where there is none."""
        stack = AsyncExitStack()
        deadline = await stack.enter_async_context(lane.request())
        stream = cls(_lines(events(deadline)))
        stream.place = stack
        return stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; however that ends, the place is free again."""
        async with self.place:
            await super().__call__(scope, receive, send)


async def _lines(events: AsyncIterator[str]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {event}\n\n"
    except BusyError as error:
        yield f"data: {json.dumps(error_json(str(error), 503))}\n\n"
    except LmcliError as error:
        yield f"data: {json.dumps(error_json(error.problem, 409, hint=error.hint))}\n\n"
    yield "data: [DONE]\n\n"
