"""Facts: those that are shipped are whole, the language of a text is found, mistakes are named."""

import re

import pytest

from lmcli.errors import TextError, UsageError
from lmcli.grammars.france.facts import facts_of_pairs, load_facts, recognise, shipped
from lmcli.grammars.france.segmentation import Script

TEXTS = {
    "de": "Der Hund lief in den Wald, und die Kinder sahen ihn nicht, weil es dunkel war.",
    "en": "The dog ran into the wood, and the children did not see it, for it was dark.",
    "es": "El perro corrió al bosque y los niños no lo vieron porque la noche era oscura.",
    "fr": "Le chien courut dans la forêt et les enfants ne le virent pas dans le noir.",
    "it": "Il cane corse nel bosco e i bambini non lo videro perché era la notte.",
    "ja": "犬は森に走って行ったが、暗かったので子供たちには見えなかった。",
    "pt": "O cão correu para a floresta e os meninos não o viram, porque era uma noite escura.",
    "ru": "Собака убежала в лес, и дети её не увидели, потому что было темно, а он не знал.",
    "zh": "狗跑到树林里去了，孩子们看不见它，因为天已经黑了，这是他说的。",
}
GOOD = """
language = "en"
cues = ["{name} grew up in {cue}."]
queries = ["Now {she} speaks {answer}."]
pairs = [{ cue = "France", answer = "French" }, { cue = "Spain", answer = "Spanish" }]
[names]
female = ["Anna"]
[words]
she = { female = "she" }
"""


def test_nine_languages_are_shipped():
    assert shipped() == sorted(TEXTS)


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_shipped_facts_are_whole(code):
    facts = load_facts(code)
    assert facts.language == code
    assert len({pair.answer for pair in facts.pairs}) >= 12
    assert len(facts.names) == 2
    assert min(map(len, facts.names.values())) >= 4
    assert len(facts.frequent_words) >= 20
    for pair in facts.pairs:
        for person in facts.people:
            cues = [str(facts.cue(t, pair, person)) for t in facts.cues]
            queries = [str(facts.query(t, pair, person)) for t in facts.queries]
            assert all(person.name in cue and pair.cue in cue for cue in cues)
            assert all(pair.answer in query for query in queries)
            assert not re.search(r"[{}]|  ", "".join(cues + queries))


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_a_query_shorter_than_every_gap_but_the_least_is_shipped(code):
    facts = load_facts(code)
    script = Script.of(TEXTS[code])
    pair, person = facts.pairs[0], facts.people[0]
    lengths = [
        script.gap("." + script.joint + facts.query(t, pair, person).before) for t in facts.queries
    ]
    assert min(lengths) <= 4


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_the_language_of_a_text_is_found_by_its_frequent_words(code):
    found, known = recognise(Script.of(TEXTS[code]).tokens(TEXTS[code]))
    assert (found.language, known) == (code, True)


def test_english_stands_in_for_a_language_that_is_not_known():
    for text in (
        "x = lambda z: print(z) if z else None",
        "",
        "Pies pobiegł ku puszczy, wtem dzieci zniknęły",
    ):
        found, known = recognise(Script.of(text).tokens(text))
        assert (found.language, known) == ("en", False)


def test_verbs_and_pronouns_agree_with_the_name():
    facts = load_facts("ru")
    (anna,) = (p for p in facts.people if p.name == "Анна")
    (ivan,) = (p for p in facts.people if p.name == "Иван")
    pair = facts.pairs[0]
    cue, query = facts.cues[0], facts.queries[1]
    assert str(facts.cue(cue, pair, anna)) == "Анна выросла во Франции."
    assert str(facts.cue(cue, pair, ivan)) == "Иван вырос во Франции."
    assert str(facts.query(query, pair, ivan)) == "Теперь он бегло говорит по-французски."
    assert set(pair.forms) >= {"Франция", "Франции", "Францией", "по-французски"}


def test_a_cue_within_which_another_form_stands_is_not_counted_twice():
    (japan,) = (p for p in load_facts("fr").pairs if p.name == "Japon")
    assert (japan.cue, japan.forms) == ("au Japon", ("Japon", "japonais"))


