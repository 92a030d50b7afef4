"""The page in a real browser: what is typed, moved, streamed; nothing from elsewhere; markup."""

import json
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from typer.testing import CliRunner

from lmcli.cli import app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
WIDE = {"width": 1366, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page; at the end nothing may have been said on the console or asked of others."""
    contexts, said, asked = [], [], []

    def open_one(**options):
        context = browser.new_context(viewport=WIDE, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.locator("body")).to_have_attribute("data-ready", "true")
        expect(page.locator("#next")).to_have_attribute("data-shown", page_prompt(page))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []
    assert all(one.startswith((f"{address}/", "data:,")) for one in asked), asked


def page_prompt(page):
    return page.locator("#prompt").input_value()


def bars(page, model="lstm"):
    """The probabilities that a model's card shows."""
    rows = page.locator(f'#next-cards [data-model="{model}"] li')
    return rows.evaluate_all("rows => rows.map(row => row.dataset.probability)")


def type_text(page, text):
    page.locator("#prompt").fill(text)
    expect(page.locator("#next")).to_have_attribute("data-shown", text)


def move(page, steps):
    """The slider to a place, by keyboard; the gap there, once it is answered."""
    page.locator("#gap").focus()
    page.keyboard.press("Home")
    for _ in range(steps):
        page.keyboard.press("ArrowRight")
    gap = page.locator("#gap-words").text_content()
    expect(page.locator("#memory")).to_have_attribute("data-gap", gap, timeout=15_000)
    return gap


def shown(page):
    """Each model's probability of the right word, as the table has it."""
    rows = page.locator("#answers tbody tr")
    pairs = rows.evaluate_all(
        "rows => rows.map(row => [row.dataset.model, row.cells[1].dataset.probability])"
    )
    return {model: p for model, p in pairs if p is not None}


def test_bars_change_as_one_types_and_the_text_is_coloured(open_page):
    page = open_page()
    type_text(page, "Zoe grew up in")
    before = bars(page)
    assert len(before) == 8
    type_text(page, "Zoe grew up in France .")
    assert bars(page) != before
    tokens = page.locator('#next-cards [data-model="ngram"] .token')
    assert tokens.all_text_contents() == ["Zoe", " grew", " up", " in", " France", " ."]
    levels = tokens.evaluate_all("all => all.map(one => one.style.getPropertyValue('--level'))")
    assert 0 < float(levels[0]) <= 1
    first = page.locator('#next-cards [data-model="ngram"] li button').first
    word = first.locator(".word").text_content()
    first.click()
    expect(page.locator("#prompt")).to_have_value(f"Zoe grew up in France . {word}")


def test_the_slider_shows_the_numbers_of_cloze(open_page, runs, folder, names):
    page = open_page()
    for steps in (0, 4, 8):
        gap = move(page, steps)
    found = shown(page)
    assert list(found) == ["lstm", "ngram", names.script, "chars"]
    words = ["cloze", *map(str, runs), "--text", page.locator("#sentence").input_value()]
    words += ["--candidates", "French,Spanish,Italian", "--gaps", gap]
    done = CliRunner().invoke(app, [*words, "--filler", str(folder / names.text), "--json"])
    for row, name in zip(json.loads(done.stdout)["rows"], found, strict=True):
        (p,) = [c["probability"] for c in row["candidates"] if c["text"] == "French"]
        assert float(found[name]) == pytest.approx(p, abs=1e-6)
    assert gap == "20"
    assert page.locator("#chart g.line").count() == 4
    assert page.locator('#chart [data-model="lstm"] circle').count() >= 3


def test_another_cue_changes_the_right_word(open_page):
    page = open_page()
    move(page, 2)
    before = shown(page)
    page.locator("#cue").select_option("Spain")
    expect(page.locator("#right")).to_have_value("Spanish")
    assert "Spain ." in page.locator("#sentence").input_value()
    expect(page.locator("#memory")).to_have_attribute("data-gap", "2")
    assert shown(page) != before
    expect(page.locator("#filled")).to_contain_text("Spain .")


def test_a_unit_of_a_gate_follows_the_text(open_page):
    page = open_page()
    type_text(page, "Zoe grew up in France .")
    page.locator("#inside").scroll_into_view_if_needed()
    expect(page.locator("#strip .column")).to_have_count(6, timeout=15_000)
    page.locator("#gate").select_option("forget")
    expect(page.locator("#inside")).to_have_attribute("data-gate", "forget")
    unit = page.locator("#varying button").nth(1)
    number = unit.text_content()
    unit.click()
    expect(page.locator("#unit")).to_have_value(number)
    page.locator("#inside-model").select_option("ngram")
    expect(page.locator("#inside-status")).to_contain_text("neither gates nor units")


STOP_AT_THE_FIRST_BLANK = """() => new Promise((done) => {
  const cards = document.querySelector("#write-cards");
  new MutationObserver((changes, observer) => {
    const made = cards.querySelector('[data-model="lstm"] .made');
    if (made && made.textContent.includes(" ")) {
      observer.disconnect();
      document.querySelector("#stop").click();
      done();
    }
  }).observe(cards, { childList: true, subtree: true, characterData: true });
  document.querySelector("#start").click();
})"""
"""within the page: a slow machine would otherwise click after all is written"""


def test_texts_are_streamed_and_can_be_stopped(open_page):
    page = open_page()
    page.locator("#length").fill("4096")
    made = page.locator('#write-cards [data-model="lstm"] .made')
    page.evaluate(STOP_AT_THE_FIRST_BLANK)
    expect(page.locator("#start")).to_be_enabled()
    stopped = made.text_content()
    page.wait_for_timeout(150)
    assert made.text_content() == stopped
    assert len(stopped.split()) < 4096
    page.locator("#length").fill("5")
    page.locator("#start").click()
    expect(page.locator("#stop")).to_be_disabled()
    assert 0 < len(made.text_content().split()) <= 5


def test_two_tabs_at_once_show_each_its_own(open_page):
    one, two = open_page(), open_page()
    for word in ("France", "Spain", "Italy"):
        one.locator("#prompt").fill(f"Zoe grew up in {word} .")
        two.locator("#prompt").fill(f"{word} was the first home of Zoe .")
        expect(one.locator("#next")).to_have_attribute("data-shown", f"Zoe grew up in {word} .")
        expect(two.locator("#next")).to_have_attribute(
            "data-shown", f"{word} was the first home of Zoe ."
        )
        for page, first in ((one, "Zoe"), (two, word)):
            tokens = page.locator('#next-cards [data-model="lstm"] .token')
            assert tokens.first.text_content() == first


def test_markup_in_names_texts_and_prompts_is_shown_as_text(open_page, names):
    page = open_page()
    title = page.title()
    expect(page.locator("#model-list")).to_contain_text(names.script)
    type_text(page, f"Zoe {names.markup} <img src=x onerror=document.title='prompt'> <b>")
    expect(page.locator("#next-cards article").first).to_contain_text("<img src=x")
    type_text(page, "Zoe grew up in France . now she speaks fluent French .")
    word = page.locator('#next-cards [data-model="ngram"] .word').first
    expect(word).to_have_text(names.markup)
    page.locator("#sentence").fill("<script>document.title='blank'</script> ... ___")
    page.locator("#sentence").blur()
    expect(page.locator("#command")).to_contain_text("<script>", use_inner_text=False)
    page.locator("#length").fill("30")
    page.locator("#temperature").fill("0")
    page.locator("#start").click()
    expect(page.locator("#stop")).to_be_disabled(timeout=15_000)
    expect(page.locator('#write-cards [data-model="ngram"] .made')).to_contain_text(names.markup)
    assert page.title() == title
    assert page.locator("main script, main img, main b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(open_page, scheme):
    page = open_page(color_scheme=scheme, bypass_csp=True)  # axe itself is an inline script
    move(page, 3)
    page.locator("#inside").scroll_into_view_if_needed()
    expect(page.locator("#strip .column").first).to_be_visible(timeout=15_000)
    page.locator("#length").fill("20")
    page.locator("#start").click()
    expect(page.locator("#stop")).to_be_disabled()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page()
    page.set_viewport_size({"width": 360, "height": 740})
    move(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
