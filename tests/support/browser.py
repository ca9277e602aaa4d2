"""Chromium for tests of pages; without it they are skipped with the reason."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 180_000  # of every wait; tests run beside others on few cores


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright; pip install -e '.[dev]'")
    if not CHROMIUM:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    with driver.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS)
        yield running
        running.close()


def wait_until(page: Any, expression: str) -> None:
    """Wait until a JavaScript expression is true; `page.wait_for_function` needs eval, which the report forbids."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(f"never true: {expression}")


def new_page(running: Any, **options: Any) -> Any:
    """A page in a new context with these options; `page.context.close()` closes it."""
    page = running.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page
