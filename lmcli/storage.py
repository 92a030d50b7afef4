"""JSON and folders that a crash leaves whole, and that say so when they are damaged.

**In:** plain values; the names of the files that may be replaced in a folder.
**Out:** the same, later; a file that is damaged or newer is a RunError, a disk that refuses is a
StorageError.

Every file carries a format number and a checksum, and is written under a temporary name in the
same folder, flushed to the disk and renamed; then the folder is flushed, so that what is written
next cannot be on the disk before it. No pickle: reading a file cannot execute code.

A folder NAME is replaced as a whole: the new one is built beside it as .NAME.new, the old one is
renamed to .NAME.old, and the new one to NAME.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmcli.errors import RunError, StorageError

FORMAT = 1
LARGEST_JSON = 1 << 28
"""bytes"""


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Within, an OSError becomes a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no space left for '{path}'", "free some, or choose -o") from None
        what = os.strerror(error.errno).lower() if error.errno else str(error).lower()
        hint = "choose another place with -o"
        raise StorageError(f"cannot write '{path}': {what}", hint) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is either the old one or the new one."""
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """The same for several files, of which none is replaced before all are on the disk.

    They are replaced in their order: the last is the new one only if the others are.
    """
    temporary = dict[Path, Path]()
    try:
        for path, content in contents.items():
            with storage(path):
                temporary[path] = _new_file(path, content)
        for path in contents:
            with storage(path):
                temporary[path].replace(path)
                sync_folder(path.parent)
    finally:
        for file in temporary.values():
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _new_file(path: Path, content: bytes) -> Path:
    """A file beside `path` with this content, flushed to the disk; its name is nobody else's."""
    file = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(file, flags, 0o666), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
    return file


def sync_file(path: Path) -> None:
    """Flush what was appended to a file to the disk."""
    with storage(path), path.open("rb+") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(opened)
    except OSError as error:  # some network disks flush none
        if error.errno in _OF_THE_DISK:
            raise
    finally:
        os.close(opened)


_OF_THE_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)


# ------------------------------------------------------------------ one writer at a time


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
    try:
        import fcntl
    except ImportError:
        if os.name != "nt":
            return  # a system without locks
        import msvcrt

        os.lseek(opened, 1 << 20, os.SEEK_SET)  # away from what is to be read
        msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(opened, 0, os.SEEK_SET)
        return
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


def _is_own(place: Path) -> bool:
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


_HALF_WRITTEN = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def half_written(file: Path) -> str:
    """The name that a file was to get if it is the temporary one of a write; else ""."""
    found = _HALF_WRITTEN.fullmatch(file.name)
    return found[1] if found else ""


def sweep(folder: Path, names: Collection[str] = ()) -> None:
    """Remove what killed processes have left: files half-written, locks on nothing.

    With `names` only what was to get one of these. The caller holds the lock on what is swept:
    nobody else is writing it.
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


# ------------------------------------------------------------------ folders


def check_output(name: str | Path | None, force: bool) -> Path | None:
    """A StorageError for a file that could not be written later; nothing is written now.

    One that exists is in the way unless `force` is given. Gives its path, if there is a name.
    """
    if name is None:
        return None
    path = Path(name)
    if path.is_dir():
        raise StorageError(f"'{path}' is a folder", "give the name of a file")
    if path.exists() and not force:
        raise StorageError(f"'{path}' exists", "--force replaces it, or choose another name")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise StorageError(f"cannot write '{path}': '{folder}' is no folder", "choose another name")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"cannot write '{path}': '{folder}' is read-only", "choose another name")
    return path


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user has named, in a folder that is made if there is none."""
    with new_folder(path.parent):
        write_bytes(path, content)


def remove(folder: Path, names: Collection[str]) -> None:
    """Delete what has these names in a folder, in this order, and unfinished writes of them."""
    for path in _named(folder, names):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _named(folder: Path, names: Collection[str]) -> list[Path]:
    """The paths of these names in a folder, and what `write_bytes` did not finish."""
    return [p for name in names for p in (folder / name, *folder.glob(f".{name}.*.tmp"))]


