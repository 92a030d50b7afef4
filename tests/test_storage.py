"""Files: what was written comes back, and a write that fails leaves what was there."""

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from crash_states import Recording
from hypothesis import given
from hypothesis import strategies as st

from lmcli import storage
from lmcli.errors import StorageError
from lmcli.storage import new_folder, read_json, write_bytes, write_files, write_json
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


@pytest.mark.parametrize("reads", ["read_tensors", "read_arrays"])
def test_tensors_stay_as_they_were_read_whatever_becomes_of_the_file(tmp_path, reads):
    """In a process of its own: reading a mapped file that is shorter ends it by SIGBUS."""
    write_tensors(tmp_path / "t", {"ones": torch.ones(1_000_000)}, {})
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lmcli import tensor_files\n"
        f"tensors, _ = tensor_files.{reads}(Path(sys.argv[1]))\n"
        "os.truncate(sys.argv[1], 0)\n"
        "assert float(tensors['ones'].sum()) == 1_000_000\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "t")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


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


def test_a_temporary_file_follows_no_link_and_is_new(tmp_path, monkeypatch):
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


def test_a_disk_that_fails_while_it_flushes_names_is_an_error(tmp_path, monkeypatch):
    def fail(opened):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    number = errno.EINVAL  # what network disks answer that flush no folders
    storage.sync_folder(tmp_path)
    number = errno.EIO
    with pytest.raises(OSError, match="error"):
        storage.sync_folder(tmp_path)


def test_a_new_folder_is_none_after_a_failure_with_its_parents(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_only_empty_folders_go_after_a_failure(tmp_path):
    with suppress(ZeroDivisionError), new_folder(tmp_path / "runs" / "mine"):
        (tmp_path / "runs" / "theirs").mkdir()
        raise ZeroDivisionError
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs", tmp_path / "runs" / "theirs"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "runs" / "theirs"):
        raise ZeroDivisionError
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs", tmp_path / "runs" / "theirs"]


# ------------------------------------------------------------------ Windows


@pytest.fixture
def refusing(monkeypatch):
    """``refusing(2)``: the first two renames fail as on Windows; a list of all attempts."""

    def begin(refused):
        attempts, rename = [], os.replace

        def replace(*paths):
            attempts.append(time.monotonic())
            if len(attempts) <= refused:
                raise PermissionError(errno.EACCES, "Access is denied")
            rename(*paths)

        monkeypatch.setattr(os, "replace", replace)
        return attempts

    return begin


def test_on_windows_a_file_that_another_process_reads_is_replaced_when_it_is_free(
    tmp_path, monkeypatch, refusing
):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    attempts = refusing(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        write_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    assert len(attempts) == 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("system", "least", "most"), [("nt", 0.5, 5.0), ("posix", 0.0, 0.4)])
def test_a_file_that_is_never_free_is_an_error_after_a_second_on_windows_and_at_once_elsewhere(
    tmp_path, monkeypatch, refusing, system, least, most
):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    attempts = refusing(100)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        with pytest.raises(StorageError, match="cannot write"):
            write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert least <= attempts[-1] - attempts[0] <= most
    assert (len(attempts) > 1) == (system == "nt")
