"""The server: 127.0.0.1 only, from a free port to Ctrl-C.

**In:** folders of runs, a port.
**Out:** the address, once requests are answered; ends at Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError
from lmcli.report.progress import OnProgress, warnings_only

HOST = "127.0.0.1"
QUEUE = 512
"""connections that wait to be accepted"""
GOODBYE = 1
"""seconds that running requests have at the end"""

CONFIG: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "lifespan": "on",
    "ws": "none",
    "timeout_graceful_shutdown": GOODBYE,
}
"""for uvicorn"""


@dataclass(frozen=True)
class Address:
    """Where the page is."""

    port: int
    runs: Sequence[str]

    @property
    def url(self) -> str:
        """For a browser."""
        return f"http://{HOST}:{self.port}"

    def to_json(self) -> dict[str, Any]:
        """What ``lmcli serve --json`` prints."""
        from lmcli.report.result import Result

        values = {"address": self.url, "port": self.port, "runs": list(self.runs)}
        return Result("serve", values).to_json()


def serve(
    runs: Sequence[Path],
    port: int,
    on_start: Callable[[Address], object],
    on_progress: OnProgress = warnings_only,
) -> None:
    """Serve the runs until Ctrl-C; `on_start` is called once the port is open."""
    if "numpy" not in sys.modules:  # products this small are slower with more threads
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        import uvicorn

        from lmcli.web.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        problem = f"this needs {error.name}, which is not installed"
        raise LmcliError(problem, "pip install 'lmcli[web]'") from None
    from lmcli.web.models import open_models

    models = open_models(runs, on_progress)
    with listen(port) as listening:
        address = Address(listening.getsockname()[1], list(models))
        config = uvicorn.Config(create_app(models, address.port), **CONFIG)
        on_start(address)
        uvicorn.Server(config).run(sockets=[listening])


def listen(port: int) -> socket.socket:
    """An open port; 0 takes any that is free."""
    # with the protocol named, asyncio sends each part of an answer at once (TCP_NODELAY)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a port that was closed a moment ago is free
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            problem = f"port {port} cannot be used: {os.strerror(error.errno).lower()}"
            raise LmcliError(problem, "--port 0 takes one that is free") from None
        raise
    listening.listen(QUEUE)
    return listening
