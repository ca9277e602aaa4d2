"""Convert plain text, docstrings and rows of tables to Markdown."""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from coupled.config.key_descriptions import as_yaml
from coupled.config.key_descriptions import code as code

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples):\n")
ITEM = re.compile(r"(\*{0,2}\w+): ")


def plain(text: str) -> str:
    """Return the text in one line with Markdown escaped; text between backticks stays code."""
    parts = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    escaped = [part if part.startswith("`") else _escaped(part) for part in parts]
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", "".join(escaped))


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]{}#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; cells are Markdown without line breaks."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines)


def described(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose second column is prose; site.css widens this column on narrow screens."""
    return f'<div class="described" markdown>\n\n{table(heading, rows)}\n\n</div>'


def block(text: str, language: str = "text") -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def docstring(thing: Any, summary: bool = True, without: Collection[str] = ()) -> str:
    """Return a docstring as Markdown, if wanted without its summary or without sections such as "Args"."""
    paragraphs = re.split(r"\n{2,}", inspect.getdoc(thing) or "")[0 if summary else 1 :]
    named = [(each, SECTION.match(each)) for each in paragraphs]
    shown = [each for each, section in named if not section or section[1] not in without]
    return "\n\n".join(map(_paragraph, shown))


def option_table(function: Any, computed: Mapping[str, str]) -> str:
    """Return a table of the options (keyword-only arguments) of a function; "" if it has none.

    `computed` has a text for each option whose default comes from the settings.
    """
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            required = parameter.default is parameter.empty
            default = computed.get(name, "required") if required else code(as_yaml(parameter.default))
            rows.append([code(name), type_name(parameter.annotation), default])
    return table(["option", "type or allowed values", "default"], rows) if rows else ""


def type_name(annotation: Any) -> str:
    """Return a type annotation as the allowed values in a settings file."""
    if get_origin(annotation) is Literal:
        return ", ".join(code(as_yaml(each)) for each in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(map(type_name, get_args(annotation)))
    words = {int: "integer", float: "number", bool: "`true`, `false`", str: "text", Path: "path", NoneType: "`null`"}
    return words.get(annotation) or code(re.sub(r"\b(?:\w+\.)+", "", inspect.formatannotation(annotation)))


def _paragraph(paragraph: str) -> str:
    if section := SECTION.match(paragraph):
        rest = inspect.cleandoc(paragraph[section.end() :])
        title = f"**{section.group(1)}**"
        return (
            f"{title}\n\n{block(re.sub(r' *# doctest:.*', '', rest), 'pycon') if 'Example' in title else _items(rest)}"
        )
    if all(line.startswith(" " * 4) for line in paragraph.splitlines()):
        return block(inspect.cleandoc(paragraph), "{ .text .formula }")
    if all(line.startswith(("* ", "- ", "  ")) for line in paragraph.splitlines()):
        return "\n".join(f"* {plain(item)}" for item in re.split(r"^[*-] ", paragraph, flags=re.MULTILINE) if item)
    if re.search(r"^ {4}", paragraph, flags=re.MULTILINE):  # a diagram
        return block(paragraph)
    return plain(paragraph)


def _items(text: str) -> str:
    """Return the arguments or errors of a docstring as a list; other text unchanged."""
    if not ITEM.match(text):
        return plain(text)
    items = re.split(r"\n(?! )", text)
    return "\n".join(
        f"* {ITEM.sub(lambda found: f'`{found.group(1)}`: ', item, count=1)}" for item in map(_flat, items)
    )


def _flat(item: str) -> str:
    name, _, text = item.partition(": ")
    return f"{name}: {plain(text)}"
