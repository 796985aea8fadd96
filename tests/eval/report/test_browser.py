"""The page in a real browser: it loads nothing, logs nothing, fits a phone, and suits the dark."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from eval.report import ReportFiles

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCREENS = {"desktop": (DESKTOP, "light"), "phone": (PHONE, "light"), "dark phone": (PHONE, "dark")}

# On a machine that does other things as well, a page may take longer than Playwright's half a minute.
PATIENCE_MILLISECONDS = 180_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"], timeout=PATIENCE_MILLISECONDS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=SCREENS)
def opened(request: pytest.FixtureRequest, browser: Browser, report: ReportFiles) -> Iterator[Page]:
    """The page on each screen, which must load nothing but itself and stay silent until the last test's end."""
    viewport, scheme = SCREENS[request.param]
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    page = context.new_page()
    requests, said = [], []
    page.on("request", lambda each: requests.append(each.url))
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda each: said.append(str(each)))
    page.goto(report.html.as_uri())
    yield page
    outside = [url for url in requests if not url.startswith("data:") and url.partition("#")[0] != report.html.as_uri()]
    context.close()
    assert outside == []
    assert said == []


def test_a_claim_shows_its_details_on_demand(opened: Page) -> None:
    claim = opened.locator("details.claim").first
    detail = claim.locator("p").first
    assert not detail.is_visible()
    claim.locator("summary").click()
    assert detail.is_visible()


def test_the_page_is_no_wider_than_the_screen_and_every_figure_is_seen(opened: Page, report: ReportFiles) -> None:
    overflow = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    drawings = opened.locator("figure svg")
    assert drawings.count() == len(report.figures)
    for index in range(drawings.count()):
        box = drawings.nth(index).bounding_box()
        assert drawings.nth(index).is_visible()
        assert box is not None
        assert min(box["width"], box["height"]) > 100


def test_figures_take_the_text_colour_of_light_and_dark(opened: Page) -> None:
    colours = opened.evaluate(
        """() => {
          const shade = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;
          const texts = Array.from(document.querySelectorAll("figure svg text"));
          return {ground: shade(getComputedStyle(document.body).backgroundColor),
                  inks: texts.map((text) => shade(getComputedStyle(text).fill)),
                  dark: matchMedia("(prefers-color-scheme: dark)").matches};
        }"""
    )
    inks = colours["inks"]
    assert (colours["ground"] < 60) == colours["dark"]
    # Texts inside a heat map's cells have the colour that suits the cell; all others suit the page.
    far = [ink for ink in inks if abs(ink - colours["ground"]) > 150]
    assert len(far) > 0.5 * len(inks) > 50
