"""Markdown from plain text, docstrings and rows of tables."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples):\n")
ITEM = re.compile(r"(\*{0,2}\w+): ")


def plain(text: str) -> str:
    """Text in one line that Markdown shows as it is; what stands between backticks stays code."""
    parts = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    escaped = [part if part.startswith("`") else re.sub(r"([\\*_\[\]<>{}#])", r"\\\1", part) for part in parts]
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", "".join(escaped))


def code(text: object) -> str:
    """Text as code, also in a table."""
    return f"`{text}`" if str(text) else ""


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown without line breaks."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines)


def block(text: str, language: str = "text") -> str:
    """A fenced block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def docstring(thing: Any, formula: bool = False) -> str:
    """The docstring of a function or module as Markdown; with `formula` its first paragraph is a formula."""
    paragraphs = re.split(r"\n{2,}", inspect.getdoc(thing) or "")
    shown = [_paragraph(paragraph) for paragraph in paragraphs[formula:]]
    return "\n\n".join([*([block(paragraphs[0])] if formula else []), *shown])


def options(function: Any) -> list[tuple[str, str, str]]:
    """Name, type and default of each argument by keyword only."""
    return [
        (name, type_name(parameter.annotation), "" if parameter.default is parameter.empty else repr(parameter.default))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def type_name(annotation: Any) -> str:
    """An annotation as the code spells it, without the names of modules."""
    return re.sub(r"\b(?:\w+\.)+", "", inspect.formatannotation(annotation))


def _paragraph(paragraph: str) -> str:
    if section := SECTION.match(paragraph):
        rest = inspect.cleandoc(paragraph[section.end() :])
        title = f"**{section.group(1)}**"
        return f"{title}\n\n{block(rest, 'pycon') if 'Example' in title else _items(rest)}"
    if all(line.startswith(("* ", "- ", "  ")) for line in paragraph.splitlines()):
        return "\n".join(f"* {plain(item)}" for item in re.split(r"^[*-] ", paragraph, flags=re.MULTILINE) if item)
    if re.search(r"^ {4}", paragraph, flags=re.MULTILINE):  # a drawing
        return block(paragraph)
    return plain(paragraph)


def _items(text: str) -> str:
    """The arguments or errors of a docstring as a list; other text as it is."""
    if not ITEM.match(text):
        return plain(text)
    items = re.split(r"\n(?! )", text)
    return "\n".join(
        f"* {ITEM.sub(lambda found: f'`{found.group(1)}`: ', item, count=1)}" for item in map(_flat, items)
    )


def _flat(item: str) -> str:
    name, _, text = item.partition(": ")
    return f"{name}: {plain(text)}"
