"""The objectives, from their docstrings and signatures."""

from markdown_text import code, docstring, options, plain, table

from coupled.config.by_name import find, known


def markdown() -> str:
    """A section for each objective: what it is, its formula, its options with their defaults, its source."""
    return "\n\n".join(_section(name) for name in known("coupled.objectives"))


def _section(name: str) -> str:
    module = find("coupled.objectives", name)
    function = getattr(module, name)
    summary = (module.__doc__ or "").split("\n\n")[0]
    rows = [[code(option), code(kind), code(default) or "required"] for option, kind, default in options(function)]
    listed = [table(["option", "type", "default"], rows)] if rows else ["No options."]
    return "\n\n".join([f"## {name}", plain(summary), docstring(function, formula=True), *listed])
