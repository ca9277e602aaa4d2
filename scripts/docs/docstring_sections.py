"""A griffe extension: the docstrings of the package say "Example:", which griffe knows as "Examples:"."""

from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Turns the heading into the one that griffe renders as code."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
