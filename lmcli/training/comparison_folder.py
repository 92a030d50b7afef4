"""The folder of a comparison: which of the runs in it are its own, and may be replaced by --force.

**In:** the folder, the runs that are to be trained in it, those that --run takes.
**Out:** comparison.json, which names the comparison's own runs; a RunError for what is in the way.

While a comparison trains, .unfinished.json names its runs, and those of the one it replaces: they
can be told from other runs in the folder even if it is killed. Until it ends, comparison.json is
that of the comparison it replaces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmcli.errors import RunError, StorageError
from lmcli.folder_replacement import remove
from lmcli.run import OURS, RECORD, check_free
from lmcli.storage import half_written, new_folder, read_json, storage, write_bytes, write_json
from lmcli.write_lock import check_unlocked

RESULT, UNFINISHED = "comparison.json", ".unfinished.json"


def check_folder(folder: Path, force: bool, taken: Collection[Path], plan: bool) -> None:
    """The folder must be new, empty, or a comparison, finished or not, that may be replaced.

    A folder of runs that are all taken is as good as an empty one: nothing is lost. The commands of
    a plan replace a run each, and need no comparison.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise RunError(f"'{folder}' exists and is not a folder", "choose another name with -o")
    inside = [path for path in folder.iterdir() if half_written(path) != UNFINISHED]
    compared = _check_compared(folder, force)
    planned = plan and force and all((path / RECORD).is_file() for path in inside)
    if compared or planned or {path.resolve() for path in inside} <= _resolved(taken):
        return
    raise RunError(f"'{folder}' exists and is not a comparison", "-o takes another folder")


def _check_compared(folder: Path, force: bool) -> bool:
    """Whether a comparison is there, finished or not; a RunError if it must not be replaced."""
    compared = (folder / RESULT).is_file() or (folder / UNFINISHED).is_file()
    if compared and not force:
        raise RunError(f"'{folder}' exists", "--force replaces it, -o takes another folder")
    return compared


@contextmanager
def claimed(
    folder: Path, members: Sequence[Path], taken: Collection[Path], force: bool
) -> Iterator[dict[str, Any]]:
    """Within, the folder is marked as an unfinished comparison of these members.

    Yields what comparison.json is to say of its runs. When the block ends, the runs of a comparison
    that is replaced are deleted; when it fails before a member was written, nothing has changed.
    """
    _check_compared(folder, force)  # once more: another process may have made it meanwhile
    own, others, marker = _own(folder), _resolved(taken), folder / UNFINISHED
    _check_members(folder, members, own, others)
    files = [path / RECORD for path in members]
    before, old = _stamps(files), marker.read_bytes() if marker.is_file() else None
    names = {path.name for path in members}
    with new_folder(folder):
        write_json(marker, {"members": sorted(own | names)})
        try:
            yield {"members": sorted(names | {n for n in own if (folder / n).resolve() in others})}
        except BaseException:
            if _stamps(files) == before:
                with suppress(OSError, StorageError):
                    if old is None:
                        marker.unlink()
                    else:
                        write_bytes(marker, old)
            raise
    with storage(folder):
        for path in [folder / name for name in own - names]:
            if (path / RECORD).is_file() and path.resolve() not in others:
                remove(path, OURS)
                with suppress(OSError):
                    path.rmdir()  # unless it holds files of the user's
        marker.unlink()


def _check_members(
    folder: Path, members: Sequence[Path], own: Collection[str], others: Collection[Path]
) -> None:
    """A RunError for a member whose place is taken by something that is not the comparison's."""
    for path in members:
        check_free(path, force=True)
        check_unlocked(path)
        if path.resolve() in others:
            raise RunError(f"'{path}' is taken by --run", "-o takes another folder")
        if (path / RECORD).exists() and path.name not in own:
            problem = f"'{path}' is not a run of the comparison in '{folder}'"
            raise RunError(problem, "-o takes another folder")


def _own(folder: Path) -> set[str]:
    """The names of the comparison's own runs, without names that lead out of the folder."""
    files = [file for name in (RESULT, UNFINISHED) if (file := folder / name).is_file()]
    lists = [read_json(file).get("members") for file in files]
    named = {str(name) for names in lists if isinstance(names, list) for name in names}
    place = folder.resolve()
    return {n for n in named if n == Path(n).name != "" and (place / n).resolve() == place / n}


def _resolved(paths: Collection[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def _stamps(files: Sequence[Path]) -> list[tuple[int, int] | None]:
    """What is different once a file has been written anew, even with the same content."""
    stats = [file.stat() if file.is_file() else None for file in files]
    return [stat and (stat.st_ino, stat.st_mtime_ns) for stat in stats]
