"""A folder that is replaced: the old one or the new one, whatever fails in between."""

from contextlib import suppress

import pytest
from lock_holder import holding

from lmcli.errors import RunError
from lmcli.folder_replacement import replacing, restore
from lmcli.storage import write_bytes
from lmcli.write_lock import locked


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