def _others(folder: Path, names: Collection[str]) -> list[Path]:
    return sorted(set(folder.iterdir()) - set(_named(folder, names)))


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents; after a failure in the block, those made go again.

    But only if they are empty: another process may have written to one of them.
    """
    made: list[Path] = []
    try:
        with storage(path):
            for folder in reversed([path, *path.parents]):
                if not folder.is_dir():
                    folder.mkdir()
                    made.append(folder)
                    sync_folder(folder.parent)
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def replacing(path: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder to write to, which is at `path` when the block has ended without an error.

    A folder that exists and is empty is written to as it is. Any other stays as it was until then,
    or for good if anything fails; what it holds beside these names moves to the new one.
    """
    restore(path)
    given, path = path, path.resolve()
    if path.exists() and not any(path.iterdir()):
        yield path
        return
    new, old = _beside(path)
    with new_folder(path.parent):
        with storage(given):
            if old.exists():
                _settle(path, old, names)
            if new.exists():  # of a process that was killed
                shutil.rmtree(new)
            new.mkdir()
        try:
            with storage(given):
                if path.exists():
                    shutil.copymode(path, new)
            yield new
            with storage(given):
                _swap(path, new, old, names)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    if old.exists():
        with suppress(OSError):
            remove(old, names)
            old.rmdir()


def restore(path: Path) -> None:
    """Bring back the old folder where a process was killed between the two renames.

    A RunError where that process still runs: it is about to make the second one.
    """
    place = path.resolve()
    old = _beside(place)[1]
    with suppress(OSError, StorageError):
        if path.exists() or not old.is_dir():
            return
        if _is_own(place):
            old.replace(place)
        else:
            with locked(place):
                if not place.exists():
                    old.replace(place)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the new folder is built, and where the old one is while they are swapped."""
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _swap(path: Path, new: Path, old: Path, names: Collection[str]) -> None:
    """The new folder at `path`, the old one aside; a failure undoes all of it."""
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        source.replace(target)
        done.append((source, target))
        sync_folder(target.parent)

    try:
        if path.exists():
            move(path, old)
        move(new, path)
        for file in _others(old, names) if old.exists() else ():
            move(file, path / file.name)
    except BaseException:
        for source, target in reversed(done):
            with suppress(OSError):
                target.replace(source)
        raise


def _settle(path: Path, old: Path, names: Collection[str]) -> None:
    """Finish a swap whose process was killed after the second rename."""
    for file in _others(old, names):
        if not (path / file.name).exists():
            file.replace(path / file.name)
    remove(old, names)
    old.rmdir()


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """A JSON object with a format number and a checksum of the rest."""
    body = {"format": FORMAT, **payload}
    body["checksum"] = _json_checksum(body)
    text = json.dumps(body, ensure_ascii=False, indent=1)
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def _json_checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; anything else is a RunError."""
    with reading(path):
        check_regular(path)
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        body: dict[str, Any] = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        check_format(path, body["format"])
        if body.pop("checksum") != _json_checksum(body):
            raise ValueError("its checksum does not match")
        del body["format"]
    return body


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within, whatever is wrong with a file is a RunError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"'{path.parent}' has no {path.name}", "train the run again") from None
    except OSError as error:
        raise RunError(f"cannot read '{path}': {error.strerror}", "check its permissions") from None
    except (RunError, MemoryError):
        raise
    except Exception as error:  # a file from elsewhere can hold anything
        raise damaged(path, error) from None


def check_regular(path: Path) -> None:
    """A RunError for a pipe or a device, which would be read for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise damaged(path, "it is no regular file")


def check_format(path: Path, number: Any) -> None:
    """A RunError for a file from a newer lmcli."""
    if not isinstance(number, int):
        raise TypeError("format is not a number")
    if number > FORMAT:
        problem = f"'{path}' has format {number}, this lmcli reads up to {FORMAT}"
        raise RunError(problem, "upgrade lmcli")


def damaged(path: Path, why: object) -> RunError:
    """The error for a file that is not what was written."""
    reason = str(why).partition("\n")[0].strip()[:120] or type(why).__name__
    hint = "restore it from a copy, or train the run again"
    return RunError(f"'{path}' is damaged: {reason}", hint)
