"""Who may ask, how much a request may hold, and what browsers may do with an answer.

**In:** every request before it is looked at.
**Out:** the request; or 403 for a Host or an Origin that is not this server, 413 for a body that is
too long. Every answer says that the page may load nothing from elsewhere and run no inline script.

The server listens on 127.0.0.1 only. A page from elsewhere could still send requests through the
user's browser, by a name that its DNS resolves to 127.0.0.1 (Host differs) or directly (Origin
differs); both are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1 << 18
"""of a body"""
NAMES = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""of a report, which is one file: its styles are inline, and no script runs"""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """The application, guarded."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        hosts = [f"{name}:{port}" for name in NAMES]
        self.hosts = {*hosts, *(NAMES if port == 80 else ())}
        self.origins = {f"http://{host}" for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; add the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        if refusal is not None:
            await _answer(sending, *refusal)
        else:
            await self.app(scope, _counting(receive), sending)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        if headers.getlist("host") and headers.getlist("host") != [headers["host"]]:
            return 403, "more than one Host"
        if headers.get("host", "").lower() not in self.hosts:
            return 403, "this server answers only under its own address"
        origins = headers.getlist("origin")
        if any(origin.lower() not in self.origins for origin in origins):
            return 403, "requests from other pages are refused"
        site = headers.get("sec-fetch-site", "none")
        is_link = headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not is_link:
            return 403, "requests from other pages are refused"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return 413, _too_long()
        return None


def _too_long() -> str:
    return f"a request holds at most {MOST_BYTES:,} bytes"


def _counting(receive: Receive) -> Receive:
    """The same body; an error that the application answers with 413 once it is too long."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise HTTPException(413, _too_long())
        return message

    return counted


def error_json(message: str, status: int, **more: Any) -> dict[str, Any]:
    """An error in the shape that clients of OpenAI's interface read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body: Mapping[str, Any] = {"message": message, "type": kind, "param": None, "code": None}
    return {"error": {**body, "hint": None, **more}}


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps(error_json(message, status)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
