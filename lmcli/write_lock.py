"""One writer at a time: the lock on a run, a comparison or a text that is being written.

**In:** the path of what is to be written.
**Out:** a block within which no other process writes it; one that tries gets a RunError that says
which process holds the lock.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmcli.errors import RunError
from lmcli.storage import half_written, new_folder, storage


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within, no other process writes what is at `path`: one that tries gets a RunError.

    The lock is on the file .NAME.lock beside it and goes with the process, however that ends. What
    a process that was killed has left half-written in a folder is removed.
    """
    place = path.resolve()
    file = place.with_name(f".{place.name}.lock")
    with new_folder(file.parent):
        with storage(path):
            opened = _lock(path, file)
        try:
            if place.is_dir():
                sweep(place)
            yield
        finally:
            with suppress(OSError):
                file.unlink()  # while it is locked; who opens it now sees that it is gone
            os.close(opened)


def _lock(path: Path, file: Path) -> int:
    """A locked file; on a disk without locks an open one."""
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock_opened(opened)
            if os.path.samestat(os.fstat(opened), file.stat()):
                with suppress(OSError):  # a full disk: it is locked all the same
                    os.truncate(opened, 0)
                    os.write(opened, _name_of_this_process().encode())
                return opened
            os.close(opened)  # its owner has ended, and removed it
        except FileNotFoundError:
            os.close(opened)
        except (BlockingIOError, PermissionError):
            holder = os.read(opened, 100).decode(errors="replace") or "another process"
            os.close(opened)
            problem = f"'{path}' is being written by {holder}"
            raise RunError(problem, "wait until it has ended, or choose another name") from None


def _lock_opened(opened: int) -> None:
    """Lock an open file or raise a BlockingIOError (on Windows a PermissionError)."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(opened, 1 << 20, os.SEEK_SET)  # away from what is to be read
        msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)
        os.lseek(opened, 0, os.SEEK_SET)
        return
    try:
        import fcntl
    except ImportError:
        return  # a system without locks
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def check_unlocked(path: Path) -> None:
    """A RunError if a process writes what is at `path`."""
    place = path.resolve()
    if is_locked(place):
        with locked(place):
            pass


def is_own(place: Path) -> bool:
    """Whether this process has locked what is at a place."""
    file = place.with_name(f".{place.name}.lock")
    with suppress(OSError):
        return file.read_text(errors="replace") == _name_of_this_process()
    return False


def _name_of_this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def is_locked(path: Path) -> bool:
    """Whether a process may be writing what is at `path`; it can have ended since."""
    return path.with_name(f".{path.name}.lock").exists()


def sweep(folder: Path, names: Collection[str] = ()) -> None:
    """Remove what killed processes have left: files half-written, locks on nothing.

    With `names` only what was to get one of these. The caller holds the lock on `folder`.
    """
    for file in folder.iterdir():
        name = half_written(file)
        if name and (not names or name in names):
            with suppress(OSError):
                file.unlink()
        elif not names and file.name.startswith(".") and file.suffix == ".lock":
            name = file.name.removeprefix(".").removesuffix(".lock")
            with suppress(RunError, OSError):  # unless another process holds it
                opened = _lock(folder / name, file)
                file.unlink()
                os.close(opened)
