"""The report in a real browser, opened from disk: no network access, no console messages, all controls work."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.browser import new_page, wait_until
from support.report_parts import copied, report_runs

from coupled.analysis.report.last_values import last_values
from coupled.analysis.report.page_tables import about, without_empty_columns
from coupled.analysis.report.program import main

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<!--<script>"


@pytest.fixture(scope="module")
def path(measured_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with epochs 0, 10, 20, 30, so that an epoch differs from its index on the slider; train images up to 20."""
    run = copied(measured_run, tmp_path_factory.mktemp("page") / "run")
    about = json.loads((run / "run.json").read_text())
    about |= {"note": "broken\nline", "motto": '"quoted" words', "list": 'one, "two"'}
    about["settings"] |= {"epochs": 30, "snapshots": {"every_epochs": 10, "dense_until_epoch": 0}}
    (run / "run.json").write_text(json.dumps(about))
    for path in (run / "epochs.csv", *(run / "analysis").glob("*.csv")):
        table = pd.read_csv(path)
        if "epoch" in table:
            table = table.assign(epoch=10 * table["epoch"])
            if path.stem == "quality":  # in a script, these begin what only --> or </script> twice would end
                table.loc[(table["metric"] == "cdnv") & (table["module"] == "z"), "metric"] = HOSTILE
            table[table["epoch"] < (30 if path.stem == "train_alignment" else 40)].to_csv(path, index=False)
    assert main(["--run-dir", str(run), "--output", str(run / "report.html")]) == 0
    return run / "report.html"


@contextmanager
def opened(browser: Any, path: Path, theme: str) -> Iterator[Any]:
    """The opened page; at the end there must be no network request and no console message."""
    page = new_page(browser, color_scheme=theme, viewport={"width": 1280, "height": 900})
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: heard.append(f"request: {asked.url[:100]}"))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    page.theme = theme
    yield page
    page.context.close()
    assert heard == [f"request: {path.as_uri()}"[:109]]


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    """One page for each theme, shared by all tests: each test uses one control and resets what other tests look at."""
    with opened(browser, path, request.param) as page:
        page.evaluate("drawEvery()")
        yield page


def test_all_figures_are_drawn_in_both_themes(page: Any, tmp_path: Path) -> None:
    """Every chart has marks; the background follows the system's theme; nothing is wider than the page."""
    drawn = page.eval_on_selector_all(
        "figure.chart", "all => all.map(f => [f.id, f.querySelectorAll('.trace, .heatmaplayer image').length])"
    )
    assert len(drawn) == 18
    assert all(marks > 0 for _, marks in drawn), drawn
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[page.theme]
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 100_000
    wide = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page scrolls sideways"
    sliders = page.eval_on_selector_all(
        "figure.chart", "all => all.filter(f => f.querySelector('output').offsetParent)"
    )
    assert len(sliders) == 3
    swatches = page.eval_on_selector_all("#arms .swatch", "all => all.map(s => s.style.backgroundColor)")
    hues = page.evaluate("Object.values(REPORT.arms)")
    assert swatches == [f"rgb({int(hue[1:3], 16)}, {int(hue[3:5], 16)}, {int(hue[5:], 16)})" for hue in hues]


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_every_figure_is_valid_for_plotly(page: Any) -> None:
    """Of an unknown key or value plotly draws the default and says nothing. One variant of each chart, for speed."""
    found = page.evaluate(
        "Object.entries(REPORT.charts).flatMap(([key, all]) => Object.values(all).slice(0, 1).flatMap(figure =>"
        " (Plotly.validate(figure.data, figure.layout) || []).map(each => [each.code, key, each.msg])))"
    )
    wrong = [each for each in found if each[0] in ("schema", "value", "array", "object")]
    assert [each for each in wrong if "key coloraxis is set" not in each[2]] == []  # validate knows no shared scale
    found = page.evaluate("Plotly.validate([{type: 'scatter', x: [1], y: [1], marke: 1, mode: 'x'}], {})")
    assert [each["code"] for each in found] == ["schema", "value"]


def test_no_button_of_a_chart_sends_its_data(page: Any) -> None:
    """By default plotly has a button that uploads the chart to a server of its makers."""
    titles = page.eval_on_selector_all(".modebar-btn", "all => all.map(each => each.dataset.title)")
    assert {"Zoom", "Pan", "Reset axes"} <= {*titles}
    assert [each for each in titles if "hare" in each or "loud" in each] == []
    assert page.evaluate("document.querySelector('.plot')._context.plotlyServerURL") == ""


