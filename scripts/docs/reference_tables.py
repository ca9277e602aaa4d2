"""The CSV files, from coupled/analysis/schemas.py."""

from markdown_text import code, plain, table

from coupled.analysis.schemas import COLUMNS, OF_STEPS, SCHEMAS, Schema


def markdown() -> str:
    """A section for each file: the program that writes it, its columns, their units and the key."""
    return "\n\n".join(_section(name, schema) for name, schema in SCHEMAS.items())


def _section(name: str, schema: Schema) -> str:
    rows = []
    for column in schema.columns:
        about = schema.others.get(column, COLUMNS[column]) if column in COLUMNS else schema.others[column]
        rows.append([code(column), "yes" if column in schema.key else "", plain(about.text), plain(about.cells.words)])
    if name == "steps.csv":
        for column, about in OF_STEPS.items():
            rows.append([code(f"<arm>_{column}"), "", plain(about.text), plain(about.cells.words)])
    program = f"coupled {schema.program.replace('_', '-')}"
    heading = ["column", "key", "meaning, with the unit", "cells"]
    return f"## {name}\n\nWritten by `{program}`.\n\n{table(heading, rows)}"