def test_sentences_for_spaced_texts_have_blanks_before_marks():
    facts = load_facts("fr").spaced()
    pair, person = facts.pairs[0], facts.people[0]
    assert (
        str(facts.cue(facts.cues[3], pair, person))
        == "Dans son enfance , Anne vivait en Allemagne ."
    )
    assert str(facts.query(facts.queries[0], pair, person)) == "Son allemand est excellent ."


@pytest.fixture
def written(tmp_path):
    """``written(text)``: the facts of a file."""

    def load(text, name="my.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return load_facts(tmp_path / name)

    return load


def test_facts_of_ones_own_are_read(written):
    facts = written(GOOD)
    assert [(p.cue, p.answer) for p in facts.pairs] == [("France", "French"), ("Spain", "Spanish")]
    assert (
        str(facts.query(facts.queries[0], facts.pairs[1], facts.people[0]))
        == "Now she speaks Spanish."
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('language = "en"', "", "has no 'language'"),
        ("cues =", "cue =", "has no 'cues'"),
        ("queries =", "query =", "has no 'queries'"),
        ("pairs =", "pair =", "has no 'pairs'"),
        ('{ cue = "Spain", answer', '{ cue = "Spain", ansver', "has no 'pairs 2: answer'"),
        ('{ cue = "France", ', "{ ", "has no 'pairs 1: cue'"),
        ('female = "she"', 'woman = "she"', "has no 'words.she.female'"),
        ('["{name} grew up in {cue}."]', '"{cue}"', "'cues' is not a list"),
        ('["{name} grew up in {cue}."]', "[]", "'cues' is empty"),
        ('["{name} grew up in {cue}."]', "[1]", "'cues' is not a list of texts"),
        ("in {cue}", "in {land}", "has 0 times {cue}"),
        ("speaks {answer}", "speaks {answer} {answer}", "has 2 times {answer}"),
        ("{she}", "{shee}", "{shee}, which nothing stands for"),
        ('"Spanish"', '"French"', "pairs 1 and 2 have the answer 'French'"),
        ('"Spain"', '"France"', "pairs 1 and 2 have the cue 'France'"),
        (', { cue = "Spain", answer = "Spanish" }', "", "has 1 pairs"),
        ("[words]", "[words", "is not TOML"),
        ('"France", answer', "7, answer", "'pairs 1: cue' is not a text"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(written, old, new, problem):
    assert old in GOOD
    with pytest.raises(TextError) as caught:
        written(GOOD.replace(old, new))
    assert "my.toml" in caught.value.problem
    assert problem in caught.value.problem
    assert caught.value.hint


def test_a_language_or_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UsageError) as caught:
        load_facts("ent")
    assert caught.value.hint == "did you mean 'en'?"
    with pytest.raises(TextError, match="cannot read"):
        load_facts(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes('language = "ä"'.encode("latin-1"))
    with pytest.raises(TextError, match="not UTF-8 at byte 12"):
        load_facts(tmp_path / "latin.toml")


FRAME = "I grew up in {a}. ... I speak fluent {b}."


def test_pairs_and_a_frame_are_facts(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text('France,French\n\n"Korea, North", Korean \n', encoding="utf-8-sig")
    facts = facts_of_pairs(path, FRAME)
    assert [(p.cue, p.answer) for p in facts.pairs] == [
        ("France", "French"),
        ("Korea, North", "Korean"),
    ]
    (nobody,) = facts.people
    assert str(facts.cue(facts.cues[0], facts.pairs[1], nobody)) == "I grew up in Korea, North."
    assert str(facts.query(facts.queries[0], facts.pairs[0], nobody)) == "I speak fluent French."


def test_a_wrong_row_or_frame_is_named(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("France,French\nSpain\n")
    with pytest.raises(TextError, match=r"my.csv' line 2 is not a cue and an answer"):
        facts_of_pairs(path, FRAME)
    for frame in ("I grew up in {a}.", "In {b} ... in {a}", "{a} ... {a}"):
        with pytest.raises(UsageError, match="--frame"):
            facts_of_pairs(path, frame)
    path.write_text("France,French\nSpain,Spanish\n")
    with pytest.raises(TextError, match="which nothing stands for"):
        facts_of_pairs(path, "{name} in {a} ... {b}")
