"""Arrays of ids are what the tokenizer makes of the parts, from the cache or not."""

import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmcli.data import token_cache
from lmcli.data.corpus import Corpus, CorpusSpec, load_corpus
from lmcli.data.text import Limits, TextOptions
from lmcli.data.token_cache import (
    TokenizedCorpus,
    cache_folder,
    count_targets,
    encode_documents,
    smallest_dtype,
    tokenize_corpus,
)
from lmcli.errors import TextError
from lmcli.registry import TOKENIZERS
from lmcli.report.progress import Stage
from lmcli.tokenizers.byte import ByteTokenizer
from lmcli.tokenizers.char import CharTokenizer
from lmcli.tokenizers.word.tokenizer import WordTokenizer

TEXT = "".join(f"line {n} has the words, and some more of them.\n" for n in range(200))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(file: Path, **options: str) -> Corpus:
    return load_corpus(CorpusSpec((str(file),), TextOptions(**options)))


def encode(file: Path, cache: Path | None, name: str = "char") -> TokenizedCorpus:
    """With a cache, its files are memory-mapped, however small they are."""
    settings = {"char": CharTokenizer, "word": WordTokenizer}[name].Settings()
    limits = Limits(memory=0) if cache else None
    return tokenize_corpus(load(file), name, settings, cache, limits=limits)


def same(one: TokenizedCorpus, other: TokenizedCorpus) -> bool:
    assert one.test is not None
    assert other.test is not None
    streams = zip(
        (one.train, one.valid, one.test), (other.train, other.valid, other.test), strict=True
    )
    return one.tokenizer.to_json() == other.tokenizer.to_json() and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in streams
    )


def in_cache(encoded: TokenizedCorpus) -> bool:
    return isinstance(encoded.train, np.memmap) and encoded.train.filename is not None


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "encoded").iterdir())


def test_each_document_follows_a_start_id() -> None:
    ids = encode_documents(ByteTokenizer(), ["ab", "", "c"])
    assert ids.tolist() == [256, 97, 98, 256, 256, 99]
    assert ids.dtype == np.uint16


def test_no_documents_make_an_empty_array() -> None:
    assert encode_documents(ByteTokenizer(), []).tolist() == []


@pytest.mark.parametrize(("words", "dtype"), [(65_532, np.uint16), (65_533, np.int32)])
def test_ids_are_small_integers_where_all_fit(words: int, dtype: type) -> None:
    text = "\n".join(f"w{n}" for n in range(words)) + "\n"
    tokenizer = WordTokenizer.train([text], WordTokenizer.Settings())
    ids = encode_documents(tokenizer, [text])
    assert tokenizer.size == words + 2  # the words, the line end, the unknown word
    assert ids.dtype == dtype
    assert tokenizer.decode(ids[1:].tolist()) == text


def test_the_vocabulary_comes_from_the_training_part_only(file: Path) -> None:
    corpus = load(file)
    foreign = corpus.valid.documents[0][:40]
    file.write_text(TEXT.replace(foreign, foreign[:-1] + "Ω", 1), encoding="utf-8")
    corpus = load(file)
    assert "Ω" in "".join(corpus.valid.documents)
    encoded = tokenize_corpus(corpus, "char", CharTokenizer.Settings(), None)
    assert np.count_nonzero(encoded.valid == encoded.tokenizer.unknown) == 1
    assert np.count_nonzero(encoded.train == encoded.tokenizer.unknown) == 0


@pytest.mark.parametrize("name", ["char", "word"])
def test_ids_decode_to_the_parts(file: Path, cache: Path, name: str) -> None:
    corpus, encoded = load(file), encode(file, cache, name)
    ids = encoded.train.astype(np.int32)
    edges = [*np.flatnonzero(ids == encoded.tokenizer.start), len(ids)]
    documents = [encoded.tokenizer.decode(ids[a + 1 : b]) for a, b in pairwise(edges)]
    assert documents == list(corpus.train.documents)


@pytest.mark.parametrize("name", ["char", "word"])
def test_the_cache_gives_the_same_ids_as_memory(file: Path, cache: Path, name: str) -> None:
    memory, made, found = (encode(file, place, name) for place in (None, cache, cache))
    assert not in_cache(memory)
    assert in_cache(made)
    assert in_cache(found)
    assert same(memory, made)
    assert same(memory, found)
    assert len(entries(cache)) == 1


