"""The report for readers who do not see it, do not use a mouse, or print it."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench_report
import pandas as pd
import pytest
from support.browser import new_page, wait_until
from support.report_parts import copied

from coupled.analysis.report.program import main
from coupled.analysis.tables import whole_encoder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Few charts, one of each kind: axe reads every element.
FEW = (
    "weight_gap",
    "weight_gap_growth",
    "test_alignment",
    "verify",
)


@pytest.fixture(scope="module")
def path(measured_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with lines, maps with a slider, and tables: of arms in rows, of arms in columns, folded."""
    run = copied(measured_run, tmp_path_factory.mktemp("page") / "run")
    for each in (run / "analysis").glob("*.csv"):
        if each.stem not in FEW:
            each.unlink()
    row = {"epoch": 3, "module": "h", "task": "rotation", "chance": 0.25, "num_images": 64, "num_train_images": 64}
    row |= dict.fromkeys(("arm_digest", "images_digest", "train_images_digest"), "0" * 16)
    rows = [row | {"arm": arm, "value": 0.5} for arm in ("cl", "scl")]
    pd.DataFrame(rows).to_csv(run / "analysis/pretext.csv", index=False)
    assert main(["--run-dir", str(run), "--output", str(run / "report.html")]) == 0
    return run / "report.html"


def opened(browser: Any, path: Path, script: str = "", **options: Any) -> Any:
    page = new_page(browser, **{"viewport": {"width": 1280, "height": 900}, **options})
    page.add_init_script(script)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    return page