def test_a_cell_that_contains_a_script_tag_is_shown_as_text(page: Any) -> None:
    """As markup, it would keep all charts from being drawn."""
    assert f"{HOSTILE} (one_class), z, test" in page.evaluate("Object.keys(REPORT.charts.quality)")
    assert page.locator("#chart-quality option", has_text=HOSTILE).count() == 1


def test_the_slider_moves_the_profile_and_the_line(page: Any) -> None:
    """It starts at the last epoch; each heat map has a line at the slider's epoch."""
    plot = "document.querySelector('#chart-layers .plot')"
    slider, said = page.locator("#chart-layers input[type=range]"), page.locator("#chart-layers output")
    assert (slider.get_attribute("max"), slider.input_value(), said.inner_text()) == ("3", "3", "30")
    profiles = "data.filter(t => t.meta.profile).map(t => t.meta.profile[{}])"
    found = []
    for place in (0, 1):
        slider.fill(str(place))
        found.append(page.evaluate(f"{plot}.data.filter(t => t.meta.profile).map(t => t.x)"))
        assert found[-1] == page.evaluate(f"REPORT.charts.layers['gap by stage, to cl'].{profiles.format(place)}")
        lines = page.evaluate(f"{plot}.layout.shapes.map(s => [s.xref, s.x0, s.x1])")
        assert lines == [[x, 10 * place, 10 * place] for x in ("x", "x2", "x3")]
        assert said.inner_text() == str(10 * place)
    assert found[0] != found[1]
    assert {x for profile in found[0] for x in profile} == {0}


def test_the_slider_shows_the_layers_of_its_epoch(page: Any) -> None:
    """At epoch 0 both networks are equal: every layer compared with itself has CKA 1."""
    plot = "document.querySelector('#chart-cross_layer .plot')"
    cells = f"{plot}.data[2].z"
    last = page.evaluate(cells)
    page.locator("#chart-cross_layer input[type=range]").fill("0")
    first = page.evaluate(cells)
    assert first != last
    assert [row[place] for place, row in enumerate(first)] == pytest.approx([1] * 7, abs=1e-6)
    page.locator("#chart-cross_layer input[type=range]").fill("1")
    second = "Object.values(REPORT.charts.cross_layer)[0].data[2].meta.frames[1]"
    assert page.evaluate(cells) == page.evaluate(second) != first
    assert page.evaluate(f"({plot}.layout.shapes || []).length") == 0


def test_an_arm_can_be_hidden_and_shown_everywhere(page: Any) -> None:
    """Lines, heat maps with the slider's line, and table rows; other arms and the slider do not change."""
    lines = "document.querySelector('#chart-layers .plot').layout.shapes.map(s => [s.xref, s.x0])"
    page.locator("#chart-layers input[type=range]").fill("2")
    others = page.locator("tr:visible:has(td[data-arm=nscl])")
    of_others = others.count()
    shown = (
        "[...document.querySelectorAll('.plot')].flatMap(p => p.data)"
        ".filter(t => t.meta && t.meta.arm === 'scl' && t.visible !== false).length"
    )
    rows = page.locator("tr:visible:has(td[data-arm=scl])")
    before, of_tables = page.evaluate(shown), rows.count()
    assert before > 12
    assert of_tables > 2
    page.locator("#arms input[value=scl]").uncheck()
    page.evaluate("drawEvery()")
    assert page.evaluate(shown) == 0
    assert rows.count() == 0
    assert others.count() == of_others
    assert page.evaluate(lines) == [["x", 20], ["x3", 20]]
    page.locator("#arms input[value=scl]").check()
    page.evaluate("drawEvery()")
    assert page.evaluate(shown) == before
    assert rows.count() == of_tables


def test_a_menu_switches_the_variant(page: Any) -> None:
    title = "document.querySelector('#chart-alignment .plot').layout.yaxis.title.text"
    assert page.evaluate(title) == "CKA with cl, test images, h"
    page.locator("#chart-alignment select").select_option("rsa, z, train images")
    assert page.evaluate(title) == "RSA with cl, train images, z"


def test_a_chart_that_is_drawn_again_keeps_its_axes(page: Any) -> None:
    """After "Numbers" was opened, plotly's range of the axis of CKA was -1 to 4, which a later change would draw."""
    ranges = "document.querySelector('#chart-headline .plot')._fullLayout.yaxis2.range"
    before = page.evaluate(ranges)
    assert before[1] == 1
    page.evaluate("draw(document.querySelector('#chart-headline'))")
    assert page.evaluate(ranges) == before


