"""A griffe extension that renames the section "Example", keeps colons in "Returns" and adds links to analyses."""

import re
from typing import Any

import griffe

COMPUTES = re.compile(r"`(coupled\.analysis\.[\w.]+\.(?:compute|write))`")  # functions that methods of `Run` call
RETURNS = re.compile(r"^( *(?:Returns|Yields):\n +)(?=\S)", re.MULTILINE)


class DocstringSections(griffe.Extension):
    """Replace "Example:" by "Examples:", which griffe renders as code, and names of analyses by links."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Change one docstring. griffe calls this for every module, class, function and attribute."""
        if obj.docstring:
            text = obj.docstring.value.replace("Example:\n", "Examples:\n")
            text = RETURNS.sub(r"\1: ", text)  # otherwise griffe takes the text before the first colon as a type
            obj.docstring.value = COMPUTES.sub(r"[`\1`][\1]", text)
