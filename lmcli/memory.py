"""How much memory there still is.

**In:** what the system says of itself.
**Out:** bytes, or None where it does not say; then nobody should refuse anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""where control groups tell limit and usage: version 2, version 1"""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can still be taken: of the machine, or of the share a container has of it."""
    found = list(_shares(root))
    with suppress(OSError, ValueError, KeyError):
        found.append(1024 * _table(root / "proc/meminfo")["MemAvailable:"])
    return min(found, default=None)


def _shares(root: Path) -> Iterator[int]:
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for name in {"memory", ""} & set(controllers.split(",")):
            base, limit, usage = _GROUPS[name]
            for folder in (root / base / group.lstrip("/"), root / base):
                with suppress(OSError, ValueError):
                    most, used = (int((folder / file).read_text()) for file in (limit, usage))
                    yield max(0, most - used + _cached(folder))


def _cached(folder: Path) -> int:
    """Pages of files, which are given back when they are needed elsewhere."""
    with suppress(OSError, ValueError):
        table = _table(folder / "memory.stat")
        names = ("inactive_file", "active_file")
        return sum(table.get(f"total_{n}", table.get(n, 0)) for n in names)
    return 0


def _table(file: Path) -> dict[str, int]:
    """A file of lines that are a name and a number."""
    rows = [line.split() for line in file.read_text().splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
