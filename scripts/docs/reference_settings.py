"""Generate the pages of the settings and sweep files from their pydantic models."""

import yaml
from markdown_text import SECTION, block, described

from coupled.config.arm_sections import SECTIONS
from coupled.config.key_descriptions import TOP, Schema, code, default_text, kind, references, sections
from coupled.config.load import DEFAULT_ARMS, resolve
from coupled.sweep.sweep_file import SweepFile

SWEEP = "Sweep file"
HEADING = ["key", "meaning", "type and allowed values", "default", "unit"]


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


def _row(title: str, key: str, schema: Schema) -> list[str]:
    meaning = _prose(schema.get("description", ""))  # pydantic omits it for a key with the section's description
    if references(schema) and key != "second":
        shared = title == TOP or (title == "arms.NAME" and key in SECTIONS)
        meaning += f" [Keys](#{_anchor(key if shared else f'{title}.{key}')})"
    return [code(key), meaning.strip(), kind(schema), default_text(schema), schema.get("unit", "")]


def _anchor(title: str) -> str:
    return title.lower().replace(".name", "").replace(".", "-").replace(" ", "-")


def _prose(text: str) -> str:
    """Return a description, which is Markdown, in one line."""
    return " ".join(text.split())
