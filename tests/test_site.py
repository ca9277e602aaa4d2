"""The site builds strictly, its reference pages are complete, and it loads nothing from a network."""

import argparse
import html
import inspect
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from support import tiny
from support.browser import chromium, new_page

import coupled
from coupled import cli, metrics
from coupled.analysis.schemas import OF_STEPS, SCHEMAS
from coupled.config.arm_sections import SECTIONS
from coupled.config.by_name import find, known
from coupled.config.load import DEFAULT_ARMS, resolve
from coupled.config.schema import Settings
from coupled.sweep.sweep_file import SweepFile

pytest.importorskip("mkdocs", reason="no mkdocs; pip install -e '.[docs]'")
pytestmark = pytest.mark.slow
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
NARROW = 390  # pixels: a phone
ELSEWHERE = re.compile(r"(\w+:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once in this process. A warning, for example about a dead link, fails the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(tiny.REPOSITORY)
        build(load_config(str(tiny.REPOSITORY / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


class Page(HTMLParser):
    """The addresses of a page: resources that a browser loads, links, and anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect its addresses."""
        values = {key: value or "" for key, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag in LOADS and LOADS[tag] in values:
            self.loads.append(values[LOADS[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def article(site: Path, page: str) -> str:
    """The HTML of the main text of a page."""
    return (site / page).read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]


def sections(site: Path, page: str) -> dict[str, str]:
    """The text of each section of a page, by the id of its heading."""
    parts = re.split(r'<h[23] id="([^"]+)"', article(site, page))
    texts = [html.unescape(re.sub(r"<[^>]*>", "", part)) for part in parts[2::2]]
    return dict(zip(parts[1::2], texts, strict=True))


def test_no_page_loads_anything_from_a_network(site: Path, pages: dict[Path, Page]) -> None:
    """The documentation works without a network, and no other site can record who reads it."""
    assert len(pages) > 25
    for path, page in pages.items():
        outside = [each for each in page.loads if ELSEWHERE.match(each)]
        assert not outside, f"{path.relative_to(site)}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_no_link_within_the_site_is_dead(site: Path, pages: dict[Path, Page]) -> None:
    """mkdocs checks links in Markdown; this checks those in the HTML, of generated pages too."""
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:|//", link) or path.name == "404.html":
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if target in pages:
                assert anchor in pages[target].anchors, f"{path.relative_to(site)}: {link}"


def test_every_generated_section_is_present(site: Path, pages: dict[Path, Page]) -> None:
    """A misspelt marker would remain in the page as a comment."""
    assert not [path for path in pages if "<!-- generated" in path.read_text(encoding="utf-8")]


def models(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """All sections of the settings with their dotted keys."""
    yield place, model
    for key, field in model.model_fields.items():
        for inner in inside(field.annotation):
            yield from models(inner, f"{place}.{key}".strip("."))


def inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in inside(each)]


def test_every_key_of_settings_and_sweep_files_is_documented(site: Path) -> None:
    """Each key has a description and a row in the table of its section."""
    page = sections(site, "reference/settings.html")
    repeated = ("augmentation.second", *(f"arms.{section}" for section in SECTIONS))
    for place, model in [*models(Settings), *models(SweepFile, "sweep-file")]:
        of_section = page[place.replace(".", "-") or "top-level"] if not place.startswith(repeated) else ""
        for key, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{place}.{key} has no description; give it one by about()"
            assert not of_section or re.search(rf"^{key}$", of_section, flags=re.MULTILINE), f"{place}.{key}"


def test_the_shown_defaults_are_those_of_the_code(site: Path) -> None:
    """They are shown as YAML. A default described in words must state the value."""
    text = sections(site, "reference/settings.html")["defaults-of-a-run"].partition("name: mine")
    shown = yaml.safe_load(f"{text[1]}{text[2]}")
    least = {"name": "mine", "dataset": {"name": "digits"}, "arms": dict(DEFAULT_ARMS)}
    expected = resolve(least).resolved()
    assert resolve(shown).resolved() == expected
    assert shown["optimizer"].keys() == expected["optimizer"].keys()


def test_every_command_is_documented_with_all_options(site: Path) -> None:
    page = sections(site, "reference/command_line.html")
    for name, command in cli.COMMANDS.items():
        parser: argparse.ArgumentParser = cli.imported(command.parser)()
        shown = page[f"coupled-{name}"]
        assert f"usage: coupled {name} " in shown
        assert not [each for action in parser._actions for each in action.option_strings if each not in shown]
        assert "python -m" not in shown


def test_every_table_is_documented_with_all_columns(site: Path) -> None:
    page = sections(site, "reference/tables.html")
    for name, schema in SCHEMAS.items():
        shown = page[name.replace(".", "")].splitlines()
        more = [f"<arm>_{column}" for column in OF_STEPS] if name == "steps.csv" else []
        assert {*schema.columns, *more} <= {*shown}, name


@pytest.mark.parametrize("kind", ["objectives", "datasets"])
def test_every_objective_and_dataset_is_documented_with_all_options(site: Path, kind: str) -> None:
    page = sections(site, f"reference/{kind}.html")
    for name in known(f"coupled.{kind}"):
        options = options_of(find(f"coupled.{kind}", name), name)
        missing = [each for each in options if not re.search(rf"^{each}$", page[name], flags=re.MULTILINE)]
        assert not missing, f"{name}: {missing}"


def options_of(module: ModuleType, name: str) -> list[str]:
    """The keyword-only arguments of the function that the settings name."""
    function = getattr(module, name, None) or getattr(module, "signed", None) or module.load
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def test_every_metric_and_public_name_is_documented(site: Path, pages: dict[Path, Page]) -> None:
    page = sections(site, "reference/metrics.html")
    assert {*known("coupled.metrics.pair"), *known("coupled.metrics.arm")} <= {*page}
    anchors = {each.rpartition(".")[2] for each in pages[site / "reference/api.html"].anchors}
    assert {*coupled.__all__} - {"__version__", "metrics"} <= anchors
    assert {*metrics.__all__} <= anchors
    methods = [name for name, value in vars(coupled.Run).items() if callable(value) and not name.startswith("_")]
    assert {*methods} <= anchors


def test_every_notebook_is_shown_with_its_pictures(site: Path, pages: dict[Path, Page]) -> None:
    """Each notebook can also be downloaded."""
    for path in (tiny.REPOSITORY / "examples").glob("*.ipynb"):
        shown = pages[site / f"notebooks/{path.stem}.html"]
        pictures = path.read_text(encoding="utf-8").count('"image/png"')
        assert sum(each.startswith(f"{path.stem}_") for each in shown.loads) == pictures
        assert path.name in shown.links


@pytest.mark.browser
def test_pages_fit_a_phone_load_without_errors_and_can_be_searched_from_the_disk(site: Path) -> None:
    """Wide tables and code blocks scroll; the page itself does not scroll horizontally."""
    heard: list[str] = []
    with chromium() as browser:
        page = new_page(browser, viewport={"width": NARROW, "height": 844})
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or heard.append(asked.url))
        for path in sorted({*site.rglob("*.html")} - {site / "404.html"}):  # 404.html has addresses of a server
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == NARROW, path
        page.click("label[for=__search] >> visible=true")
        page.locator("input.md-search__input").press_sequentially("twin")
        page.wait_for_selector(".md-search-result__item")
    assert not heard
