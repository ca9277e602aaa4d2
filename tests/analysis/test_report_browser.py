"""The report in a real browser, opened from the disk: nothing leaves, nothing complains, everything acts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from analysis.report import main

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install 'coupled[dev]'")
    if not CHROMIUM:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    with driver.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def path(measured_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["--run", str(measured_run), "--output", str(path)]) == 0
    return path


@contextmanager
def opened(browser: Any, path: Path, theme: str) -> Iterator[Any]:
    """The page, drawn; at the end nothing may have been asked of the network or said on the console."""
    context = browser.new_context(color_scheme=theme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: heard.append(f"request: {asked.url[:100]}"))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
    page.theme = theme
    yield page
    context.close()
    assert heard == [f"request: {path.as_uri()}"[:109]]


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    """One page a theme: each test acts on a control of its own, and leaves or puts back what others look at."""
    with opened(browser, path, request.param) as page:
        yield page


def test_all_figures_are_drawn_in_both_themes(page: Any, tmp_path: Path) -> None:
    """Every chart has marks on it; the ground is light or dark as the system asks; nothing is wider than the page."""
    drawn = page.eval_on_selector_all(
        "figure.chart", "all => all.map(f => [f.id, f.querySelectorAll('.trace, .heatmaplayer image').length])"
    )
    assert len(drawn) == 16
    assert all(marks > 0 for _, marks in drawn), drawn
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[page.theme]
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 100_000
    wide = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page scrolls sideways"


def test_the_slider_moves_the_profile_and_the_line(page: Any) -> None:
    plot = "document.querySelector('#chart-layers .plot')"
    profile = f"{plot}.data.find(t => t.meta && t.meta.profile).x"
    last = page.evaluate(profile)
    page.locator("#chart-layers input[type=range]").fill("0")
    assert page.evaluate(profile) != last
    assert set(page.evaluate(profile)) == {0}
    assert page.evaluate(f"{plot}.layout.shapes.map(s => s.x0)") == [0, 0, 0]
    assert page.locator("#chart-layers output").inner_text() == "0"


def test_the_slider_shows_the_layers_of_its_epoch(page: Any) -> None:
    """Two networks with one start are the same at epoch 0: every layer with itself has CKA 1."""
    plot = "document.querySelector('#chart-cross_layer .plot')"
    cells = f"{plot}.data[2].z"
    last = page.evaluate(cells)
    page.locator("#chart-cross_layer input[type=range]").fill("0")
    first = page.evaluate(cells)
    assert first != last
    assert [row[place] for place, row in enumerate(first)] == pytest.approx([1] * 7, abs=1e-6)
    assert page.evaluate(f"({plot}.layout.shapes || []).length") == 0


def test_an_arm_is_switched_off_and_on_everywhere(page: Any) -> None:
    """Lines, heat maps and rows of tables."""
    shown = (
        "[...document.querySelectorAll('.plot')].flatMap(p => p.data)"
        ".filter(t => t.meta && t.meta.arm === 'scl' && t.visible !== false).length"
    )
    rows = page.locator("tr:visible:has(td[data-arm=scl])")
    before, of_tables = page.evaluate(shown), rows.count()
    assert before > 12
    assert of_tables > 2
    page.locator("#arms input[value=scl]").uncheck()
    assert page.evaluate(shown) == 0
    assert rows.count() == 0
    page.locator("#arms input[value=scl]").check()
    assert page.evaluate(shown) == before
    assert rows.count() == of_tables


def test_a_menu_shows_another_variant(page: Any) -> None:
    title = "document.querySelector('#chart-alignment .plot').layout.yaxis.title.text"
    assert page.evaluate(title) == "cka"
    page.locator("#chart-alignment select").select_option("rsa, z, train images")
    assert page.evaluate(title) == "rsa"


@pytest.mark.parametrize("theme_of_system", ["light", "dark"])
def test_the_theme_can_be_chosen_and_print_is_light(browser: Any, path: Path, theme_of_system: str) -> None:
    with opened(browser, path, theme_of_system) as page:
        choose_and_print(page)


def choose_and_print(page: Any) -> None:
    ink = "document.querySelector('#chart-headline .plot').layout.font.color"
    for theme, colour in (("light", "#1b1f24"), ("dark", "#e4e7eb")):
        page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == f"theme: {theme}"
        assert page.evaluate(ink) == colour
    page.emulate_media(media="print")
    page.wait_for_function(f"{ink} === '#000'")
    assert page.locator("#theme").is_hidden()
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "a table leaves the paper"


def test_a_table_is_copied_as_csv(page: Any) -> None:
    """In full digits, with commas quoted."""
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.locator("#table-last button.copy").click()
    lines = page.evaluate("window.copied").splitlines()
    assert lines[0].startswith('run,arm,reference,weight gap (mean),"CKA (test, h)"')
    assert len(lines) == 5
    assert len(lines[2].split(",")[3]) > 10
