"""Files that a crash leaves whole, and that say so when they are damaged.

**In:** bytes or plain values.
**Out:** the same, later; a file that is damaged or newer is a RunError, a disk that refuses is a
StorageError.

Every file carries a format number and a checksum, and is written under a temporary name in the
same folder, flushed to the disk and renamed; then the folder is flushed, so that what is written
next cannot be on the disk before it. No pickle: reading a file cannot execute code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
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
                replace(temporary[path], path)
                sync_folder(path.parent)
    finally:
        for file in temporary.values():
            with suppress(OSError):
                file.unlink(missing_ok=True)


WAITS = (0.05, 0.1, 0.2, 0.3, 0.3)
"""seconds before a rename is tried again on Windows"""


def replace(source: Path, target: Path) -> None:
    """Rename; Windows refuses it while another process, such as a virus scanner, reads the file."""
    for seconds in WAITS if os.name == "nt" else ():
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(seconds)
    source.replace(target)


def _new_file(path: Path, content: bytes) -> Path:
    """A file beside `path` with this content, flushed to the disk.

    No other process uses its name.
    """
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


_HALF_WRITTEN = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def half_written(file: Path) -> str:
    """The name that a file was to get if it is the temporary one of a write; else ""."""
    found = _HALF_WRITTEN.fullmatch(file.name)
    return found[1] if found else ""


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
