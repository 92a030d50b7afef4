"""The lock on what is written: one process has it, the others are told which."""

import errno
import os

import pytest
from lock_holder import holding

from lmcli.errors import RunError
from lmcli.write_lock import is_locked, locked


def test_a_second_writer_is_told_which_process_writes(tmp_path):
    with holding(tmp_path / "run") as first:
        with (
            pytest.raises(RunError, match=f"being written by process {first.pid} on ") as caught,
            locked(tmp_path / "run"),
        ):
            pass
        assert "wait" in caught.value.hint
        with locked(tmp_path / "other"):  # no process writes there
            pass
        first.stdin.close()
    with locked(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
    assert not is_locked(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []


def test_a_lock_goes_with_a_process_that_is_killed(tmp_path):
    with holding(tmp_path / "run") as first:
        first.kill()
    assert is_locked(tmp_path / "run")  # the file is still there
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


def test_a_lock_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "deep" / "deeper" / "run"):
        raise ZeroDivisionError
    assert [*tmp_path.iterdir()] == []
