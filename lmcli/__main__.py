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
    """Ctrl-C as ever, but while torch is being imported leave at once, where nothing is begun.

    An exception raised there passes through torch's C++, which may abort the process for it.
    """
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == "torch" and frame.f_code.co_name == "<module>":
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
