"""Generate the page of the CSV files from coupled/analysis/schemas.py."""

from markdown_text import code, described, plain

from coupled.analysis.cells import TEXT, Column
from coupled.analysis.schemas import COLUMNS, OF_STEPS, SCHEMAS, Schema

HEADING = ["column", "meaning", "unit", "cells", "in the key"]


def markdown() -> str:
    """Return one section for each file: the program that writes it, its columns, their units and the key."""
    return "\n\n".join(_section(name, schema) for name, schema in SCHEMAS.items())


def _section(name: str, schema: Schema) -> str:
    known = {**COLUMNS, **schema.others}
    rows = [_row(column, known[column], column in schema.key) for column in schema.columns]
    if name == "steps.csv":
        rows += [_row(f"<arm>_{column}", about, False) for column, about in OF_STEPS.items()]
    program = f"coupled {schema.program.replace('_', '-')}"
    anchor = program.replace(" ", "-")
    written = f"Written by [`{program}`](command_line.md#{anchor})."
    return f"## {name}\n\n{written}\n\n{described(HEADING, rows)}"


def _row(name: str, about: Column, in_key: bool) -> list[str]:
    cells = plain(about.cells.words) + (", or empty" if about.cells.empty and about.cells is not TEXT else "")
    return [code(name), plain(about.text), about.unit, cells, "yes" if in_key else ""]
