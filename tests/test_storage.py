"""Files: what was written comes back, and a write that fails leaves what was there."""

import errno
import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from crash_states import Recording
from hypothesis import given
from hypothesis import strategies as st

from lmcli import storage
from lmcli.errors import RunError, StorageError
from lmcli.storage import (
    locked,
    new_folder,
    read_json,
    replacing,
    restore,
    write_bytes,
    write_files,
    write_json,
)
from lmcli.tensor_files import read_arrays, read_tensors, write_tensors


@pytest.mark.parametrize(
    "kind", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8]
)
def test_tensors_of_every_kind_and_shape_come_back(tmp_path, kind):
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(kind),
        "turned": torch.arange(6).reshape(2, 3).to(kind).t(),
        "scalar": torch.tensor(3).to(kind),
        "empty": torch.zeros(0, 4).to(kind),
    }
    write_tensors(tmp_path / "t", tensors, {"é": [1, None]})
    found, about = read_tensors(tmp_path / "t")
    assert about == {"é": [1, None]}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == kind
        assert torch.equal(found[name], tensor)


@given(
    values=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(
            lambda k: k not in ("format", "checksum")
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_any_plain_values_come_back_from_json(tmp_path_factory, values):
    file = tmp_path_factory.getbasetemp() / "any.json"
    write_json(file, values)
    assert read_json(file) == values


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_tensors_are_read_as_arrays_too(tmp_path, kind):
    tensors = {"a": torch.arange(6).reshape(2, 3).to(kind), "b": torch.tensor(3).to(kind)}
    write_tensors(tmp_path / "t", tensors, {"step": 3})
    found, about = read_arrays(tmp_path / "t")
    assert about == {"step": 3}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.numpy().dtype
        assert np.array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot write"), (errno.EIO, "cannot write")],
)
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path, monkeypatch, call, number, message
):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    file = tmp_path / "file"
    write_bytes(file, b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match=message):
        write_bytes(file, b"new")
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    write_bytes(file, b"new")
    assert file.read_bytes() == b"new"


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    write_bytes(tmp_path / "file", b"new")
    assert order == ["fsync", "rename", "fsync"]  # at last the folder: the name is there for good