def test_the_slider_has_the_epochs_of_the_variant(page: Any) -> None:
    """Train images were measured up to epoch 20; variants with equal epochs keep the slider's position."""
    menu, said = page.locator("#chart-alignment_layers select"), page.locator("#chart-alignment_layers output")
    slider = page.locator("#chart-alignment_layers input[type=range]")
    menu.select_option("cka, to cl, train images")
    assert (slider.get_attribute("max"), said.inner_text()) == ("2", "20")
    slider.fill("1")
    menu.select_option("rsa, to cl, train images")
    assert (slider.get_attribute("max"), said.inner_text()) == ("2", "10")


def test_ticks_legend_and_panels_adapt_to_the_width(page: Any) -> None:
    """Few epochs have one tick each; a tall legend makes the figure taller; narrow panels are stacked."""
    ticks = "whole({{tickformat: '{}'}}, [{{type: 'scatter', x: [0, {}]}}])"
    assert page.evaluate(ticks.format("d", 12)) == {"dtick": 1}
    assert page.evaluate(ticks.format("d", 13)) == page.evaluate(ticks.format("", 12)) == {}
    names = "['a', 'b', 'c', 'a'].map(name => ({name})).concat({name: 'd', showlegend: false})"
    assert [page.evaluate(f"legendRows({names}, {width})") for width in (9999, 1)] == [1, 3]
    long = "optimizer.weight_decay=0.0001:directpred_own · ± sd, n = 3"
    lines = ["optimizer.weight_decay=0.0001:", "directpred_own · ± sd, n = 3"]
    assert page.evaluate(f"inLines('{long}', 330)") == "<br>".join(lines)  # the ends of names were cut off
    assert page.evaluate(f"inLines('{long}', 900)") == long
    assert page.evaluate(f"legendRows([{{name: '{'<br>'.join(lines)}'}}, {{name: 'a'}}], 330)") == 4
    wide, narrow = (page.evaluate(f"themed({{grid: {{rows: 1}}}}, {names}, {width})") for width in (9999, 600))
    assert (wide["grid"]["rows"], narrow["grid"]["rows"]) == (1, 2)
    heights = [
        page.evaluate(f"themed({{}}, {each}, {width}).height") for each, width in (("[]", 1), (names, 9999), (names, 1))
    ]
    assert heights[0] < heights[1] < heights[2]


def test_maps_that_do_not_fit_are_in_rows_with_their_own_axes(page: Any) -> None:
    """On a telephone their titles and ticks were printed over each other; a row of 26 maps had 40 pixels each."""
    chart = "REPORT.charts.layers['gap by stage, to cl']"
    call = f"inRows({chart}.layout, {chart}.data, {{}})"
    wide, narrow = (page.evaluate(call.format(width)) for width in (1240, 350))
    assert [trace.get("yaxis") for trace in wide["data"]] == [None] * 6
    assert [trace["yaxis"] for trace in narrow["data"]] == ["y", "y2", "y3", "y4", "y4", "y4"]
    assert narrow["layout"]["height"] > 3 * wide["layout"]["height"]
    bands = [narrow["layout"][f"yaxis{place}"]["domain"] for place in ("", 2, 3, 4)]
    assert all(low < high for low, high in bands)
    assert all(lower[1] < upper[0] for upper, lower in pairwise(bands))
    assert [narrow["layout"][f"xaxis{place}"]["domain"] for place in ("", 2, 3, 4)] == [[0, 1]] * 4
    axis = "decades({{type: '{}'}}, 'yaxis', [{{y: [1, {}]}}])"
    assert page.evaluate(axis.format("log", 100)) == {
        "dtick": 1,
        "tickfont": {"size": 9.6},
    }  # drawn 1.25 times as large
    assert page.evaluate(axis.format("log", 5)) == page.evaluate(axis.format("linear", 100)) == {}
    axis = "decades({{type: 'log', range: [{}, {}]}}, 'yaxis', [{{y: [1]}}])"
    assert page.evaluate(axis.format(-1.1, 0.4))["dtick"] == 1
    assert page.evaluate(axis.format(0.1, 1.1)) == {}, "one power of ten"


