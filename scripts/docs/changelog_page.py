"""Convert CHANGELOG.md of the repository into a page of the site."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)]+)\)")


def markdown() -> str:
    """Return the file without its title; an empty text if the file does not exist."""
    path = ROOT / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = re.sub(r"\A# .*\n", "", text)
    text = re.sub(r"^(#+ )\[([^\]]+)\]", r"\1\2", text, flags=re.MULTILINE)  # "## [Unreleased]" must not become a link
    return LINK.sub(_link, text).strip()


def _link(found: re.Match[str]) -> str:
    """Make links to docs/ relative to the site; remove links to other files, which the site does not have."""
    text, target = found.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
