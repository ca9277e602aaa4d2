"""CONTRIBUTING.md and CHANGELOG.md of the repository as pages of the site."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)]+)\)")


def contributing() -> str:
    """CONTRIBUTING.md without its title; nothing if there is no such file."""
    return _page("CONTRIBUTING.md")


def changelog() -> str:
    """CHANGELOG.md without its title; nothing if there is no such file."""
    return _page("CHANGELOG.md")


def _page(name: str) -> str:
    path = ROOT / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return LINK.sub(_link, re.sub(r"\A# .*\n", "", text)).strip()


def _link(found: re.Match[str]) -> str:
    """A link to a page of docs/ leads to that page; other files of the repository are no part of the site."""
    text, target = found.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
