"""TEXT arguments name files, folders, patterns, URLs and standard input; each is found once."""

import bz2
import gzip
import io
import lzma
import os
import sys
from pathlib import Path

import fsspec
import pytest

from lmcli.data import files
from lmcli.data.corpus import find_documents, read_documents
from lmcli.data.text import TextOptions
from lmcli.errors import TextError


def write(path: str, text: str | bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts_of(*texts: str, **options: str) -> list[str]:
    return read_documents(texts, TextOptions(**options))


def named(*texts: str) -> list[tuple[str, str]]:
    """Names and documents."""
    return list(zip(*find_documents(texts, TextOptions()), strict=True))


def problem(*texts: str, **options: str) -> TextError:
    with pytest.raises(TextError) as caught:
        read_documents(texts, TextOptions(**options))
    for line in (caught.value.problem, caught.value.hint):
        assert line
        assert not line.endswith(".")
    return caught.value


def test_several_files_are_documents_in_the_given_order(folder: Path) -> None:
    write("b.txt", "second"), write("a.txt", "first")
    assert named("b.txt", "a.txt") == [("b.txt", "second"), ("a.txt", "first")]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    write("a.txt", "one"), write("b.txt", "two")
    assert texts_of("a.txt", "./a.txt", "*.txt") == ["one", "two"]


def test_a_glob_is_sorted(folder: Path) -> None:
    for name in ("c", "a", "b"):
        write(f"{name}.txt", name)
    assert texts_of("*.txt") == ["a", "b", "c"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    write("a[1].txt", "brackets"), write("a1.txt", "other")
    assert texts_of("a[1].txt") == ["brackets"]


def test_a_folder_gives_its_texts_sorted_and_nothing_else(folder: Path) -> None:
    write("f/b.txt", "b"), write("f/a.txt.gz", gzip.compress(b"a"))
    write("f/notes.md", "no"), write("f/.hidden.txt", "no"), write("f/deeper/c.txt", "no")
    assert texts_of("f") == ["a", "b"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed_files_are_unpacked(folder: Path, suffix: str, pack) -> None:
    assert texts_of(write(f"a.txt.{suffix}", pack("naïve".encode()))) == ["naïve"]


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("from a pipe é".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert named("-") == [("-", "from a pipe é")]


def test_urls_go_through_fsspec_compressed_or_not() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/lmcli/a.txt", b"plain")
    files.pipe("/lmcli/b.txt.gz", gzip.compress(b"packed"))
    assert texts_of("memory://lmcli/a.txt", "memory://lmcli/b.txt.gz") == ["plain", "packed"]
    assert texts_of("memory://lmcli/*") == ["plain", "packed"]


def test_a_missing_file_names_the_nearest(folder: Path) -> None:
    write("shakespeare.txt", "x")
    error = problem("shakespear.txt")
    assert error.problem == "no file named 'shakespear.txt'"
    assert error.hint == "did you mean 'shakespeare.txt'?"


def test_a_missing_folder_is_named(folder: Path) -> None:
    assert problem("nowhere/a.txt").hint == "there is no folder named 'nowhere'"


def test_a_folder_without_texts_is_an_error(folder: Path) -> None:
    write("f/a.md", "x")
    assert problem("f").problem == "no texts in folder 'f'"


def test_a_pattern_that_matches_nothing_is_an_error(folder: Path) -> None:
    assert problem("*.txt").problem == "no file matches '*.txt'"
    assert problem("memory://no-such-folder/*.txt").problem.startswith("no file matches")


def test_no_text_at_all_is_an_error() -> None:
    assert problem().problem == "no text given"


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_file_that_does_not_unpack_is_damaged(folder: Path, suffix: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[suffix]
    whole = pack(b"hello " * 1000)
    for name, data in {"cut": whole[:-6], "other": b"not packed", "void": b""}.items():
        error = problem(write(f"{name}.txt.{suffix}", data))
        assert "damaged" in error.problem or "empty" in error.problem


@pytest.mark.parametrize(
    "url", ["memory://none.txt", "http://127.0.0.1:9/a.txt", "file:///nowhere/a.txt"]
)
def test_a_url_that_fails_is_an_error(url: str) -> None:
    assert problem(url).problem.startswith(f"cannot read '{url}': ")


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://a.txt",
        "nosuch://*",
        "reference://k",
        "ftp://127.0.0.1/a.txt",
        "zip://a.txt::memory://a.zip",
        "simplecache::memory://a.txt",
        "reference://k::file:///nowhere/*.json",
    ],
)
def test_an_address_of_a_kind_that_can_reach_out_is_not_opened(url: str) -> None:
    assert "are not opened" in problem(url).problem


def test_a_packed_text_that_unpacks_to_hundreds_of_times_its_size_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = write("a.txt.gz", gzip.compress(b"x" * 1_000_000))
    assert len(texts_of(packed)[0]) == 1_000_000  # small ones may
    monkeypatch.setattr(files, "_LEAST_CHECKED", 1000)
    assert "unpacks to more than" in problem(packed).problem


def test_a_path_that_no_file_can_have_is_an_error(folder: Path) -> None:
    write("a.txt", "x")
    problem("a.txt/b.txt")
    problem("x" * 5000)
    problem("a\0.txt")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_an_error(folder: Path) -> None:
    write("f/a.txt", "x")
    Path("f/a.txt").chmod(0)
    assert problem("f").problem == "cannot read 'f/a.txt': permission denied"
    Path("f").chmod(0)
    assert problem("f").problem == "cannot read 'f': permission denied"
    Path("f").chmod(0o700)
