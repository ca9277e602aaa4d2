"""Generate the page of the datasets from the docstrings and signatures of their files."""

from markdown_text import docstring, option_table

from coupled.config.by_name import find, known


def markdown() -> str:
    """Return one section for each dataset: description, source, default size and options."""
    return "\n\n".join(_section(name) for name in known("coupled.datasets"))


def _section(name: str) -> str:
    module = find("coupled.datasets", name)
    function = getattr(module, "signed", module.load)  # the function that has the options
    usual = getattr(module, "SIZE", None)
    size = f"Default of `dataset.image_size`: {usual} px." if usual else "`dataset.image_size` must be given."
    if hasattr(module, "own_size"):
        otherwise = f"{usual} px" if usual else "it must be given"
        size = f"Default of `dataset.image_size`: the size of the images if they all have one; otherwise {otherwise}."
    options = option_table(function, {}) or "No options except `classes`."
    return "\n\n".join([f"## {name}", docstring(module), size, options, docstring(function)])
