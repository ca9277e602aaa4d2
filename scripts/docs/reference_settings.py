"""Generate the pages of the settings and sweep files from their pydantic models."""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from markdown_text import SECTION, as_yaml, block, code, described

from coupled.config.arm_sections import SECTIONS
from coupled.config.load import DEFAULT_ARMS, resolve
from coupled.config.schema import Settings
from coupled.sweep.sweep_file import SweepFile

TOP = "Top level"
SWEEP = "Sweep file"
HEADING = ["key", "meaning", "type and allowed values", "default", "unit"]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
CHOICES = re.compile(r"\^\(\w+(\|\w+)+\)\$")  # a pattern that lists the allowed words
WORDS = {"boolean": "`true`, `false`", "string": "text", "null": "`null`"}
Schema = dict[str, Any]


def markdown() -> str:
    """Return all defaults as YAML and one table for each section."""
    parts = ["## Defaults of a run", "Settings that are switched off are left out.", block(defaults(), "yaml")]
    for title, schema in sections():
        parts += _section(title, schema)
    return "\n\n".join(parts)


def sweep_markdown() -> str:
    """Return a table of the keys of a sweep file and one of its section `figure`."""
    whole = SweepFile.model_json_schema()
    parts = _section(SWEEP, whole) + _section(f"{SWEEP}.figure", whole["$defs"]["FigureSettings"])
    return "\n\n".join(parts)


def _section(title: str, schema: Schema) -> list[str]:
    """Return heading, description and table of one section."""
    keys = sorted(schema["properties"], key=lambda key: key != "preset")  # the preset sets defaults of other keys
    rows = [_row(title, key, schema["properties"][key]) for key in keys]
    text = _prose(SECTION.split(schema["description"])[0])  # without the example
    heading = title.replace(f"{SWEEP}.", f"{SWEEP}: ")
    return [f"## {heading} {{ #{_anchor(title)} }}", text, described(HEADING, rows)]


def defaults() -> str:
    """Return the resolved settings of a run whose file contains only a dataset, as YAML."""
    least = {"name": "mine", "dataset": {"name": "digits"}, "arms": dict(DEFAULT_ARMS)}
    return yaml.safe_dump(resolve(least).resolved(), sort_keys=False, default_flow_style=None, width=100)


def sections() -> Iterator[tuple[str, Schema]]:
    """Yield the JSON schema of every section with its dotted name, the top level first."""
    whole = Settings.model_json_schema()
    definitions: dict[str, Schema] = whole["$defs"]
    titled, pending = {TOP: whole}, [("", whole)]
    while pending:
        place, schema = pending.pop(0)
        for key, each in schema["properties"].items():
            for name in _references(each):
                title = f"{place}{key}{'.NAME' if key == 'arms' else ''}"
                titled[title] = definitions[name]
                pending.append((f"{title}.", definitions[name]))
    repeated = ("augmentation.second", *(f"arms.NAME.{section}" for section in SECTIONS))
    yield from (each for each in titled.items() if not each[0].startswith(repeated))


def _references(schema: Any) -> list[str]:
    """Return the names of the sections that the schema of a key refers to."""
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    return [name for key, each in schema.items() if key != "default" for name in _references(each)]


def _row(title: str, key: str, schema: Schema) -> list[str]:
    default = schema.get("default_text") or ("" if _references(schema) else _default(schema))
    meaning = _prose(schema.get("description", ""))  # pydantic omits it for a key with the section's description
    if _references(schema) and key != "second":
        shared = title == TOP or (title == "arms.NAME" and key in SECTIONS)
        meaning += f" [Keys](#{_anchor(key if shared else f'{title}.{key}')})"
    return [code(key), meaning.strip(), kind(schema), default, schema.get("unit", "")]


def _anchor(title: str) -> str:
    return title.lower().replace(".name", "").replace(".", "-").replace(" ", "-")


def _default(schema: Schema) -> str:
    if "default" in schema:
        return code(as_yaml(schema["default"]))
    return "" if "additionalProperties" in schema else "required"  # the program fills in `code`


def kind(schema: Schema) -> str:
    """Return type and allowed values of a key as text."""
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


def _prose(text: str) -> str:
    """Return a description, which is Markdown, in one line."""
    return " ".join(text.split())
