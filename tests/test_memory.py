"""The memory that is left is what the system, or the container, says."""

from pathlib import Path

import pytest

from lmcli.memory import available_memory


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_a_system_that_says_nothing_is_unknown(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_the_machine_says_it_in_kibibytes(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 200 kB\nMemAvailable:   100 kB\nPages: 3\n"})
    assert available_memory(tmp_path) == 100 * 1024


@pytest.mark.parametrize(
    ("line", "folder", "limit", "usage"),
    [
        ("0::/box", "sys/fs/cgroup/box", "memory.max", "memory.current"),
        ("0::/elsewhere", "sys/fs/cgroup", "memory.max", "memory.current"),
        (
            "4:cpu,memory:/box",
            "sys/fs/cgroup/memory/box",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
    ],
)
def test_a_container_has_its_limit_less_what_is_used_but_for_files(
    tmp_path: Path, line: str, folder: str, limit: str, usage: str
) -> None:
    files = {
        "proc/meminfo": "MemAvailable: 100 kB\n",
        "proc/self/cgroup": f"{line}\n",
        f"{folder}/{limit}": "5000\n",
        f"{folder}/{usage}": "4500\n",
        f"{folder}/memory.stat": "inactive_file 200\nactive_file 100\nanon 7\n",
    }
    write(tmp_path, files)
    assert available_memory(tmp_path) == 800


def test_a_container_without_a_limit_has_the_machine(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 100 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "4500\n",
        },
    )
    assert available_memory(tmp_path) == 100 * 1024
