"""An http(s) address -> the bytes behind it, whole.

**In:** an address.
**Out:** its bytes in parts. What arrives is counted: a download that is cut off, too large or too
slow is a DownloadError, as is a redirect from https to anything else.

By the standard library, as fsspec needs further packages for http.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

TIMEOUT = 60.0
"""seconds without a byte after which a download fails"""
LARGEST = 1 << 36
"""bytes"""
SLOWEST = 1000.0
"""bytes a second, on average after `TIMEOUT`"""
SCHEMES = ("http", "https")


class DownloadError(OSError):
    """A download that has failed; the message says why."""


class _Redirects(HTTPRedirectHandler):
    """Redirects are followed to http and https, and from https to https only."""

    def redirect_request(self, req: Request, *args: Any) -> Request | None:
        """The request for the new address, the last of `args`."""
        scheme = urlsplit(str(args[-1])).scheme
        if scheme not in SCHEMES or (req.type == "https" and scheme != "https"):
            raise DownloadError(f"it redirects from {req.type} to {scheme}")
        return super().redirect_request(req, *args)


def download(address: str, step: int, timeout: float = TIMEOUT) -> Iterator[bytes]:
    """The bytes of an address, at most `step` at a time."""
    began, received = time.monotonic(), 0
    with build_opener(_Redirects).open(address, timeout=timeout) as answer:
        announced = answer.headers.get("Content-Length")
        expected = int(announced) if announced and announced.isdecimal() else None
        if expected and expected > LARGEST:
            raise DownloadError(f"it has {expected:,} bytes, more than {LARGEST:,}")
        while data := answer.read1(step):
            received += len(data)
            seconds = time.monotonic() - began
            if received > LARGEST:
                raise DownloadError(f"it has more than {LARGEST:,} bytes")
            if seconds > timeout and received < SLOWEST * seconds:
                raise DownloadError(f"{received:,} bytes came in {seconds:.0f} seconds")
            yield data
    if expected is not None and received != expected:
        raise DownloadError(f"it was cut off: {received:,} of {expected:,} bytes came")
