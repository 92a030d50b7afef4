"""No test reaches another machine, nor does a process that a test starts."""

import socket
import subprocess
import sys

import pytest

ELSEWHERE = ("192.0.2.1", "example.org", "2001:db8::1")  # kept for examples (RFC 5737, 2606, 3849)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_another_machine_is_refused(host):
    with pytest.raises(RuntimeError, match="no network"):
        socket.create_connection((host, 80), timeout=1)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_by_a_process_that_a_test_starts_too(host):
    code = f"import socket; socket.create_connection(({host!r}, 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "tests use no network" in done.stderr


def test_this_machine_is_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=5)
        accepted, _ = server.accept()
        with client, accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