def test_a_temporary_file_follows_no_link_and_is_nobody_elses(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    monkeypatch.setattr(storage.secrets, "token_hex", lambda size: "0" * 8)
    (tmp_path / ".file.00000000.tmp").symlink_to(mine)
    with pytest.raises(StorageError, match="file exists"):
        write_bytes(tmp_path / "file", b"new")
    assert mine.read_bytes() == b"mine"


def test_of_files_written_together_the_last_is_new_only_if_all_are(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"old")
    with Recording(tmp_path) as recording:
        write_files(dict.fromkeys(paths, b"new"))
    found = {tuple(state[name] for name in "abc") for state in recording.states()}
    assert found == {(b"new",) * n + (b"old",) * (3 - n) for n in range(4)}


# ------------------------------------------------------------------ one writer at a time


HOLD = """
import sys
from pathlib import Path
from lmcli.storage import (locked)
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holding(path):
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_writer_is_told_which_process_writes(tmp_path):
    with holding(tmp_path / "run") as first:
        with (
            pytest.raises(RunError, match=f"being written by process {first.pid} on ") as caught,
            locked(tmp_path / "run"),
        ):
            pass
        assert "wait" in caught.value.hint
        with locked(tmp_path / "other"):  # which nobody writes
            pass
        first.stdin.close()
    with locked(tmp_path / "run"):
        assert storage.is_locked(tmp_path / "run")
    assert not storage.is_locked(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path):
    with holding(tmp_path / "run") as first:
        first.kill()
    assert storage.is_locked(tmp_path / "run")  # the file is still there
    with locked(tmp_path / "run"):
        pass
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".run.json.0123abcd.tmp", ".lstm.lock", ".notes.tmp", "a.0123abcd.tmp"):
        (run / name).touch()
    with holding(run / "gru") as other:
        with locked(run):
            left = [".gru.lock", ".notes.tmp", "a.0123abcd.tmp"]
            assert sorted(f.name for f in run.iterdir()) == left
        other.stdin.close()


def test_a_folder_is_not_brought_back_under_a_process_that_is_replacing_it(tmp_path):
    with holding(tmp_path / "run") as first:
        (tmp_path / ".run.old").mkdir()
        with pytest.raises(RunError, match=f"being written by process {first.pid}"):
            restore(tmp_path / "run")
        assert not (tmp_path / "run").exists()
        first.stdin.close()
    restore(tmp_path / "run")
    assert [*tmp_path.iterdir()] == [tmp_path / "run"]
    (tmp_path / "run").rename(tmp_path / ".run.old")
    with locked(tmp_path / "run"):  # by this process itself
        restore(tmp_path / "run")
        assert (tmp_path / "run").is_dir()


def test_a_lock_on_a_full_disk_is_one_all_the_same(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with (
        locked(tmp_path / "run"),
        pytest.raises(RunError, match="written by another process"),
        locked(tmp_path / "run"),
    ):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_disk_that_fails_while_it_flushes_names_is_an_error(tmp_path, monkeypatch):
    def fail(opened):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    number = errno.EINVAL  # what network disks answer that flush no folders
    storage.sync_folder(tmp_path)
    number = errno.EIO
    with pytest.raises(OSError, match="error"):
        storage.sync_folder(tmp_path)


def test_a_lock_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "deep" / "deeper" / "run"):
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []


# ------------------------------------------------------------------ folders


def content(folder):
    """The files of a folder by name; a folder in it by the names in that."""
    return {
        f.name: sorted(g.name for g in f.iterdir()) if f.is_dir() else f.read_text()
        for f in folder.iterdir()
    }


OLD = {"a": "old", "b": "old", "notes.md": "mine", "plots": ["x.png"]}
NEW = {"a": "new", "c": "new", "notes.md": "mine", "plots": ["x.png"]}


@pytest.fixture
def folder(tmp_path):
    """A folder with files named a and b, and with files of the user's."""
    path = tmp_path / "folder"
    (path / "plots").mkdir(parents=True)
    (path / "plots" / "x.png").write_text("mine")
    for name in ("a", "b", "notes.md"):
        (path / name).write_text(OLD[name])
    return path


def replace(path):
    """A new folder with files named a and c."""
    with replacing(path, ("a", "b", "c")) as new:
        for name in ("a", "c"):
            write_bytes(new / name, b"new")


def test_a_folder_is_replaced_but_for_other_files(folder, tmp_path):
    replace(folder)
    assert content(folder) == NEW
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_replaced_keeps_its_permissions_and_its_links(folder, tmp_path):
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert content(folder) == NEW
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_stays_as_it_was_whichever_call_finds_the_disk_full(folder, snapshot, full_disks):
    before = snapshot()
    for disk in full_disks():
        with disk:
            replace(folder)
        assert snapshot() == before or not disk.failed, disk.number
    assert content(folder) == NEW
    assert disk.number > 8


def test_an_error_of_the_caller_leaves_the_folder_as_it_was(folder, snapshot):
    before = snapshot()
    with suppress(ZeroDivisionError), replacing(folder, ("a", "b")) as new:
        write_bytes(new / "a", b"new")
        raise ZeroDivisionError
    assert snapshot() == before


def test_a_process_that_is_killed_leaves_the_old_folder_or_the_new_one(tmp_path, full_disks):
    for disk in full_disks(killed=True):
        path = tmp_path / str(disk.number) / "folder"
        path.mkdir(parents=True)
        for name in ("a", "b", "notes.md"):
            (path / name).write_text(OLD[name])
        with disk:
            replace(path)
        restore(path)
        ours = {name: text for name, text in content(path).items() if name != "notes.md"}
        assert ours in ({"a": "old", "b": "old"}, {"a": "new", "c": "new"}), disk.number
        replace(path)
        assert content(path) == {"a": "new", "c": "new", "notes.md": "mine"}, disk.number
        assert list(path.parent.iterdir()) == [path], disk.number
    assert disk.number > 12


def test_a_new_folder_is_none_after_a_failure_with_its_parents(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_only_empty_folders_go_after_a_failure(tmp_path):
    with suppress(ZeroDivisionError), new_folder(tmp_path / "runs" / "mine"):
        (tmp_path / "runs" / "theirs").mkdir()
        raise ZeroDivisionError
    assert content(tmp_path) == {"runs": ["theirs"]}
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "runs" / "theirs"):
        raise ZeroDivisionError
    assert content(tmp_path) == {"runs": ["theirs"]}
