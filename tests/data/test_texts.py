"""Bytes of a text come back from wherever they lie."""

import multiprocessing
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.data.texts import InPlace, Spool, Text
from lmcli.errors import TextError


@given(st.lists(st.binary(max_size=20)), st.integers(0, 60), st.data())
def test_a_spool_gives_back_what_was_written(
    parts: list[bytes], memory: int, data: st.DataObject
) -> None:
    spool, whole = Spool(memory), b"".join(parts)
    for part in parts:
        spool.write(part)
        assert spool.read(0, spool.size) == whole[: spool.size]
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    assert spool.size == len(whole)
    assert spool.read(begin, end) == whole[begin:end]


def _read_all(spool: Spool, answers: object) -> None:
    answers.put(spool.read(2, spool.size))  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory", [100, 0])
def test_another_process_reads_the_same_spool(memory: int) -> None:
    spool = Spool(memory)
    spool.write(b"abcdef")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_read_all, args=(spool, answers))
    process.start()
    assert answers.get(timeout=120) == b"cdef"
    process.join()
    assert spool.read(0, 6) == b"abcdef"


def test_a_spool_in_memory_is_copied_with_what_is_in_it() -> None:
    spool = Spool(100)
    spool.write(b"abc")
    copy = pickle.loads(pickle.dumps(spool))
    assert copy.read(0, 3) == b"abc"


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    source = InPlace(str(path))
    assert source.read(2, 5) == b"234"
    if change == "gone":
        path.unlink()
    else:
        new = {"longer": b"0123456789x", "shorter": b"012", "other": b"0123x56789"}[change]
        path.with_name("b.txt").write_bytes(new)
        path.with_name("b.txt").replace(path)
    with pytest.raises(TextError, match="has changed while it was read"):
        source.read(2, 5)


@given(st.text("aé日\U0001f600", max_size=30), st.integers(4, 9), st.integers(0, 50))
def test_windows_hold_whole_characters(content: str, window: int, memory: int) -> None:
    spool = Spool(memory)
    spool.write(b"xx" + content.encode())
    text = Text("a.txt", spool, 2, spool.size - 2, proven=False, window=window)
    parts = [text.decode(data, begin) for begin, data in text.windows()]
    assert "".join(parts) == content
    assert all(len(part.encode()) <= window for part in parts)
