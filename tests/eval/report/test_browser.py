"""The page in a real browser: it loads nothing, logs nothing, fits a phone, sorts and filters."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from eval.report import ReportFiles
from eval.rows import Row

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCREENS = {"desktop": (DESKTOP, "light"), "phone": (PHONE, "light"), "dark phone": (PHONE, "dark")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest, browser: Browser, report: ReportFiles) -> Iterator[Page]:
    """The page, which must load nothing but itself and stay silent until the test's end."""
    viewport, scheme = SCREENS[request.param]
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
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


def on(*screens: str) -> pytest.MarkDecorator:
    """Where a test looks at the page: on those screens that can make a difference to it."""
    return pytest.mark.parametrize("opened", screens, indirect=True)


def _column(page: Page, name: str) -> list[tuple[str, str | None]]:
    """Text and number of every cell of a column, in the order shown."""
    return page.evaluate(
        """(name) => {
          const table = document.getElementById("rows-table");
          const heads = Array.from(table.tHead.rows[0].cells).map((cell) => cell.innerText.trim());
          const index = heads.indexOf(name);
          return Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)
            .map((row) => [row.cells[index].textContent, row.cells[index].dataset.n ?? null]);
        }""",
        name,
    )


def _click(page: Page, name: str) -> None:
    page.locator("#rows-table thead").get_by_role("button", name=name, exact=True).click()


@on("desktop")
def test_a_click_on_a_heading_sorts_numbers_by_size(opened: Page, rows: list[Row]) -> None:
    before = _column(opened, "median")
    assert len(before) == len(rows)
    _click(opened, "median")
    rising = _column(opened, "median")
    numbers = [float(number) for _, number in rising if number is not None]
    timed = [row.timing.median_seconds for row in rows if row.timing is not None]
    assert numbers == sorted(timed)
    assert rising != before
    assert all(number is None for _, number in rising[len(numbers) :])
    _click(opened, "median")
    falling = _column(opened, "median")
    assert [float(number) for _, number in falling[: len(numbers)]] == sorted(timed, reverse=True)
    assert all(number is None for _, number in falling[len(numbers) :])
    assert opened.locator("#rows-table th[aria-sort=descending]").inner_text().strip() == "median"


@on("phone")
def test_a_click_on_a_heading_sorts_texts(opened: Page) -> None:
    before = _column(opened, "variant")
    _click(opened, "variant")
    after = _column(opened, "variant")
    assert after != before
    assert sorted(before) == sorted(after)
    assert [text[0] for text, _ in after] == sorted(text[0] for text, _ in after)
    # Numbers inside texts count as numbers: 32, 64, 128.
    windows = [int(text.split("=")[1].rstrip(")")) for text, _ in after if text.startswith("swa(window_size=")]
    assert windows == sorted(windows)
    assert len(set(windows)) == 3


@on("dark phone")
def test_rows_are_filtered_by_status_section_and_words(opened: Page, rows: list[Row]) -> None:
    opened.select_option("#rows-status", "incorrect")
    wanted = [row for row in rows if row.status == "incorrect"]
    shown = _column(opened, "variant")
    assert len(wanted) > 0
    assert sorted(text for text, _ in shown) == sorted(row.cell.variant for row in wanted)
    assert opened.locator("#rows-count").inner_text() == f"{len(wanted)} of {len(rows)} rows"
    opened.select_option("#rows-status", "")
    opened.select_option("#rows-section", "quality: needle")
    assert len(_column(opened, "variant")) == sum(
        row.quality is not None and row.quality.task == "needle" for row in rows
    )
    opened.fill("#rows-text", "swa DEPTH")
    assert {text for text, _ in _column(opened, "variant")} == {"swa"}


@on("desktop", "phone")
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


@on("desktop", "dark phone")
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
