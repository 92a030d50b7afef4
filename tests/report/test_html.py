"""Results as HTML: every block, the numbers of the terminal, text as text."""

import re
from html.parser import HTMLParser

import pytest

from lmcli.report.html import fragment, lines, page, slugs
from lmcli.report.result import (
    BITS_PER_CHAR,
    PERCENT,
    PERPLEXITY,
    Column,
    Facts,
    Figure,
    Passage,
    Passages,
    Point,
    Reportable,
    Result,
    Section,
    Series,
    Strip,
    Strips,
    Table,
    text,
)

EVIL = "<script>alert('x')</script>"
TABLE = Table(
    f"scores {EVIL}",
    [Column("name", text("model")), Column("test.perplexity", PERPLEXITY),
     Column("test.bits_per_char", BITS_PER_CHAR)],
    [{"name": EVIL, "test": {"perplexity": 4.56789, "bits_per_char": 1.5, "standard_error": 0.01}}],
    "a note", "Lower is better.", "It is one seed.",
)  # fmt: skip
FIGURE = Figure(
    "by gap", ["3", "9"], [Series("lstm", [Point(0.98765, 0.9, 1.0), Point(0.5)])], PERCENT, "gap",
    0.0625, "chance", read="Higher is better.", caution="It is one seed.",
)  # fmt: skip
STRIPS = Strips(
    "gates", ["I", " grew", EVIL], [Strip("cell", [-0.5, 0.25, 1.0], -1, 1)], [1, -1, 0]
)
BLOCKS = [
    TABLE, FIGURE, STRIPS, Passage(f"said {EVIL}\nagain"),
    Passages("told", [(EVIL, 0.9), ("b", 0.0)]),
    Facts([Column("perplexity", PERPLEXITY)], {"perplexity": 2.34567}),
]  # fmt: skip


class Tree(HTMLParser):
    """Which tags there are, with their attributes, and all text outside of the style."""

    def __init__(self, shown):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(shown)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=["page", "fragment"])
def tree(request):
    if request.param == "page":
        return Tree(
            page(EVIL, [Section(EVIL, BLOCKS, EVIL), Result("eval", {}, BLOCKS)], EVIL, EVIL)
        )
    return Tree(fragment(Result("eval", {}, BLOCKS)))


def test_every_block_is_shown_with_the_numbers_of_the_terminal(tree):
    for cell in [cell for row in TABLE.cells() for cell in row]:
        assert cell in tree.words
    assert {"2.346", "98.8 % (90.0 to 100.0 %)", "50.0 %", "gates", "by gap", "told"} <= {
        *tree.words
    }
    assert "in brackets: 95 % intervals; chance: 6.2 %" in tree.words


def test_two_sentences_say_how_to_read_it_and_what_not_to_conclude(tree):
    at = tree.words.index("How to read it.")
    assert tree.words[at + 1] == "Lower is better."
    assert tree.words.count("What not to conclude.") == tree.words.count("How to read it.")


def test_text_is_text(tree):
    assert not tree.all("script")
    assert EVIL in tree.words


def test_nothing_is_loaded_and_no_script_is_there(tree):
    for _, attributes in tree.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert not {"img", "script", "iframe", "object"} & {tag for tag, _ in tree.tags}


def test_a_table_is_a_table_with_its_headings(tree):
    headings = [a.get("scope") for a in tree.all("th")]
    assert {"col", "row"} == {*headings}
    assert tree.all("caption")


def test_what_scrolls_can_be_reached_by_keyboard_under_a_name_of_its_own(tree):
    regions = [a for a in tree.all("div") if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in regions)
    names = [a["aria-label"] for a in regions]
    assert len(names) == len(set(names)) > 2


def test_a_figure_is_there_for_screens_and_for_phones(tree):
    assert len(tree.all("svg")) == 2 * len(tree.all("figure")) > 0


def test_equal_results_are_equal_pages():
    assert page("t", [Section("s", BLOCKS)]) == page("t", [Section("s", BLOCKS)])


def test_a_page_links_to_its_sections():
    shown = Tree(page("t", [Section(name, []) for name in ("One!", "Two", "Two")]))
    assert [a["href"] for a in shown.all("a")] == ["#content", "#one", "#two", "#two-2"]
    assert {"one", "two", "two-2", "content"} <= {a.get("id") for _, a in shown.tags}


def test_a_bar_of_a_signed_value_begins_at_zero():
    shown = Tree(fragment(Result("inspect", {}, [STRIPS])))
    assert [a["style"] for a in shown.all("i")] == [
        "bottom:25.0%;height:25.0%", "bottom:50.0%;height:12.5%", "bottom:50.0%;height:50.0%",
    ]  # fmt: skip


def test_tokens_are_broken_into_lines_at_the_text_s_own_and_where_they_are_long():
    assert [*lines(Strips("", ["a\n", "b", "c"], []))] == [range(0, 1), range(1, 3)]
    found = [*lines(Strips("", ["word "] * 40, []))]
    assert [len(line) for line in found] == [16, 16, 8]


def test_the_name_of_an_option_is_not_broken():
    shown = fragment(Result("x", {}, [Passage("a <b> --minutes 1 and - - or x--y")]))
    assert 'a &lt;b&gt; <span class="short">--minutes</span> 1 and - - or x--y' in shown


def test_slugs_are_different():
    assert slugs(["a", "a", "a-2", "a"]) == ["a", "a-2", "a-2-2", "a-3"]


def test_a_result_shows_itself_in_a_notebook():
    class Found(Reportable):
        def result(self):
            return Result("eval", {"perplexity": 2.34567}, BLOCKS[-1:])

    assert re.search(r"<dt>perplexity</dt><dd>2.346</dd>", Found()._repr_html_())
    assert Found().to_json()["perplexity"] == 2.34567
