"""The settings, from the pydantic models of coupled/config: keys, types, ranges, defaults, units, descriptions."""

import json
from collections.abc import Iterator
from math import inf
from typing import Any

import yaml
from markdown_text import block, code, table

from coupled.config.load import DEFAULT_ARMS, resolve
from coupled.config.schema import Settings

HEADING = ["key", "type and allowed values", "default", "unit", "meaning"]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = dict[str, Any]


def markdown() -> str:
    """All defaults as YAML, then a table for each section."""
    parts = ["## All settings", block(defaults(), "yaml")]
    for title, schema in sections():
        rows = [_row(key, each) for key, each in schema["properties"].items()]
        parts += [f"## {title}", _prose(schema["description"]), table(HEADING, rows)]
    return "\n\n".join(parts)


def defaults() -> str:
    """The resolved settings of a run whose file names only a dataset, as YAML."""
    least = {"name": "mine", "dataset": {"name": "digits"}, "arms": dict(DEFAULT_ARMS)}
    return yaml.safe_dump(resolve(least).resolved(), sort_keys=False, default_flow_style=None, width=100)


def sections() -> Iterator[tuple[str, Schema]]:
    """The JSON schema of every section under its dotted name, that of the top level first."""
    whole = Settings.model_json_schema()
    definitions: dict[str, Schema] = whole["$defs"]
    titled, pending = {"Top level": whole}, [("", whole)]
    while pending:
        place, schema = pending.pop(0)
        for key, each in schema["properties"].items():
            for name in _references(each):
                title = f"{place}{key}{'.<name>' if key == 'arms' else '[]' if key == 'steps' else ''}"
                titled[title] = definitions[name]
                pending.append((f"{title}.", definitions[name]))
    titled.pop("augmentation.second")  # keys of `augmentation`
    yield from titled.items()


def _references(schema: Any) -> list[str]:
    """Names of the sections in the schema of a key."""
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    return [name for key, each in schema.items() if key != "default" for name in _references(each)]


def _row(key: str, schema: Schema) -> list[str]:
    default = schema.get("default_text") or ("" if _references(schema) else _default(schema))
    return [code(key), kind(schema), default, schema.get("unit", ""), _prose(schema.get("description", ""))]


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return "required" if "additionalProperties" not in schema else ""
    value = schema["default"]
    if isinstance(value, float) and value not in (inf, -inf):
        return code(f"{value:g}" if float(f"{value:g}") == value else value)
    return code(json.dumps(value).replace('"', "") if value != [] else "[]")


def kind(schema: Schema) -> str:
    """Type and allowed values of a key in words."""
    if "$ref" in schema or "patternProperties" in schema or schema.get("type") == "object":
        return "section"
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            inner = schema["prefixItems"][0]
            return f"[{inner['type']}, {inner['type']}]{_bounds(inner)}"
        inner = schema["items"]
        return f"list of {kind(inner)}" if "enum" in inner else f"list of {kind(inner)}s"
    if schema.get("pattern", "").startswith("^(") and "|" in schema["pattern"]:
        return ", ".join(map(code, schema["pattern"].strip("^$()").split("|")))
    words = {"boolean": "`true`, `false`", "string": "text", "null": "`null`"}
    return words.get(schema["type"], schema["type"]) + _bounds(schema)


def _bounds(schema: Schema) -> str:
    said = [f"{sign} {schema[key]:,}".replace(",", " ") for key, sign in BOUNDS.items() if key in schema]
    return "".join(f", {each.removesuffix('.0')}" for each in said)


def _prose(text: str) -> str:
    """A description is Markdown already."""
    return " ".join(text.split())
