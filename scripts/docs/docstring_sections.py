"""A griffe extension: headings of examples as griffe knows them, and links between docstrings."""

import re
from typing import Any

import griffe

COMPUTES = re.compile(r"`(coupled\.analysis\.[\w.]+\.(?:compute|write))`")  # what a method of `Run` calls


class DocstringSections(griffe.Extension):
    """Turns "Example:" into "Examples:", which griffe renders as code, and names of analyses into links."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            text = obj.docstring.value.replace("Example:\n", "Examples:\n")
            obj.docstring.value = COMPUTES.sub(r"[`\1`][\1]", text)
