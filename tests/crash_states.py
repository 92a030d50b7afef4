"""Crash states: what may be on the disk if the power goes while a command writes to a folder.

**In:** a folder, and a command that writes to it in this process.
**Out:** `Recording`, the file operations of the command in their order, and its `states`: each is
a disk that a crash may leave, as ALICE and CrashMonkey make them. For every prefix of the
operations:

- what was written to a file since its last fsync is there, lost, cut in half or zeros;
- each operation on names (create, mkdir, rename, unlink, rmdir) since the last fsync of its folder
  is there or not, in every combination where there are up to `EVERY`; where there are more (only
  while an old folder is deleted): every prefix, all, none, all but one, and one alone;
- where more than `TOGETHER` files have unsynced content: all of it, none, and one file's at a time.

A rename is atomic, and flushed with the folder that it leads to; a file is there for good when its
folder is flushed, not when the file is. A state of each kind stands for all that are equal.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations, product
from pathlib import Path

EVERY, TOGETHER = 6, 2
ROOT = 0


@dataclass(frozen=True)
class Step:
    """One operation; folders and files are numbered."""

    kind: str
    """link (of a new file or folder), unlink, rename, data (all of a file's content) or sync"""
    node: int
    place: int = ROOT
    """the folder whose fsync makes it last"""
    name: str = ""
    source: tuple[int, str] = (ROOT, "")
    """of a rename"""
    data: bytes | None = None

    @property
    def is_of_names(self):
        """Whether it changes a folder."""
        return self.kind in ("link", "unlink", "rename")


@dataclass
class Disk:
    """Folders by number, each a number for each name, and what files hold."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytes] = field(default_factory=dict)

    def apply(self, step):
        """Change the names; whether that is possible."""
        if step.kind == "link":
            self.folders[step.place][step.name] = step.node
        elif step.kind == "unlink":
            if self.folders[step.place].get(step.name) != step.node:
                return False
            del self.folders[step.place][step.name]
        else:
            folder, name = step.source
            if self.folders[folder].get(name) != step.node:
                return False
            del self.folders[folder][name]
            self.folders[step.place][step.name] = step.node
        return True

    def walk(self, folder=ROOT, path=""):
        """The paths that can be reached, and their numbers."""
        for name, node in self.folders[folder].items():
            yield path + name, node
            if node in self.folders:
                yield from self.walk(node, f"{path}{name}/")

    def copy(self):
        """Another one that is equal."""
        return Disk({n: dict(names) for n, names in self.folders.items()}, dict(self.files))


class Recording:
    """``with Recording(folder) as recording:`` records what this process does below a folder."""

    def __init__(self, folder):
        self.folder = os.path.realpath(folder)
        self.steps: list[Step] = []
        self.disk, self._count = Disk(), ROOT
        for path in sorted(Path(self.folder).rglob("*")):
            place, name = self._locate(path)
            node = self._new(path.is_dir())
            self.disk.folders[place][name] = node
            if path.is_file():
                self.disk.files[node] = path.read_bytes()
        self.before = self.disk.copy()

    def __enter__(self):
        self._patched = []
        for name in ("mkdir", "open"):
            self._patch(os, name, self._creating)
        self._patch(io, "open", self._creating)
        for name in ("unlink", "remove", "rmdir"):
            self._patch(os, name, self._unlinking)
        for name in ("rename", "replace"):
            self._patch(os, name, self._renaming)
        for name in ("link", "symlink"):
            self._patch(os, name, self._refused)
        self._patch(os, "fsync", self._syncing)
        return self

    def __exit__(self, *_):
        for module, name, call in self._patched:
            setattr(module, name, call)
        self._scan()
        real = {str(p.relative_to(self.folder)) for p in Path(self.folder).rglob("*")}
        assert real == {path for path, _ in self.disk.walk()}, "an operation was not seen"

    def _patch(self, module, name, wrapped):
        call = getattr(module, name)
        self._patched.append((module, name, call))
        setattr(module, name, wrapped(call))

    def _creating(self, call):
        def create(path, *arguments, **options):
            found = None if isinstance(path, int) else self._locate(path, options.get("dir_fd"))
            if not found:
                return call(path, *arguments, **options)
            self._scan()
            result = call(path, *arguments, **options)
            place, name = found
            real = f"{self._path(place)}/{name}"
            if name not in self.disk.folders[place] and os.path.lexists(real):
                node = self._new(os.path.isdir(real))  # noqa: PTH112
                self._did(Step("link", node, place, name))
            return result

        return create

    def _unlinking(self, call):
        def unlink(path, *arguments, **options):
            self._scan()
            found = self._locate(path, options.get("dir_fd"))
            call(path, *arguments, **options)
            if found:
                place, name = found
                self._did(Step("unlink", self.disk.folders[place][name], place, name))

        return unlink

    def _renaming(self, call):
        def rename(source, target, **options):
            self._scan()
            at, to = self._locate(source), self._locate(target)
            assert bool(at) == bool(to), "a rename across the border of the folder"
            call(source, target, **options)
            if at:
                self._did(Step("rename", self.disk.folders[at[0]][at[1]], *to, source=at))

        return rename

    def _refused(self, call):
        def refuse(source, target, **options):
            assert not self._locate(target), "links are not recorded"
            return call(source, target, **options)

        return refuse

    def _syncing(self, call):
        def sync(opened):
            self._scan()
            call(opened)
            path = Path(os.readlink(f"/proc/self/fd/{opened}"))  # noqa: PTH115
            if str(path) == self.folder:
                self.steps.append(Step("sync", ROOT))
            elif found := self._locate(path):
                self.steps.append(Step("sync", self.disk.folders[found[0]][found[1]]))

        return sync

    def _did(self, step):
        self.steps.append(step)
        assert self.disk.apply(step)

    def _new(self, is_folder):
        self._count += 1
        if is_folder:
            self.disk.folders[self._count] = {}
        else:
            self.disk.files[self._count] = b""
        return self._count

    def _locate(self, path, beside=None):
        """The number of the folder of a path, and its name there; None outside."""
        path = os.fspath(path)
        path = os.fsdecode(path)
        if beside is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{beside}"), path)  # noqa: PTH115, PTH118
        head, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
        inside = os.path.relpath(os.path.realpath(head), self.folder)
        if inside.startswith(".."):
            return None
        folder = ROOT
        for part in Path(inside).parts:
            folder = self.disk.folders[folder].get(part)
            if folder not in self.disk.folders:
                return None  # it does not exist: the call fails
        return folder, name

    def _path(self, node):
        paths = {ROOT: ""} | {n: path for path, n in self.disk.walk()}
        return f"{self.folder}/{paths[node]}".rstrip("/")

    def _scan(self):
        """Record what was written since the last operation."""
        for path, node in self.disk.walk():
            if node in self.disk.files:
                with self._patched[2][2](f"{self.folder}/{path}", "rb") as file:
                    data = file.read()
                if data != self.disk.files[node]:
                    self.disk.files[node] = data
                    self.steps.append(Step("data", node, data=data))

    # ------------------------------------------------------------------ the states

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """All different disks: content by path, None for a folder."""
        seen = set()
        for length in range(len(self.steps) + 1):
            for state in self._of_prefix(length):
                key = frozenset(state.items())
                if key not in seen:
                    seen.add(key)
                    yield state

    def _of_prefix(self, length):
        steps = self.steps[:length]
        synced = {step.node: i for i, step in enumerate(steps) if step.kind == "sync"}
        loose = [i for i, s in enumerate(steps) if s.is_of_names and synced.get(s.place, -1) < i]
        lasting, latest = dict(self.before.files), dict(self.before.files)
        for i, step in enumerate(steps):
            if step.kind == "data":
                latest[step.node] = step.data
                if synced.get(step.node, -1) > i:
                    lasting[step.node] = step.data
        dirty = {n: _torn(lasting.get(n, b""), d) for n, d in latest.items() if d != lasting.get(n)}
        for missing in _some(loose):
            if disk := self._without(steps, missing):
                for content in _contents(dirty):
                    files = lasting | content
                    paths = disk.walk()
                    yield {p: None if n in disk.folders else files.get(n, b"") for p, n in paths}

    def _without(self, steps, missing):
        """The names after these steps without some; None where they cannot be missing."""
        disk = self.before.copy()
        for node in range(self._count + 1):
            if node in self.disk.folders:
                disk.folders.setdefault(node, {})
        for i, step in enumerate(steps):
            if step.is_of_names and i not in missing and not disk.apply(step):
                return None
        return disk


def _torn(old, new):
    """What may be of a file's content that was not flushed."""
    kept = len(old) if new.startswith(old) else 0
    half = kept + (len(new) - kept) // 2
    return [new, old, new[:half], new[:kept] + bytes(len(new) - kept)]


def _contents(dirty):
    if len(dirty) <= TOGETHER:
        for chosen in product(*dirty.values()):
            yield dict(zip(dirty, chosen, strict=True))
        return
    whole = {node: variants[0] for node, variants in dirty.items()}
    lost = {node: variants[1] for node, variants in dirty.items()}
    yield from (whole, lost)
    for node, variants in dirty.items():
        yield from (chosen | {node: one} for chosen in (whole, lost) for one in variants)


def _some(loose):
    """Which of the operations that may be missing are."""
    if len(loose) <= EVERY:
        sizes = range(len(loose) + 1)
        yield from map(set, chain.from_iterable(combinations(loose, n) for n in sizes))
        return
    few: list[set[int]] = [set(), *({one} for one in loose)]
    yield from few
    yield from (set(loose) - present for present in few)
    yield from (set(loose[n:]) for n in range(len(loose)))


def build(state, folder):
    """Put a state in an empty folder."""
    folder.mkdir(parents=True)
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