def test_a_warm_start_makes_no_vocabulary_and_encodes_nothing(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encode(file, cache, "word")

    def fail(*arguments: object) -> None:
        raise AssertionError("the text was tokenized again")

    for work in ("train", "encode", "encode_with_ends"):
        monkeypatch.setattr(WordTokenizer, work, fail)
    assert same(encode(file, cache, "word"), made)
    with pytest.raises(AssertionError, match="again"):
        encode(file, None, "word")


def test_a_corpus_without_a_test_part_has_no_test_stream(file: Path, cache: Path) -> None:
    held_out = file.with_name("valid.txt")
    held_out.write_text("other words", encoding="utf-8")
    corpus = load_corpus(CorpusSpec((str(file),), valid=(str(held_out),)))
    for _ in range(2):
        encoded = tokenize_corpus(corpus, "char", CharTokenizer.Settings(), cache)
        assert encoded.test is None
        assert len(encoded.valid) == len("other words") + 1


def test_a_text_edited_in_place_is_encoded_anew(file: Path, cache: Path) -> None:
    before = encode(file, cache)
    file.write_text(TEXT.replace("words", "birds"), encoding="utf-8")
    after = encode(file, cache)
    assert same(after, encode(file, None))
    assert not same(before, after)
    assert "birds" in after.tokenizer.decode(after.train[1:1000])


def test_a_text_that_moved_is_found_again(file: Path, cache: Path) -> None:
    encode(file, cache)
    encode(file.rename(file.with_name("b.txt")), cache)
    assert len(entries(cache)) == 1


def test_settings_tokenizer_and_split_each_have_an_entry_of_their_own(
    file: Path, cache: Path
) -> None:
    for options, split in (({}, "interleaved"), ({}, "tail"), ({"documents": "line"}, "tail")):
        corpus = load_corpus(CorpusSpec((str(file),), TextOptions(**options), split))
        for settings in (CharTokenizer.Settings(), CharTokenizer.Settings(min_count=2)):
            tokenize_corpus(corpus, "char", settings, cache)
    encode(file, cache, "word")
    assert len(entries(cache)) == 7


@pytest.mark.parametrize("name", ["about.json", "train.ids", "valid.ids", "test.ids"])
@pytest.mark.parametrize("harm", ["removed", "emptied", "cut", "flipped", "nested", "folder"])
def test_a_damaged_entry_is_made_anew(file: Path, cache: Path, name: str, harm: str) -> None:
    expected = encode(file, None)
    encode(file, cache)
    victim = entries(cache)[0] / name
    data = victim.read_bytes()
    victim.unlink()
    if harm == "folder":
        victim.mkdir()
    elif harm != "removed":
        flipped = data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]
        harms = {"emptied": b"", "cut": data[:-9], "flipped": flipped, "nested": b"[" * 100_000}
        victim.write_bytes(harms[harm])
    again = encode(file, cache)
    assert same(expected, again)
    assert in_cache(again)
    assert len(entries(cache)) == 1


def test_a_damaged_tokenizer_is_made_anew(file: Path, cache: Path) -> None:
    encode(file, cache, "word")
    about = entries(cache)[0] / "about.json"
    about.write_text(
        about.read_text().replace('"words,"', '"birds,"').replace('"words"', '"birds"')
    )
    assert same(encode(file, None, "word"), encode(file, cache, "word"))


def test_a_cache_that_cannot_be_written_falls_back_to_memory(file: Path) -> None:
    encoded = encode(file, file / "not-a-folder")
    assert not in_cache(encoded)
    assert same(encoded, encode(file, None))


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMCLI_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("LMCLI_CACHE")
    assert cache_folder() == Path("/x/lmcli")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/lmcli")


