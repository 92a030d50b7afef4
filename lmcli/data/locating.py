"""TEXT arguments -> the files and URLs that are meant.

**In:** files, globs, folders, ``-`` for standard input, URLs.
**Out:** names, each file once, in order; what is not there is a TextError with the nearest name.
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Sequence
from pathlib import Path

from lmcli.errors import TextError

PACKED = (".gz", ".bz2", ".xz")
_SUFFIXES = (".txt", *(f".txt{packed}" for packed in PACKED))


def find_texts(texts: Sequence[str]) -> list[str]:
    """Each file of TEXT once."""
    if not texts:
        raise TextError("no text given", "name a file, a folder, a pattern, a URL, or - for stdin")
    names: dict[str, str] = {}
    for text in texts:
        try:
            for name in _find(text):
                names.setdefault(name if is_special(name) else str(Path(name).resolve()), name)
        except OSError as error:
            raise unreadable(text, error) from None
    return list(names.values())


def is_special(name: str) -> bool:
    """Whether it is standard input or a URL."""
    return name == "-" or "://" in name


def unreadable(name: str, error: Exception) -> TextError:
    """The error for what the system or the network refuses."""
    known = isinstance(error, FileNotFoundError) and "no such file"
    reason = known or getattr(error, "strerror", None) or str(error).partition("\n")[0]
    reason = reason[:1].lower() + reason[1:].rstrip(".")
    hint = "check the address" if is_special(name) else "check the path and its permissions"
    return TextError(f"cannot read '{name}': {reason or 'it failed'}", hint)


def _find(text: str) -> list[str]:
    """The files or URLs that one TEXT argument means."""
    if is_special(text):
        return _find_urls(text) if "*" in text else [text]
    path = Path(text)
    if path.is_dir():
        return _find_in_folder(path)
    if path.exists():
        return [text]
    if glob.has_magic(text):
        matches = glob.glob(text, recursive=True)  # noqa: PTH207 - Path takes no absolute pattern
        if found := sorted(name for name in matches if Path(name).is_file()):
            return found
        raise TextError(f"no file matches '{text}'", "check the pattern")
    if not path.parent.is_dir():
        raise TextError(f"no file named '{text}'", f"there is no folder named '{path.parent}'")
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean '{path.with_name(near[0])}'?" if near else "check the spelling"
    raise TextError(f"no file named '{text}'", hint)


def _find_in_folder(folder: Path) -> list[str]:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    texts = [name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]
    if not texts:
        raise TextError(
            f"no texts in folder '{folder}'",
            f"of a folder, files {', '.join(f'*{suffix}' for suffix in _SUFFIXES)} are read",
        )
    return [str(folder / name) for name in texts]


def _find_urls(pattern: str) -> list[str]:
    import fsspec

    try:
        found = [file.full_name for file in fsspec.open_files(pattern, "rb")]
    except Exception as error:  # each file system raises what it likes
        raise unreadable(pattern, error) from None
    if not found:
        raise TextError(f"no file matches '{pattern}'", "check the pattern")
    return found
