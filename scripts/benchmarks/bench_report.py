"""Benchmark the page of `coupled report`: size of the file, and time until Chromium shows its charts.

    python scripts/benchmarks/bench_report.py [PAGE.html ...] [--seconds 120]

Without pages: that of the demo, trained for one epoch. Each page is opened from the disk in a new context of one
running Chromium, 1280 x 900 px. The time counts from the start of the navigation to the first frame that has a chart,
and to the frame in which every chart in view is drawn. CPU seconds are those of the page's main thread up to then;
other work on the machine hardly changes them. There is no baseline: compare pages, or versions.
"""

import contextlib
import io
import shutil
import statistics
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rows import NAN, Case, Options, Row, row, run

from coupled.analysis.report.program import main as report
from coupled.train import train

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPEATS = 5
TINY: dict[str, Any] = {
    "encoder": {"width_multiplier": 0.0625},
    "dataset": {"image_size": 8},
    "arms": {"cl": "dcl", "nscl": "nscl"},
}
WATCH = """
window.seen = {};
const watch = (name, selector) => new MutationObserver((_, observer) => {
  if (!document.querySelector(selector)) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.seen[name] = performance.now(); }));
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-drawn"] });
watch("first", ".plot .main-svg");
watch("all", "html[data-drawn=yes]");
"""


def times(browser: "Browser", path: Path) -> tuple[float, float, float]:
    """Return the seconds to the first chart and to all charts in view, and the CPU seconds."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.add_init_script(WATCH)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.resolve().as_uri())
    while len(page.evaluate("Object.keys(window.seen)")) < 2:  # the page forbids the eval of page.wait_for_function
        page.wait_for_timeout(20)
    first, every = page.evaluate("[window.seen.first, window.seen.all]")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    page.context.close()
    return first / 1e3, every / 1e3, metrics["TaskDuration"]


def page_rows(browser: "Browser", path: Path, name: str, repeats: int = REPEATS) -> list[Row]:
    """Measure a page: the medians, with their ranges as notes."""
    measured = zip(*(times(browser, path) for _ in range(repeats)), strict=True)
    what = (f"{name}: first chart", f"{name}: all charts in view", f"{name}: CPU time of the main thread")
    size = row(f"{name}: size of the file", path.stat().st_size / 1e6, NAN, unit="MB")
    return [size] + [
        row(text, statistics.median(seconds), NAN, note=f"{min(seconds):.2f} - {max(seconds):.2f} s, {repeats} times")
        for text, seconds in zip(what, measured, strict=True)
    ]


def rows_in_chromium(path: Path | None, options: Options) -> list[Row]:
    """Measure a page in a new Chromium; None: that of a short demo."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        opened = path or demo_page(Path(folder), options)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        rows = page_rows(browser, opened, str(path or "page of one epoch of the demo"))
        browser.close()
    return rows


def demo_page(folder: Path, options: Options) -> Path:
    """Train the demo for one epoch, measure weights and layer h, and write the page."""
    with contextlib.redirect_stdout(io.StringIO()):
        trained = train("demo", run_dir=folder / "run", epochs=1, **(TINY if options.tiny else {}))
        trained.weight_gap()
        trained.alignment(layers=["h"], metrics=["cka", "rsa"])
        if report(["--run-dir", str(trained.path)]):
            raise RuntimeError("coupled report failed")
    return trained.path / "analysis/report.html"


def cases(options: Options) -> list[Case]:
    """List the pages."""
    lacks = "starts processes" if options.tiny else "" if CHROMIUM else "no Chromium"
    lacks = lacks or ("" if find_spec("playwright") else "no playwright")
    return [
        Case(str(path or "page of the demo"), partial(rows_in_chromium, path, options), lacks)
        for path in options.pages or (None,)
    ]


if __name__ == "__main__":
    run(cases, __doc__ or "", {}, pages=True)
