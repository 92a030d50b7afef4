"""Folders that are replaced as a whole, or stay as they were.

**In:** a folder NAME and the names of the files in it that may be replaced.
**Out:** the new folder at its path; files with other names are kept.

The new folder is built beside the old one as .NAME.new, the old one is renamed to .NAME.old, and
the new one to NAME.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmcli.errors import StorageError
from lmcli.storage import new_folder, replace, storage, sync_folder
from lmcli.write_lock import is_own, locked


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
        if is_own(place):
            replace(old, place)
        else:
            with locked(place):
                if not place.exists():
                    replace(old, place)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the new folder is built, and where the old one is while they are swapped."""
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _swap(path: Path, new: Path, old: Path, names: Collection[str]) -> None:
    """The new folder at `path`, the old one aside; a failure undoes all of it."""
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        replace(source, target)
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
                replace(target, source)
        raise


def _settle(path: Path, old: Path, names: Collection[str]) -> None:
    """Finish a swap whose process was killed after the second rename."""
    for file in _others(old, names):
        if not (path / file.name).exists():
            replace(file, path / file.name)
    remove(old, names)
    old.rmdir()
