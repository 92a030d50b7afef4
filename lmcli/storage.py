"""JSON, tensors and folders that a crash leaves whole, and that say so when they are damaged.

**In:** plain values, tensors; the names of the files that may be replaced in a folder.
**Out:** the same, later; a file that is damaged or newer is a RunError, a disk that refuses is a
StorageError.

Every file carries a format number and a checksum, and is written under a temporary name in the
same folder, flushed to the disk and renamed. No pickle: reading a file cannot execute code.

A folder NAME is replaced as a whole: the new one is built beside it as .NAME.new, the old one is
renamed to .NAME.old, and the new one to NAME.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import RunError, StorageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

FORMAT = 1


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
    """The same for several files, of which none is replaced before all are on the disk."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            with storage(path), temporary[path].open("wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
        for path in contents:
            with storage(path):
                temporary[path].replace(path)
    finally:
        for file in temporary.values():
            with suppress(OSError):
                file.unlink(missing_ok=True)


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
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def replacing(path: Path, names: Collection[str]) -> Iterator[Path]:
    """A folder to write to, which is at `path` when the block has ended without an error.

    A folder that is new or empty is written to as it is. One that is not stays as it was until
    then, or for good if anything fails; what it holds beside these names moves to the new one.
    """
    restore(path)
    given, path = path, path.resolve()
    if not path.exists() or not any(path.iterdir()):
        with new_folder(given):
            yield path
        return
    new, old = _beside(path)
    with storage(given):
        if old.exists():
            _settle(path, old, names)
        if new.exists():  # of a process that was killed
            shutil.rmtree(new)
        new.mkdir()
    try:
        with storage(given):
            shutil.copymode(path, new)
        yield new
        with storage(given):
            _swap(path, new, old, names)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    with suppress(OSError):
        remove(old, names)
        old.rmdir()


def restore(path: Path) -> None:
    """Bring back the old folder where a process was killed between the two renames."""
    with suppress(OSError):
        if not path.exists() and (old := _beside(path.resolve())[1]).is_dir():
            old.replace(path.resolve())


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the new folder is built, and where the old one is while they are swapped."""
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _swap(path: Path, new: Path, old: Path, names: Collection[str]) -> None:
    """The new folder at `path`, the old one aside; a failure undoes all of it."""
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        source.replace(target)
        done.append((source, target))

    try:
        move(path, old)
        move(new, path)
        for file in _others(old, names):
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
    with _reading(path):
        body: dict[str, Any] = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        _check_format(path, body["format"])
        if body.pop("checksum") != _json_checksum(body):
            raise ValueError("its checksum does not match")
        del body["format"]
    return body


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within, whatever is wrong with a file is a RunError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"'{path.parent}' has no {path.name}", "train the run again") from None
    except OSError as error:
        raise RunError(f"cannot read '{path}': {error.strerror}", "check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from None


def _check_format(path: Path, number: Any) -> None:
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Tensors as safetensors, with `about` and a checksum in the header."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    written = json.dumps(about)
    header = {"about": written, "format": FORMAT, "checksum": _digest(plain, written)}
    # one entry only: safetensors writes several in random order, and equal runs are equal files
    write_bytes(path, save(plain, metadata={"lmcli": json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote; anything else is a RunError."""
    return _read(path, "pt")


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The same as NumPy arrays, without torch; bfloat16, which NumPy lacks, is a RunError."""
    return _read(path, "numpy")


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    with _reading(path):
        try:
            with safe_open(path, framework=framework) as file:
                header = json.loads((file.metadata() or {})["lmcli"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(error) from None
        _check_format(path, int(header["format"]))
        about: dict[str, Any] = json.loads(header["about"])
        if header["checksum"] != _digest(tensors, header["about"]):
            raise ValueError("its checksum does not match")
    return tensors, about


def _digest(tensors: Mapping[str, Any], about: str) -> str:
    """A checksum of tensors, whether they are torch's or NumPy's."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} torch.{kind} {tuple(tensor.shape)}".encode())
        if kind == "bfloat16":  # numpy has no such type; float32 holds all its values
            tensor = tensor.float()
        digest.update(tensor.tobytes() if hasattr(tensor, "tobytes") else tensor.numpy().tobytes())
    return digest.hexdigest()
