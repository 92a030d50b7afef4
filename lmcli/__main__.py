"""``python -m lmcli`` and the ``lmcli`` command."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line; Ctrl-C while it is still loading is silent as well."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    _open_streams()
    try:
        from lmcli.cli import app

        app(prog_name="lmcli")
    except KeyboardInterrupt:
        sys.exit(130)


def _open_streams() -> None:
    """Standard streams that were closed lead nowhere, and no file is given their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C as ever, but in the midst of an import leave at once: nothing is begun yet.

    An exception raised there may pass through C++ of torch's, which aborts the process for it, or
    through code made by exec, for which Python ends in another way than by our exit code.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
