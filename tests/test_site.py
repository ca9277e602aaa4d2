"""The site builds strictly, its generated pages hold all there is in the code, and nothing is loaded from elsewhere."""

import html
import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import tiny

mkdocs = pytest.importorskip("mkdocs", reason="no mkdocs; pip install 'coupled[docs]'")
pytestmark = pytest.mark.slow
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site, built once in this process."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(tiny.REPOSITORY)
        config = load_config(str(tiny.REPOSITORY / "mkdocs.yml"), site_dir=str(folder), strict=True)
        build(config)  # raises for a warning
    yield folder
    logging.getLogger("mkdocs").handlers.clear()


class Loaded(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADS.get(tag, ""))
        if address and values.get("rel") != "canonical":
            self.addresses.append(address)


def shown(site: Path, page: str) -> str:
    """The text of a page."""
    text = (site / page).read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def test_no_page_loads_anything_from_a_network(site: Path) -> None:
    """Nor a style sheet of the site: the documentation is read on machines without a network, and tells nobody."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        outside = [each for each in Loaded(page.read_text(encoding="utf-8")).addresses if re.match(r"(\w+:)?//", each)]
        assert not outside, f"{page.relative_to(site)}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", sheet.read_text(encoding="utf-8")), sheet
