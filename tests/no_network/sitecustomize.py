"""Refuses every address but this machine's own: no test depends on a network.

Python imports it at the start of every process whose PYTHONPATH holds this folder.
"""

import sys

OWN = ("127.", "localhost", "::1", "0.0.0.0", "::")
EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


def refuse(event, arguments):
    """An audit hook (PEP 578): a RuntimeError for an address elsewhere."""
    if event not in EVENTS:
        return
    first = 1 if event in EVENTS[:2] else 0  # those begin with the socket
    address = arguments[first]
    host = address[0] if isinstance(address, tuple) else None  # else a path, of this machine
    if first == 0:
        host = address
    host = host.decode() if isinstance(host, bytes) else host
    if isinstance(host, str) and host and not host.startswith(OWN):
        raise RuntimeError(f"a test wants to reach '{host}', and tests use no network")


sys.addaudithook(refuse)