@pytest.fixture(scope="module")
def page(browser: Any, path: Path) -> Iterator[Any]:
    page = opened(browser, path)
    page.evaluate("drawEvery()")
    yield page
    page.context.close()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_the_page_passes_the_rules_of_axe(browser: Any, path: Path, theme: str, width: int) -> None:
    """Contrast, names of controls, order of headings, landmarks, tables. Marks inside a chart have its name."""
    if find_spec("axe_playwright_python") is None:
        pytest.skip("no axe-core; pip install -e '.[dev]'")
    import axe_playwright_python

    page = opened(browser, path, color_scheme=theme, viewport={"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.evaluate("drawEvery()")
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    page.evaluate("document.querySelectorAll('.main-svg').forEach(each => each.replaceChildren())")  # 1 000 texts each
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20
    page.evaluate("document.querySelector('#theme').style.color = 'var(--line)'")
    found = page.evaluate("axe.run(document.querySelector('header'), {runOnly: ['color-contrast']})")
    assert [each["id"] for each in found["violations"]] == ["color-contrast"]
    page.context.close()


def test_a_chart_has_its_numbers_in_words_and_in_a_table(page: Any, path: Path) -> None:
    """A reader of the screen gets the last value of each line, and every number in a table that can be copied."""
    gaps = whole_encoder(pd.read_csv(path.parent / "analysis/weight_gap.csv"), "mean").query("arm == 'scl'")
    image = page.locator("#chart-headline .main-svg[role=img]")
    said = image.get_attribute("aria-label")
    assert said.startswith("weight gap to cl, mean over layers at epoch 3: nscl 0.0")
    assert f"scl {gaps['gap'].iloc[-1]:.4g}, ce " in said
    assert "CKA with cl, test images, h at epoch 3: nscl 0.9" in said
    assert page.locator("#chart-headline .main-svg:not([role=img]):not([aria-hidden])").count() == 0
    maps = page.locator("#chart-layers .main-svg[role=img]").get_attribute("aria-label")
    every = pd.read_csv(path.parent / "analysis/weight_gap.csv")
    values = every.query("arm == 'scl' and aggregate == 'mean' and module.notna()")["gap"]  # of stages
    assert f"scl {values.min():.4g} to {values.max():.4g}" in maps
    scores = page.locator("#chart-alignment_layers .main-svg[role=img]").get_attribute("aria-label")
    assert scores.startswith("Heat maps of CKA with cl, test images, least to largest: ")
    for arm in ("cl", "nscl", "scl", "ce"):
        page.locator(f"#arms input[value={arm}]").uncheck()
    wait_until(page, "document.querySelector('#chart-headline .main-svg').ariaLabel === 'No arm is shown.'")
    for arm in ("cl", "nscl", "scl", "ce"):
        page.locator(f"#arms input[value={arm}]").check()
    page.locator("#chart-headline summary").click()
    rows = page.locator("#chart-headline .numbers tbody tr")
    wait_until(page, "document.querySelectorAll('#chart-headline .numbers tbody tr').length === 24")
    cells = rows.nth(7).locator("td").all_inner_texts()
    assert cells == ["scl", "3", "weight gap to cl, mean over layers", f"{gaps['gap'].iloc[-1]:.4g}", "", ""]
    _, _, quantity, value, low, high = rows.nth(19).locator("td").all_inner_texts()
    assert quantity == "CKA with cl, test images, h"
    assert float(low) < float(value) < float(high)
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.locator("#chart-headline .copy").click()
    assert page.evaluate("window.copied").splitlines()[0] == "line,epoch,quantity,value,low,high"
    assert page.locator("#said").inner_text() == "copied"
    page.locator("#chart-headline summary").click()
    page.locator("#chart-layers summary").click()
    heads = page.locator("#chart-layers .numbers th")
    wait_until(page, "document.querySelectorAll('#chart-layers .numbers th').length > 0")
    assert heads.all_inner_texts() == ["map", "row", "0", "1", "2", "3"]
    sides = page.eval_on_selector_all(
        "#chart-layers .numbers th", "all => all.map(th => getComputedStyle(th).textAlign)"
    )
    assert sides == ["left"] * 2 + ["right"] * 4
    page.locator("#chart-layers summary").click()


def test_a_table_that_scrolls_has_a_shadow_and_the_focus_and_names_of_runs_do_not_break(
    browser: Any, path: Path
) -> None:
    """390 pixels wide: columns were cut without a sign, and "seed-0" had two lines. The shadow is in both themes."""
    for theme in ("light", "dark"):
        page = opened(browser, path, color_scheme=theme, viewport={"width": 390, "height": 900})
        table = "document.querySelector('#table-last .wide')"
        assert page.evaluate(f"{table}.scrollWidth > {table}.clientWidth")
        assert page.evaluate(f"{table}.tabIndex") == 0
        style = page.evaluate(f"(each => [each.backgroundAttachment, each.backgroundImage])(getComputedStyle({table}))")
        assert style[0] == "local, local, scroll, scroll"
        assert style[1].count({"light": "rgba(0, 0, 0, 0.28)", "dark": "rgba(255, 255, 255, 0.3)"}[theme]) == 2
        lines = "[...document.querySelectorAll('#table-last td:first-child')].map(each => each.offsetHeight)"
        assert max(page.evaluate(lines)) < 40
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.context.close()


def test_the_page_works_with_the_keyboard(browser: Any, path: Path) -> None:
    """The first key goes past the header; what has the focus is outlined; arrow keys move a slider."""
    page = opened(browser, path)
    focused = "document.activeElement.{}"
    page.keyboard.press("Tab")
    assert page.evaluate(focused.format("textContent")) == "Skip to the content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate(focused.format("id")) == "content"
    page.evaluate("drawEvery()")
    slider = page.locator("#chart-layers input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#chart-layers output").inner_text() == "2"
    assert slider.get_attribute("aria-valuetext") == "epoch 2"
    page.keyboard.press("End")
    assert page.locator("#chart-layers output").inner_text() == "3"
    reached = page.evaluate(
        "[...document.querySelectorAll('input, select, button, summary, .wide')].filter(e => e.tabIndex < 0).length"
    )
    assert reached == 0
    page.locator(".modebar-btn").first.focus()
    accent = page.evaluate("getComputedStyle(document.querySelector('.modebar-btn')).outlineColor")
    assert accent == "rgb(0, 96, 168)"
    page.context.close()


def test_the_column_of_an_arm_is_hidden_with_it(page: Any) -> None:
    """Tables with a column for each arm keep their rows; those with a row for each arm lose a row."""
    heads = page.locator("#table-pretext th:visible")
    before = heads.all_inner_texts()
    page.locator("#arms input[value=scl]").uncheck()
    assert heads.all_inner_texts() == [each for each in before if each != "scl"]
    assert page.locator("#table-pretext tbody td:visible").count() == len(before) - 1
    page.locator("#arms input[value=scl]").check()
    assert heads.all_inner_texts() == before


def test_a_printed_page_has_every_chart_within_the_paper(browser: Any, path: Path) -> None:
    """Also those that were never in view; tables are open, controls are not printed, provenance is."""
    page = opened(browser, path, "window.requestIdleCallback = () => {}")  # the page is printed before it is idle
    assert page.evaluate("stale.size") > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("stale.size") == 0  # at once: the browser does not wait
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 without the margins of page.css
    sizes = page.evaluate("[...document.querySelectorAll('.main-svg')].map(e => [e.clientWidth, e.clientHeight])")
    assert sizes
    assert all(0 < width <= 703 and height <= 1000 for width, height in sizes), sizes
    assert page.evaluate("document.documentElement.scrollWidth") <= 703
    assert page.locator("input:visible, button:visible, .numbers:visible").count() == 0
    assert page.locator("#table-settings td:visible", has_text="batch.size").count() == 1
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    wait_until(page, "!printing && document.querySelector('#chart-headline .plot').layout.width === undefined")
    page.context.close()


def test_the_benchmark_of_the_page_waits_for_its_charts(browser: Any, path: Path) -> None:
    """docs/performance.md has its numbers; a page without a chart in view would never end it."""
    size, first, every, processor = (row["ours"] for row in bench_report.page_rows(browser, path, "page", repeats=1))
    assert size == path.stat().st_size / 1e6
    assert 0 < first <= every
    assert processor > 0
