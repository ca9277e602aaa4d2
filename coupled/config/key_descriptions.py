"""The keys of a settings file with type, default and meaning, from the pydantic models.

`coupled list settings` and the page of the settings (scripts/docs/reference_settings.py) show them.
"""

import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from coupled.config.arm_sections import SECTIONS
from coupled.config.by_name import did_you_mean
from coupled.config.schema import Settings

TOP = "Top level"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
CHOICES = re.compile(r"\^\(\w+(\|\w+)+\)\$")  # a pattern that lists the allowed words
WORDS = {"boolean": "`true`, `false`", "string": "text", "null": "`null`"}
LINK = re.compile(r"\[([^\]]+)\]\(\S+\)")
Schema = dict[str, Any]


def listed(section: str | None = None) -> list[str]:
    """Return the descriptions of all keys, or of those of a section, wrapped to the width of the terminal.

    The width is 100 where the output is not a terminal. Raises ValueError for an unknown section.
    """
    every = list(lines())
    if section is not None:
        known = [line.split()[0] for line in every]
        every = [line for line in every if line.startswith((f"{section} ", f"{section}."))]
        if not every:
            places = ", ".join(dict.fromkeys(key.partition(".")[0] for key in known if "." in key))
            hint = did_you_mean(section, {*known, *places.split(", ")})
            raise ValueError(f"section: no section or key '{section}'{hint} (sections: {places})")
    width = shutil.get_terminal_size((100, 24)).columns
    options: dict[str, Any] = {"subsequent_indent": "    ", "break_long_words": False, "break_on_hyphens": False}
    return [row for line in every for row in textwrap.wrap(line, max(width, 40), **options)]


def lines() -> Iterator[str]:
    """Yield one line per key: its dotted name and default, type and allowed values, and meaning.

    The keys of the sections that repeat others (`augmentation.second`, `arms.NAME.optimizer`, ...) are left out.
    """
    for title, schema in sections():
        place = "" if title == TOP else f"{title}."
        for key, each in schema["properties"].items():
            default, unit = default_text(each), each.get("unit", "")
            allowed = f"{kind(each)}; {unit}" if unit else kind(each)
            meaning = LINK.sub(r"\1", " ".join((each.get("description") or "").split()))
            text = f"{place}{key}{f' = {default}' if default else ''}  [{allowed}]  {meaning}"
            yield text.replace("`", "").replace("\u00a0", " ").rstrip()


def sections() -> Iterator[tuple[str, Schema]]:
    """Yield the JSON schema of every section with its dotted name, the top level first."""
    whole = Settings.model_json_schema()
    definitions: dict[str, Schema] = whole["$defs"]
    titled, pending = {TOP: whole}, [("", whole)]
    while pending:
        place, schema = pending.pop(0)
        for key, each in schema["properties"].items():
            for name in references(each):
                title = f"{place}{key}{'.NAME' if key == 'arms' else ''}"
                titled[title] = definitions[name]
                pending.append((f"{title}.", definitions[name]))
    repeated = ("augmentation.second", *(f"arms.NAME.{section}" for section in SECTIONS))
    yield from (each for each in titled.items() if not each[0].startswith(repeated))


def references(schema: Any) -> list[str]:
    """Return the names of the sections that the schema of a key refers to."""
    if isinstance(schema, list):
        return [name for each in schema for name in references(each)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    return [name for key, each in schema.items() if key != "default" for name in references(each)]


def default_text(schema: Schema) -> str:
    """Return the default of a key as Markdown, "required" if it has none, "" for a section."""
    if described := schema.get("default_text"):
        return str(described)
    if references(schema):
        return ""
    if "default" in schema:
        return code(as_yaml(schema["default"]))
    return "" if "additionalProperties" in schema else "required"  # the program fills in the section `code`


def kind(schema: Schema) -> str:
    """Return type and allowed values of a key as Markdown."""
    if "$ref" in schema or "patternProperties" in schema:
        return "section"
    if schema.get("type") == "object":
        return "mapping"
    if "const" in schema:
        return code(schema["const"])
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    if schema["type"] == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}, each a {kind(schema['prefixItems'][0])}"
        inner = schema["items"]
        words, comma, bounds = kind(inner).partition(",")
        several = "" if {"enum", "anyOf"} & inner.keys() or inner.get("type") == "string" else "s"
        return f"list of {words}{several}{comma}{bounds}"
    if CHOICES.fullmatch(schema.get("pattern", "")):
        return ", ".join(map(code, schema["pattern"].strip("^$()").split("|")))
    return f"{WORDS.get(schema['type'], schema['type'])}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    """Return the range of a number, with non-breaking spaces."""
    bounds = [f"{sign}\u00a0{_number(schema[key])}" for key, sign in BOUNDS.items() if key in schema]
    if "minimum" in schema and "maximum" in schema:
        bounds = [f"{_number(schema['minimum'])}\u00a0to\u00a0{_number(schema['maximum'])}"]
    return "".join(f", {each}" for each in bounds)


def _number(value: float) -> str:
    """Return a bound with spaces between thousands."""
    if value != int(value):
        return f"{value:g}"
    return f"{value:,.0f}".replace(",", "\u00a0") if abs(value) >= 10_000 else f"{value:.0f}"


def code(text: object) -> str:
    """Return the text as code, also inside tables."""
    return f"`{text}`" if str(text) else ""


def as_yaml(value: Any) -> str:
    """Return a value as it is written in a settings file."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
