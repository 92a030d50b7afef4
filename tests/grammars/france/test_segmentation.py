"""Sentences as they stand in a text: put end to end they are the text, on one line."""

import random
import textwrap

import pytest

from lmcli.grammars.france.segmentation import CUT, LONG, Script

WORDS = Script("words", wrapped=False, spaced=False)
CHARACTERS = Script("characters", wrapped=False, spaced=False)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("He went. She came! Who? Nobody…", ["He went. ", "She came! ", "Who? ", "Nobody… "]),
        ('"Go." He said. (Stop!) Yes.', ['"Go." ', "He said. ", "(Stop!) ", "Yes. "]),
        ("Он ушёл. «Куда?» Домой.", ["Он ушёл. ", "«Куда?» ", "Домой. "]),
        ("هل ذهب؟ نعم.", ["هل ذهب؟ ", "نعم. "]),
        ("वह गया। हाँ।", ["वह गया। ", "हाँ। "]),
        (
            "J. R. Smith wrote 3.14, i.e. a number. So.",
            ["J. R. Smith wrote 3.14, i.e. a number. ", "So. "],
        ),
    ],
)
def test_sentences_end_at_the_marks_of_their_script(text, parts):
    assert WORDS.sentences([text]) == parts


def test_chinese_and_japanese_need_no_blanks():
    assert CHARACTERS.sentences(["他走了。“去哪儿？”回家！"]) == [
        "他走了。",
        "“去哪儿？”",
        "回家！ ",
    ]
    assert CHARACTERS.sentences(["彼は3.5年住んだ。帰った。"]) == ["彼は3.5年住んだ。", "帰った。 "]


def test_verse_lines_and_code_lines_are_sentences_and_indentation_stays():
    verse = "the rose is red,\nthe violet blue\n\nand so are you\n"
    assert WORDS.sentences([verse]) == ["the rose is red, ", "the violet blue ", "and so are you "]
    code = "def f(x):\n    if x:\n\treturn x.y\r\n"
    assert WORDS.sentences([code]) == ["def f(x): ", "    if x: ", "\treturn x.y "]


def prose(seed, words=4000):
    """Paragraphs of sentences of words of two to nine letters."""
    draw = random.Random(seed)
    paragraphs, paragraph = [], []
    for _ in range(words // 10):
        some = ["x" * draw.randint(2, 9) for _ in range(draw.randint(4, 16))]
        paragraph.append(" ".join(some).capitalize() + ".")
        if draw.random() < 0.2:
            paragraphs.append(paragraph)
            paragraph = []
    return paragraphs


@pytest.mark.parametrize("between", ["\n\n", "\n   "])
def test_the_lines_of_wrapped_paragraphs_are_joined(between):
    paragraphs = prose(0)
    text = between.join(textwrap.fill(" ".join(p), 70) for p in paragraphs)
    script = Script.of(text)
    assert script.wrapped
    assert [s.strip() for s in script.sentences([text])] == [s for p in paragraphs for s in p]


def test_lines_that_are_paragraphs_verse_or_code_are_not_wrapped(project):
    paragraphs = "\n".join(" ".join(p) for p in prose(1))
    draw = random.Random(0)
    verse = "\n".join(" ".join(["xxxx"] * draw.randint(4, 11)) for _ in range(400))
    code = (project / "lmcli" / "grammars" / "addition.py").read_text()
    for text in (paragraphs, verse, code, "\n\n", ""):
        assert not Script.of(text).wrapped


def test_a_line_end_inside_a_chinese_sentence_vanishes():
    sentence = "这是一个很长的句子" * 3 + "。"
    text = "\n".join(textwrap.wrap(sentence * 40, 30))
    script = Script.of(text)
    assert script == Script("characters", wrapped=True, spaced=False)
    assert "".join(script.sentences([text])) == sentence * 40 + " "


def test_all_sentences_together_are_the_words_of_the_text_on_one_line():
    odd = "a\u2028b\x0bc\x85d\r\ne\rf\n\n  g. H? i \x1c j"
    for script in (WORDS, Script("words", wrapped=True, spaced=False)):
        together = "".join(script.sentences([odd]))
        assert together.split() == odd.split()
        assert len(together.splitlines()) == 1


def test_a_sentence_without_end_is_cut_into_short_pieces():
    words = [f"w{n}" for n in range(LONG + 5)]
    pieces = WORDS.sentences([" ".join(words)])
    assert "".join(pieces).split() == words
    assert max(map(WORDS.measure, pieces)) == CUT
    assert len(WORDS.sentences([" ".join(words[:LONG])])) == 1
    assert "".join(CHARACTERS.sentences(["字" * 250])) == "字" * 250 + " "


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("Anna grew up in France.", "words"),
        ("안나는 프랑스에서 자랐다.", "words"),
        ("安娜在法国长大。现在她说法语。", "characters"),
        ("アンナはフランスで育った。", "characters"),
        ("安娜 在 法国 长大 。", "words"),
    ],
)
def test_gaps_are_counted_in_characters_where_words_are_not_set_apart(text, unit):
    assert Script.of(text * 5).unit == unit


def test_what_sticks_to_cue_or_answer_is_no_word_of_the_gap():
    assert WORDS.gap(". Now she speaks fluent ") == 4
    assert WORDS.gap(" . Now she speaks fluent ") == 5
    assert WORDS.gap(". Elle parle l'") == 2
    assert WORDS.gap("-") == WORDS.gap("") == 0
    assert CHARACTERS.gap("。她的") == 3


def test_the_tail_of_a_text_is_whole_words_as_they_stand():
    assert WORDS.tail("one two  three\tfour ", 3) == "two  three\tfour "
    assert CHARACTERS.tail("他走了。", 2) == "了。"


def test_marks_stand_apart_or_are_rare_in_a_spaced_text():
    assert Script.of("it rains . we stay , all of us . " * 9).spaced
    assert Script.of("it rains and we stay\n" * 9).spaced
    assert not Script.of("It rains. We stay, all of us. " * 9).spaced
