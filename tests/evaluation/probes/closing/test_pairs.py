"""What opens and what closes in a text."""

import pytest

from lmcli.evaluation.probes.closing.pairs import find_pairs


def found(text):
    """Each pair with what is between, marked by its kind."""
    return [
        (p.kind, text[slice(*p.opener)], text[p.opener[1] : p.closer[0]], text[slice(*p.closer)])
        for p in find_pairs(text)
    ]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("f(a[1], (b)) {c}", ["a[1], (b)", "1", "c"]),  # the (b) is within another of its sort
        ("1) one :( 2) two (three)", [" 2", "three"]),
        (") ( a", []),
        ("(two\n\nparagraphs)", ["two\n\nparagraphs"]),
        ("“one ‘two’ three” it's “four”", ["one ‘two’ three", "four"]),
        ("„eins“ “two” »drei« «quatre» 「五」", ["eins", "two", "drei", "quatre", "五"]),
        ("“never closed\n\n“closed”", ["closed"]),
        ('"one," he said, "two"', ["one,", "two"]),
        ("it's the boys' 'house'", []),
        ('an odd "one\n\nand an "even" one', ["even"]),
        ('an odd "line\nand an "even" one', ["even"]),
        ('said he, "and began in the midst" of', ["and began in the midst"]),
        ('midst," said he, "and', []),  # counted from the wrong one
        ('"""text""" and "" and \\"', []),
        ('<b>bold</b> <br/> <a href="x">link</a>', ["bold", "x", ' href="x">link']),
        ("<b><i>both</i></b> <b>x</i>", ["<i>both</i>", "both"]),
        ("a < b > c", []),
    ],
)
def test_pairs_are_found_and_what_is_ambiguous_is_left_out(text, inside):
    between = [middle.removeprefix(">") for _, _, middle, _ in found(text)]
    assert sorted(between) == sorted(inside)


def test_each_pair_says_what_it_is():
    assert found('<b>x</b> (y) "z"') == [
        ("tag", "<b", ">x", "</b>"),
        ("bracket", "(", "y", ")"),
        ("quote", '"', "z", '"'),
    ]
