"""CHANGELOG.md of the repository as a page of the site."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)]+)\)")


def markdown() -> str:
    """The file without its title; nothing if there is no such file."""
    path = ROOT / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = re.sub(r"\A# .*\n", "", text)
    text = re.sub(r"^(#+ )\[([^\]]+)\]", r"\1\2", text, flags=re.MULTILINE)  # "## [Unreleased]" is no link
    return LINK.sub(_link, text).strip()


def _link(found: re.Match[str]) -> str:
    """A link to a page of docs/ leads to that page; other files of the repository are no part of the site."""
    text, target = found.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