def test_a_narrow_page_has_one_column_and_every_control_in_its_card(browser: Any, path: Path) -> None:
    """390 pixels wide: sliders and menus were cut, and the page scrolled sideways."""
    with opened(browser, path, "light") as page:
        page.evaluate("() => { charts.splice(0, charts.length, ...charts.filter(each => variantOf(each).slider)); }")
        page.set_viewport_size({"width": 390, "height": 900})
        page.evaluate("drawEvery()")
        wait_until(page, "document.querySelector('#chart-layers .plot').layout.yaxis2 !== undefined")
        outside = page.evaluate(
            "[...document.querySelectorAll('figure.chart, .table')].flatMap(card =>"
            " [...card.querySelectorAll('input, select, button, label')].filter(each => each.offsetParent &&"
            " each.getBoundingClientRect().right > card.getBoundingClientRect().right).map(each => card.id))"
        )
        assert outside == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        plot = "document.querySelector('#chart-layers .plot')"
        assert page.evaluate(f"{plot}.layout.shapes.map(s => s.yref)") == ["y domain", "y2 domain", "y3 domain"]
        titles = (
            f"['xtitle', 'x2title', 'x4title'].map(name => {plot}.querySelector('.' + name).getAttribute('transform'))"
        )
        assert page.evaluate(titles) == [None] * 3, "plotly moved the titles over the tick labels"


def test_figures_are_redrawn_when_the_window_is_resized_those_in_view_first(page: Any) -> None:
    """Plotly adapts the width but does not stack panels. A reader would wait for eighteen charts to see one."""
    page.evaluate("() => { window.react = Plotly.react; window.drawn = []; window.scrollTo(0, 0); }")
    page.evaluate("() => { Plotly.react = plot => { window.drawn.push(plot.parentNode.dataset.key); }; }")
    for width in (600, 1280):
        page.evaluate("() => { window.drawn = []; stale.clear(); }")
        page.set_viewport_size({"width": width, "height": 900})
        wait_until(page, "window.drawn.includes('spectra')")
        drawn = page.evaluate("window.drawn")
        assert drawn.index("headline") < drawn.index("spectra")
        assert len({*drawn}) == len(drawn)
    page.evaluate("() => { Plotly.react = window.react; return redraw().then(drawEvery); }")


def test_charts_out_of_sight_are_drawn_when_the_page_is_idle(browser: Any, path: Path) -> None:
    """A screenshot of the whole page had empty boxes, and a search in the page did not find the words of charts."""
    with opened(browser, path, "light") as page:
        wait_until(page, "stale.size === 0")
        assert page.evaluate("window.scrollY") == 0
        assert page.evaluate("charts.filter(each => !each.querySelector('.main-svg')).length") == 0


@pytest.mark.parametrize("theme_of_system", ["light", "dark"])
def test_the_theme_can_be_chosen_and_print_is_light(browser: Any, path: Path, theme_of_system: str) -> None:
    with opened(browser, path, theme_of_system) as page:
        choose_and_print(page)


def choose_and_print(page: Any) -> None:
    page.evaluate("() => { charts.splice(1); }")  # the first stands for all, which would take seconds a turn
    ink = "document.querySelector('#chart-headline .plot').layout.font.color"
    axis = "document.querySelector('#chart-headline .plot').layout.xaxis"
    inks = {"light": "#1b1f24", "dark": "#e4e7eb"}
    for theme, colour in inks.items():
        page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == f"theme: {theme}"
        assert page.evaluate(ink) == colour
        assert page.evaluate(f"{axis}.gridcolor === colour('--line')")
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "theme: system"
    here, there = ("light", "dark") if page.theme == "light" else ("dark", "light")
    assert page.evaluate(ink) == inks[here]
    page.emulate_media(color_scheme=there)
    wait_until(page, f"{ink} === '{inks[there]}'")
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[open]").count() > 0
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    page.emulate_media(media="print")
    wait_until(page, f"{ink} === '#000'")
    assert page.locator("#theme").is_hidden()
    assert page.locator("details:not(.numbers)").first.get_attribute("open") is not None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "a table leaves the paper"


def test_a_table_is_copied_as_csv(page: Any, path: Path) -> None:
    """In full digits, with commas, quotes and line breaks; also where the clipboard is not available."""
    runs = report_runs(path.parent)
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text; }")
    for table in (about(runs), without_empty_columns(last_values(runs))):
        page.locator(f"#table-{table.key} button.copy").click()
        rows = list(csv.reader(io.StringIO(page.evaluate("window.copied"), newline="")))
        assert rows == [list(table.columns), *([cell.value for cell in row] for row in table.rows)]
        assert page.locator(f"#table-{table.key} button.copy").inner_text() == "copied"
    whole = page.evaluate("window.copied")
    page.evaluate(
        "() => { window.copied = ''; navigator.clipboard.writeText = async () => { throw Error('closed'); }; }"
    )
    page.evaluate("() => { document.execCommand = () => { window.copied = document.activeElement.value; }; }")
    page.locator("#table-last button.copy").click()
    wait_until(page, "window.copied !== ''")
    assert page.evaluate("window.copied") == whole
    assert page.locator("textarea").count() == 0
