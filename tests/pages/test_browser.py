"""The page in headless Chromium: nothing loaded, nothing said, everything seen, accessible.

With LMCLI_SCREENSHOTS=FOLDER pictures of it are kept there, to be looked at.
"""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
CLEAR_OF_EDGES = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return box.width === 0 ? [] : [...svg.querySelectorAll('text')].filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1
      || own.bottom > box.bottom + 1;
  }).map(text => text.textContent);
})"""


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, driven by playwright."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids=str)
def shown(request, browser, made, keep_picture):
    """The page of the demo, and what the browser asked for and said."""
    size, scheme = request.param
    width, height = SIZES[size]
    view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said, asked = [], []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda asking: asked.append(asking.url))
    view.goto(made.page.as_uri())
    yield view, said, asked
    keep_picture(view, f"demo-{size}-{scheme}")
    view.close()


def test_the_page_is_whole_quiet_and_accessible(shown):
    from axe_playwright_python.sync_playwright import Axe

    view, said, asked = shown
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    figures = view.locator("figure")
    assert figures.count() == 2
    for place in range(figures.count()):
        seen = figures.nth(place).locator("svg:visible")
        assert seen.count() == 1
        box = seen.bounding_box()
        assert min(box["width"], box["height"]) > 200
    assert view.evaluate(CLEAR_OF_EDGES) == []
    width = view.viewport_size["width"]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(view)
    assert found.violations_count == 0, found.generate_report()
    assert "<img src=x onerror=alert(1)>" in view.locator("h1").inner_text()


def test_paper_is_white_and_nothing_is_cut_off(browser, made, keep_picture):
    view = browser.new_page(viewport={"width": 720, "height": 1018}, color_scheme="dark")
    view.emulate_media(media="print")
    view.goto(made.page.as_uri())
    background = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert view.evaluate("document.documentElement.scrollWidth") <= 720
    keep_picture(view, "demo-print")
    view.close()


def test_the_keyboard_reaches_the_content_and_the_tables(browser, made):
    view = browser.new_page()
    view.goto(made.page.as_uri())
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.textContent") == "Skip to the content"
    view.keyboard.press("Enter")
    assert view.evaluate("document.activeElement.id") == "content"
    reached = set()
    for _ in range(12):
        view.keyboard.press("Tab")
        reached.add(
            view.evaluate("document.activeElement.className || document.activeElement.tagName")
        )
    assert {"scroll", "SUMMARY"} <= reached
    view.close()
