"""Generate the page of the objectives from their docstrings and signatures."""

from markdown_text import code, docstring, option_table, plain, table

from coupled.config.by_name import find, known

COMPUTED = {"temperature": "setting [`temperature`](settings.md#top-level)"}  # defaults that come from other settings


def markdown() -> str:
    """Return a table of all objectives and one section for each: summary, formula, options with defaults, source."""
    names = known("coupled.objectives")
    rows = [[f"[{code(name)}](#{name})", plain(_summary(name))] for name in names]
    return "\n\n".join([table(["objective", "summary"], rows), *map(_section, names)])


def _summary(name: str) -> str:
    return (find("coupled.objectives", name).__doc__ or "").split("\n\n")[0]


def _section(name: str) -> str:
    function = getattr(find("coupled.objectives", name), name)
    options = option_table(function, COMPUTED) or "No options."
    return "\n\n".join([f"## {name}", plain(_summary(name)), docstring(function, summary=False), options])