def test_few_ids_are_in_memory_whatever_becomes_of_the_file(file: Path, cache: Path) -> None:
    """In a process of its own: reading a mapped file that is shorter ends it by SIGBUS."""
    file.write_text(TEXT * 100, encoding="utf-8")
    code = (
        "import os, pickle, sys\n"
        "from pathlib import Path\n"
        "from lmcli.data.corpus import CorpusSpec, load_corpus\n"
        "from lmcli.data.token_cache import tokenize_corpus\n"
        "from lmcli.tokenizers.byte import ByteTokenizer\n"
        "corpus = load_corpus(CorpusSpec((sys.argv[1],)))\n"
        "settings, cache = ByteTokenizer.Settings(), Path(sys.argv[2])\n"
        "for _ in range(2):\n"
        "    found = tokenize_corpus(corpus, 'byte', settings, cache)\n"
        "    sums = int(found.train.sum()), int(found.valid.sum())\n"
        "[entry] = (cache / 'encoded').iterdir()\n"
        "for name in ('train', 'valid'):\n"
        "    os.truncate(entry / f'{name}.ids', 0)\n"
        "for ids in (found, pickle.loads(pickle.dumps(found))):\n"
        "    assert sums == (int(ids.train.sum()), int(ids.valid.sum()))\n"
    )
    words = [sys.executable, "-c", code, str(file), str(cache)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- more than the memory holds


def streams(encoded: TokenizedCorpus) -> list[list[int]]:
    assert encoded.test is not None
    return [ids.tolist() for ids in (encoded.train, encoded.valid, encoded.test)]


@pytest.mark.parametrize("name", ["byte", "char", "word", "bpe"])
@pytest.mark.parametrize("documents", ["file", "line"])
def test_ids_written_as_they_come_are_those_of_all_documents_at_once(
    file: Path, cache: Path, name: str, documents: str
) -> None:
    cls = TOKENIZERS.load(name)
    settings = cls.Settings(**({"vocabulary": 280} if name == "bpe" else {}))
    corpus = load(file, documents=documents)
    tokenizer = cls.train(list(corpus.train.documents), settings)
    naive = [
        [
            i
            for document in part.documents
            for i in (tokenizer.start, *tokenizer.encode(document).tolist())
        ]
        for part in (corpus.train, corpus.valid, corpus.test)
        if part is not None
    ]
    small = Limits(window=50, memory=100)
    options = TextOptions(documents=documents)
    again = load_corpus(CorpusSpec((str(file),), options), limits=small)
    for place in (None, cache, cache):
        encoded = tokenize_corpus(again, name, settings, place, limits=small)
        assert encoded.tokenizer.to_json() == tokenizer.to_json()
        assert streams(encoded) == naive


@pytest.mark.parametrize("documents", ["file", "line"])
def test_memory_does_not_grow_with_the_text(tmp_path: Path, cache: Path, documents: str) -> None:
    file = tmp_path / "big.txt"
    file.write_text(TEXT * 800, encoding="utf-8")  # 8 MB, and twice as much in ids
    options = TextOptions(documents=documents)
    limits = Limits(window=1 << 14, memory=1 << 14)
    CharTokenizer("ab")  # whose table of code points is 4 MB whatever the text
    tracemalloc.start()
    try:
        corpus = load_corpus(CorpusSpec((str(file),), options), limits=limits)
        reading = tracemalloc.get_traced_memory()[1]
        tokenize_corpus(corpus, "byte", ByteTokenizer.Settings(), cache, limits=limits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    places = 0 if documents == "file" else 160_000 * (8 + 4 + 4 + 4)  # of each document
    assert reading < 1_000_000 + 4 * places
    assert peak < 3_000_000 + 4 * places  # a checksum is taken of 1 MiB at a time


def test_without_a_cache_many_ids_go_to_a_temporary_file(file: Path) -> None:
    limits, settings = Limits(memory=1000), CharTokenizer.Settings()
    encoded = tokenize_corpus(load(file), "char", settings, None, limits=limits)
    assert isinstance(encoded.train, np.memmap)
    assert not isinstance(encoded.valid, np.memmap)
    assert streams(encoded) == streams(encode(file, None))


@pytest.mark.parametrize(
    ("size", "dtype"), [(255, np.uint8), (256, np.uint16), (65_534, np.uint16), (65_535, np.int32)]
)
def test_the_smallest_integers_hold_the_start_id_too(size: int, dtype: type) -> None:
    characters = "".join(chr(c) for c in range(size + 5000) if not 0xD800 <= c < 0xE000)
    tokenizer = CharTokenizer(characters[: size - 1])
    assert tokenizer.start == size
    assert smallest_dtype(tokenizer) == dtype
    assert encode_documents(tokenizer, [characters[0]]).tolist() == [size, 1]


def test_another_process_maps_the_same_cache(file: Path, cache: Path) -> None:
    encoded = encode(file, cache)
    sent = pickle.dumps(encoded)
    assert encoded.train.tobytes() not in sent
    copy = pickle.loads(sent)
    assert in_cache(copy)
    assert same(encoded, copy)
    assert same(encoded, pickle.loads(pickle.dumps(encode(file, None))))


def test_a_stop_while_ids_are_written_leaves_nothing(file: Path, cache: Path) -> None:
    def stop(event: Stage) -> None:
        if event.name == "tokens" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(load(file), "char", CharTokenizer.Settings(), cache, stop)
    assert entries(cache) == []


def test_what_a_killed_process_left_half_written_goes_after_a_day(file: Path, cache: Path) -> None:
    old, new = cache / "encoded" / ".new-old", cache / "encoded" / ".new-new"
    for folder, age in ((old, 2 * 86_400), (new, 60)):
        (folder / "entry").mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    encode(file, cache)
    assert not old.exists()
    assert new.exists()


def test_each_stage_is_reported_to_its_end(file: Path) -> None:
    events: list[Stage] = []
    corpus = load_corpus(CorpusSpec((str(file),)), events.append)
    tokenize_corpus(corpus, "char", CharTokenizer.Settings(), None, events.append)
    ends = [e for e, after in pairwise([*events, None]) if after is None or after.done == 0]
    assert corpus.test is not None
    expected = [("reading", len(TEXT)), ("vocabulary", corpus.train.chars)]
    expected += [("tokens", part.chars) for part in corpus.parts().values()]
    assert [(e.name, e.total) for e in ends] == expected
    assert all(e.done == e.total for e in ends)


@pytest.mark.parametrize("cached", [True, False])
def test_a_text_that_changed_while_it_was_tokenized_gives_no_ids(
    file: Path, cache: Path, cached: bool
) -> None:
    corpus = load_corpus(CorpusSpec((str(file),)), limits=Limits(memory=0))
    status = file.stat()
    file.write_text(TEXT.replace("words", "birds"), encoding="utf-8")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and same time
    with pytest.raises(TextError, match="has changed while it was read"):
        tokenize_corpus(corpus, "char", CharTokenizer.Settings(), cache if cached else None)
    assert not cached or entries(cache) == []


@pytest.mark.parametrize("together", [1, 3, 100])
def test_targets_are_all_ids_but_the_start_ids(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(token_cache, "COUNTED", together)
    assert count_targets(np.array([9, 1, 2, 9, 9, 3, 4, 5]), 9) == 5
    assert count_targets(np.array([], int), 9) == 0


def test_a_whole_entry_of_another_process_stays_in_place(file: Path, cache: Path) -> None:
    before = encode(file, cache)
    [entry] = entries(cache)
    inode = entry.stat().st_ino
    again = cache / "again"
    encode(file, again)
    [late] = entries(again)
    token_cache._put(late, entry, "char", cache / "aside")
    assert entry.stat().st_ino == inode  # which others may be reading
    assert same(encode(file, cache), before)


def test_a_damaged_entry_makes_place_for_a_whole_one(file: Path, cache: Path) -> None:
    before = encode(file, cache)
    [entry] = entries(cache)
    (entry / "train.ids").unlink()  # which is mapped: shortening it would end this process
    (entry / "train.ids").write_bytes(b"?")
    again = cache / "again"
    encode(file, again)
    [late] = entries(again)
    token_cache._put(late, entry, "char", cache / "aside")
    assert not late.exists()
    assert same(encode(file, cache), before)


def test_the_entries_used_longest_ago_go_when_all_are_too_large(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{name}.txt" for name in "abc"]
    for age, file in enumerate(files):
        file.write_text(TEXT + file.name, encoding="utf-8")
        encode(file, cache)
        os.utime(max(entries(cache), key=lambda e: e.stat().st_mtime), (age, age))
    size = sum(f.stat().st_size for f in entries(cache)[0].iterdir())
    encode(files[0], cache)  # used again: now b is the oldest
    monkeypatch.setattr(token_cache, "MOST_CACHED", 3 * size + 100)
    fourth = tmp_path / "d.txt"
    fourth.write_text(TEXT + "d", encoding="utf-8")
    encode(fourth, cache)
    assert len(entries(cache)) == 3
    times = {entry: entry.stat().st_mtime_ns for entry in entries(cache)}
    for file in (files[0], files[2], fourth):
        encode(file, cache)
    assert set(entries(cache)) == set(times)  # nothing had to be made again
    assert min(times.values()) == 2 * 10**9


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_only_the_owner_can_read_the_cache(file: Path, cache: Path) -> None:
    encode(file, cache)
    assert (cache / "encoded").stat().st_mode & 0o077 == 0


def test_another_table_of_characters_has_an_entry_of_its_own(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(file, cache)
    monkeypatch.setattr(token_cache.unicodedata, "unidata_version", "99")
    encode(file, cache)
    monkeypatch.setattr(token_cache, "_tokenizers_digest", lambda: "another library")
    encode(file, cache)
    assert len(entries(cache)) == 3


def test_without_a_home_there_is_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run as a user without a line in /etc/passwd."""
    for name in ("LMCLI_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert cache_folder() is None
