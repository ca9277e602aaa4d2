"""The datasets, from the docstrings and signatures of their files."""

from markdown_text import code, docstring, options, table

from coupled.config.by_name import find, known


def markdown() -> str:
    """A section for each dataset: what it is, where it comes from, its usual size and its options."""
    return "\n\n".join(_section(name) for name in known("coupled.datasets"))


def _section(name: str) -> str:
    module = find("coupled.datasets", name)
    function = getattr(module, "signed", module.load)  # the function that has the options
    rows = [[code(option), code(kind), code(default) or "required"] for option, kind, default in options(function)]
    listed = [table(["option", "type", "default"], rows)] if rows else ["No options of its own."]
    usual = getattr(module, "SIZE", None)
    size = f"Default `dataset.image_size`: {usual} px." if usual else "`dataset.image_size` must be given."
    return "\n\n".join([f"## {name}", docstring(module), size, *listed, docstring(function)])
