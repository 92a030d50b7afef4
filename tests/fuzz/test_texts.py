"""Texts, prompts and patterns of any kind: they are read, or two lines say why not."""

import gzip
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcli.data.corpus import CorpusSpec, load_corpus, read_documents
from lmcli.data.text import Limits, TextOptions
from lmcli.errors import TextError
from lmcli.generation.stop_strings import StopStrings
from lmcli.registry import TOKENIZERS

SCALE = settings().max_examples // 100
PLANES = st.one_of(*(st.characters(min_codepoint=p << 16, max_codepoint=(p << 16) + 0xFFFF,
                                   exclude_categories=["Cs"]) for p in range(17)))  # fmt: skip
ODD = st.sampled_from(
    [
        *("\0", "\r\n", "\r", "\n", "\n\n", "\x85", "\u2028", "\ufeff", " ", "\t", "\xa0", "\x1c"),
        *("\x1b[2J", "e\u0301", "\u202e", "a", "'", "<unk>", "word"),
    ]
)
TEXTS = st.lists(ODD | PLANES | st.text(max_size=8), max_size=40).map("".join)
BYTES = st.lists(st.binary(max_size=6) | TEXTS.map(lambda t: t[:20].encode()), max_size=8)
HEADS = st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b", b"BZh"])
OPTIONS = st.builds(
    TextOptions,
    encoding=st.sampled_from(
        [
            "utf-8",
            "utf-16",
            "utf-32",
            "cp1252",
            "latin-1",
            "utf-7",
            "idna",
            "punycode",
            "shift_jis",
            "undefined",
            "base64",
            "x",
            "",
            "utf-8-sig",
            "raw_unicode_escape",
            "unicode_escape",
            "hz",
            "mbcs",
        ]
    ),
    errors=st.sampled_from(["strict", "replace", "ignore"]),
    newlines=st.sampled_from(["keep", "lf"]),
    documents=st.sampled_from(["file", "line", "paragraph"]),
)
members = {name: TOKENIZERS.load(name) for name in ("char", "word", "byte", "bpe")}
SOME = ["a cab faded, a bee. A bead!\n", "fed bee\n\n  \N{GREEK SMALL LETTER ALPHA} cafe\n"]
trained = {name: member.train(SOME, member.Settings()) for name, member in members.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file to be written again and again."""
    return tmp_path_factory.mktemp("texts") / "my.txt"


@given(HEADS, BYTES, OPTIONS, st.booleans())
@settings(max_examples=250 * SCALE, deadline=None)
def test_any_bytes_are_a_text_or_a_text_error(file, refused, head, parts, options, packed):
    data = head + b"".join(parts)
    path = file.with_suffix(".txt.gz") if packed else file
    path.write_bytes(gzip.compress(data, 1) if packed and len(parts) % 3 else data)

    def read():
        documents = read_documents([str(path)], options)
        assert "".join(documents).strip()
        spec = CorpusSpec((str(path),), options)
        corpus = load_corpus(spec, limits=Limits(window=16, memory=len(data) % 40))
        assert corpus.train.documents

    refused(read)


@given(TEXTS.filter(str.strip))
@settings(max_examples=100 * SCALE, deadline=None)
def test_any_text_comes_back_as_documents(file, text):
    file.write_bytes(text.encode())
    joined = "".join(read_documents([str(file)], TextOptions()))
    assert joined == text.removeprefix("\ufeff")
    by_line = read_documents([str(file)], TextOptions(documents="line"))
    full = [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
    assert [line.removesuffix("\n") for line in by_line] == full


@pytest.mark.parametrize("name", members)
def test_any_prompt_is_encoded(name):
    tokenizer = trained[name]

    @settings(max_examples=60 * SCALE, deadline=None)
    @given(TEXTS | st.text(st.characters(), max_size=20))
    def look(text):
        ids = tokenizer.encode(text)
        ends = tokenizer.encode_with_ends(text)
        assert ends.ids.tolist() == ids.tolist()
        assert (ends.ends[-1:] == len(text)).all()
        if name == "byte":
            assert tokenizer.decode(ids) == text.encode("utf-8", "replace").decode()

    look()


@pytest.mark.parametrize("name", members)
def test_any_text_trains_a_tokenizer(name):
    member = members[name]

    @settings(max_examples=(10 if name == "bpe" else 30) * SCALE, deadline=None)
    @given(TEXTS.filter(str.strip))
    def look(text):
        tokenizer = member.train([text], member.Settings())
        assert tokenizer.decode(tokenizer.encode(text)) == text
        again = member.from_json(tokenizer.to_json())
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()

    look()


@given(st.lists(st.text("ab\n", max_size=4), max_size=3), st.lists(st.text("ab\n", max_size=4)))
@settings(max_examples=80 * SCALE, deadline=None)
def test_any_stops_end_a_text_where_the_first_begins(stops, chunks):
    stops = tuple(stop for stop in stops if stop)
    found = StopStrings(stops)
    shown = "".join([found.push(chunk) for chunk in chunks if not found.stopped])
    shown += "" if found.stopped else found.finish()
    text = "".join(chunks)
    begins = [m.start() for stop in stops for m in re.finditer(f"(?={re.escape(stop)})", text)]
    if not begins:
        assert shown == text
    else:
        ends = [m.start() + len(s) for s in stops for m in re.finditer(f"(?={re.escape(s)})", text)]
        assert text.startswith(shown)
        assert len(shown) <= min(ends)


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20) | ODD)
@settings(max_examples=80 * SCALE, deadline=None)
def test_any_name_or_pattern(file, refused, name):
    for text in (name, f"{file.parent}/{name}", f"{name}://x", f"[{name}", f"**/{name}*"):
        if text != "-" and not re.match(r"(?i)(https?|s3|gs|gcs|az|abfss?):", text):
            refused(lambda text=text: read_documents([text], TextOptions()))


def test_a_packed_text_that_unpacks_to_a_thousand_times_its_size_is_refused(file, monkeypatch):
    monkeypatch.setattr("lmcli.data.files._LEAST_CHECKED", 1 << 20)
    path = file.with_name("bomb.txt.gz")
    path.write_bytes(gzip.compress(b"a" * (1 << 24), 9))
    with pytest.raises(TextError, match="unpacks to more than 500 times"):
        read_documents([str(path)], TextOptions())


def test_one_long_line_is_a_document(file):
    file.write_text("word " * 400_000, encoding="utf-8")
    for unit in ("file", "line", "paragraph"):
        (document,) = read_documents([str(file)], TextOptions(documents=unit))[:1]
        assert len(document) >= 9_000
    assert unicodedata.normalize("NFC", document[:5]) == "word "
