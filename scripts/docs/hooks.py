"""The hooks of mkdocs.yml: generate pages from the code, the notebooks and the changelog.

For example, the line `<!-- generated: settings -->` of a page is replaced by the output of `reference_settings.py`,
with the quoted lines (`> ...`) after it, which tell the reader of a checkout where that text is.
"""

import re
from collections.abc import Callable
from pathlib import Path

import changelog_page
import notebook_pages
import reference_api
import reference_commands
import reference_datasets
import reference_metrics
import reference_objectives
import reference_settings
import reference_tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

GENERATORS: dict[str, Callable[[], str]] = {
    "settings": reference_settings.markdown,
    "sweep_file": reference_settings.sweep_markdown,
    "commands": reference_commands.markdown,
    "tables": reference_tables.markdown,
    "objectives": reference_objectives.markdown,
    "datasets": reference_datasets.markdown,
    "metrics": reference_metrics.markdown,
    "api": reference_api.markdown,
    "changelog": changelog_page.markdown,
}
MARKER = re.compile(r"^<!-- generated: (\w+) -->$(?:\n> .*$)*", flags=re.MULTILINE)
NOTEBOOKS = "examples/*.ipynb"  # this entry of the navigation becomes one page per notebook
FIRST = ("quickstart", "own_parts")  # the other notebooks follow in alphabetical order


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entry of the notebooks in the navigation by one page per notebook; remove it if there is none."""
    pages = [notebook_pages.page_path(path) for path in _notebooks(config)]
    entries = [
        {title: pages} if value == NOTEBOOKS else {title: value}
        for entry in config.nav or []
        for title, value in entry.items()
        if value != NOTEBOOKS or pages
    ]
    config.nav = entries
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the notebooks, their figures, and the notebooks themselves for download."""
    for path in _notebooks(config):
        for name, content in notebook_pages.rendered(path).items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the markers of a page by the generated text."""
    return MARKER.sub(lambda found: GENERATORS[found.group(1)](), markdown)


def _notebooks(config: MkDocsConfig) -> list[Path]:
    """Return the notebooks of examples/ in the order of the navigation."""
    paths = sorted((Path(config.config_file_path).parent / "examples").glob("*.ipynb"))
    return sorted(paths, key=lambda path: FIRST.index(path.stem) if path.stem in FIRST else len(FIRST))
