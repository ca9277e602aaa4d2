"""Measure pages that `coupled report` wrote: size of the file, and time until Chromium shows the first chart.

    python scripts/benchmarks/bench_report.py runs/demo/analysis/report.html [MORE.html ...] [--repeats 5]

Each page is opened from the disk in a new context of one running Chromium, 1280 x 900 px. The time counts from the
start of the navigation to the first frame that has a chart, and to the frame in which every chart in view is drawn.
CPU seconds are those of the page's main thread up to then; other work on the machine hardly changes them.
"""

import argparse
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

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


def times(browser: Browser, path: Path) -> tuple[float, float, float]:
    """Return the milliseconds to the first chart and to all charts in view, and the CPU milliseconds."""
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
    return first, every, 1e3 * metrics["TaskDuration"]


def main() -> None:
    """Print one line for each page: its size, and the medians of the times with their ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for path in options.pages:
            measured = [times(browser, path) for _ in range(options.repeats)]
            text = [
                f"{statistics.median(ms):.0f} ms ({min(ms):.0f} - {max(ms):.0f})" for ms in zip(*measured, strict=True)
            ]
            size = f"{path.stat().st_size / 1e6:.2f} MB"
            print(f"{path}: {size}; first chart {text[0]}; all charts in view {text[1]}; CPU {text[2]}")
        browser.close()


if __name__ == "__main__":
    main()
