"""Bytes become UTF-8 once, and come back from wherever they lie; a file that changes is noticed."""

import bz2
import gc
import gzip
import multiprocessing
import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.corpus import read_documents
from lmcli.data.text import Limits, Text, TextOptions, open_texts
from lmcli.errors import StorageError, TextError
from lmcli.report.progress import ProgressCounter


def write(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts_of(*texts: str, **options: str) -> list[str]:
    return read_documents(texts, TextOptions(**options))


def problem(*texts: str, **options: str) -> TextError:
    with pytest.raises(TextError) as caught:
        read_documents(texts, TextOptions(**options))
    for line in (caught.value.problem, caught.value.hint):
        assert line
        assert not line.endswith(".")
    return caught.value


def test_the_byte_order_mark_is_dropped(folder: Path) -> None:
    write("a.txt", b"\xef\xbb\xbfhello"), write("b.txt", "hello".encode("utf-16"))
    assert texts_of("a.txt") == ["hello"]
    assert texts_of("b.txt", encoding="utf-16") == ["hello"]


def test_line_ends_are_kept_unless_lf_is_asked_for(folder: Path) -> None:
    write("a.txt", b"a\r\nb\rc\n")
    assert texts_of("a.txt") == ["a\r\nb\rc\n"]
    assert texts_of("a.txt", newlines="lf") == ["a\nb\nc\n"]


def test_other_encodings_and_error_handlings(folder: Path) -> None:
    write("a.txt", b"caf\xe9")
    assert texts_of("a.txt", encoding="latin-1") == ["café"]
    assert texts_of("a.txt", errors="replace") == ["caf\N{REPLACEMENT CHARACTER}"]
    assert texts_of("a.txt", errors="ignore") == ["caf"]


def test_bytes_that_are_no_text_are_named_with_their_offset(folder: Path) -> None:
    error = problem(write("a.txt", b"caf\xe9 x"))
    assert error.problem == "'a.txt' is not utf-8: byte 0xe9 at offset 3"
    assert "--encoding" in error.hint
    assert "--errors replace" in error.hint


def test_a_utf_16_text_is_recognised_in_the_hint(folder: Path) -> None:
    assert "--encoding utf-16" in problem(write("a.txt", "hello".encode("utf-16"))).hint


@pytest.mark.parametrize("encoding", ["utf8x", "base64", "idna\0"])
def test_an_unknown_encoding_is_an_error(folder: Path, encoding: str) -> None:
    write("a.txt", "x")
    assert problem("a.txt", encoding=encoding).problem == f"no encoding named '{encoding}'"


# --- any range of it


@given(st.text("aé日\U0001f600", max_size=30), st.integers(4, 9))
def test_windows_hold_whole_characters(
    tmp_path_factory: pytest.TempPathFactory, content: str, window: int
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.txt"
    path.write_text("\ufeff" + content, encoding="utf-8")
    text = Text("a.txt", path, Limits(window))
    parts = [text.decode(data, begin) for begin, data in text.windows()]
    assert "".join(parts) == content
    assert all(len(part.encode()) <= window for part in parts)


@given(st.binary(max_size=60), st.booleans(), st.data())
def test_any_range_of_a_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, hold: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("files") / "a.txt"
    path.write_bytes(content)
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    text = Text("a.txt", path, Limits(memory=100 * hold), decoded=True)
    assert text.size == len(content)
    assert text.read(begin, end) == content[begin:end]


def opened(name: str, memory: int = 0, **options: str) -> Text:
    """One text, held in memory only if it is as small as that."""
    limits = Limits(memory=memory)
    (text,) = open_texts([name], TextOptions(**options), limits, ProgressCounter())
    return text


def whole(text: Text) -> bytes:
    return b"".join(data for _, data in text.windows())


def test_small_files_are_held_in_memory_up_to_a_size_in_all(folder: Path) -> None:
    names = [write(f"{n}.txt", "abc") for n in range(4)]
    texts = list(open_texts(names, TextOptions(), Limits(memory=7), ProgressCounter()))
    assert [text.held is not None for text in texts] == [True, True, False, False]
    for name in names:
        Path(name).write_text("changed")
    assert [whole(text) for text in texts[:2]] == [b"abc", b"abc"]
    for text in texts[2:]:
        with pytest.raises(TextError, match="has changed while it was read"):
            whole(text)


# --- a file that changes


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changes_while_it_is_used_is_an_error(
    tmp_path: Path, change: str, replaced: bool
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    os.utime(path, ns=(1, 1))
    text = Text("a.txt", path, Limits(memory=0))
    assert text.read(2, 5) == b"234"
    if change == "gone":
        path.unlink()
    else:
        new = {"longer": b"0123456789x", "shorter": b"012", "other": b"0123x56789"}[change]
        if replaced:
            path.with_name("b.txt").write_bytes(new)
            path.with_name("b.txt").replace(path)
        else:
            path.write_bytes(new)
    with pytest.raises(TextError, match=r"'a.txt' has changed while it was read"):
        text.read(2, 5)


def test_a_file_that_changes_between_two_reads_of_a_window_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789" * 10)
    windows = Text("a.txt", path, Limits(window=10, memory=0)).windows()
    assert next(windows) == (0, b"0123456789")
    os.truncate(path, 50)
    with pytest.raises(TextError, match="has changed while it was read"):
        next(windows)


def test_other_bytes_of_the_same_size_and_time_are_noticed_by_their_checksum(
    folder: Path,
) -> None:
    text = opened(write("a.txt", "0123456789"))
    status = Path("a.txt").stat()
    text.check_unchanged()
    write("a.txt", "0123x56789")
    os.utime("a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(TextError, match=r"'a.txt' has changed while it was read"):
        text.check_unchanged()


# --- texts that are written as UTF-8 first


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_plain_file_is_used_where_it_lies(folder: Path, temporary: Path) -> None:
    text = opened(write("a.txt", "abc"))
    assert (text.path, text.decoded) == (folder / "a.txt", False)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"newlines": "lf"}, {"errors": "replace"}, {"encoding": "latin-1"}, {}]
)
def test_other_texts_are_copied_to_a_temporary_file_that_goes_with_them(
    folder: Path, temporary: Path, options: dict[str, str]
) -> None:
    name = write("a.txt", "a\nb") if options else write("a.txt.bz2", bz2.compress(b"a\nb"))
    text = opened(name, **options)
    (copy,) = temporary.iterdir()
    assert text.path == copy
    assert whole(text) == copy.read_bytes() == b"a\nb"
    del text
    gc.collect()
    assert not copy.exists()


def test_a_text_that_cannot_be_decoded_leaves_no_copy(folder: Path, temporary: Path) -> None:
    with pytest.raises(TextError):
        opened(write("a.txt.gz", gzip.compress(b"caf\xe9" * 1000)))
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_disk_too_full_for_a_copy_is_said_to_be_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = folder / "copy"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: full.open("wb"))
    with pytest.raises(StorageError) as caught:
        opened(write("a.txt", "a\r\nb"), newlines="lf")
    problem = "cannot write a temporary copy of 'a.txt': no space left on device"
    assert caught.value.problem == problem
    assert not full.is_symlink()


# --- in another process


def _read_all(text: Text, answers: object) -> None:
    answers.put(whole(text))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_another_process_reads_the_same_file(folder: Path, name: str) -> None:
    content = b"abc" * 1000
    text = opened(write(name, content if name == "a.txt" else gzip.compress(content)), 1 << 20)
    assert content not in pickle.dumps(text)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_read_all, args=(text, answers))
    process.start()
    assert answers.get(timeout=120) == content
    process.join()
    assert whole(text) == content  # the copy is still there


def test_another_process_does_not_take_an_edited_file_for_the_text(folder: Path) -> None:
    text = opened(write("a.txt", "abc"), memory=100)
    sent = pickle.dumps(text)
    write("a.txt", "other")
    assert whole(text) == b"abc"
    with pytest.raises(TextError, match="has changed"):
        whole(pickle.loads(sent))
