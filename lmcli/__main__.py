"""``python -m lmcli`` and the ``lmcli`` command."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from types import FrameType

AGAIN = 0.01
"""seconds after which an interrupt that was ignored is repeated"""


def main() -> None:
    """Run the command line; Ctrl-C while it is still loading is silent as well."""
    handle_interrupts()
    _open_streams()
    try:
        from lmcli.cli import app

        app(prog_name="lmcli")
    except KeyboardInterrupt:
        sys.exit(130)


def handle_interrupts() -> None:
    """Have Ctrl-C end this process wherever it comes, unless somebody else handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _interrupt_again


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


def _interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Ctrl-C once more, where it came within code that can pass on no exception and ignores it.

    That is a finaliser, or a callback of an extension module. The second one comes from a thread, a
    little later, because it would be ignored within this function too.
    """
    if ignored.exc_type is KeyboardInterrupt:
        threading.Timer(AGAIN, _send_interrupt).start()
    else:
        sys.__unraisablehook__(ignored)


def _send_interrupt() -> None:
    """Ctrl-C to the main thread; where the system can, one that ends a call that is waiting."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


if __name__ == "__main__":
    main()
