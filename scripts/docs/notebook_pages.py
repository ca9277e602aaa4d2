"""Convert notebooks of examples/ to Markdown pages with their text, code and stored outputs."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from markdown_text import block

FOLDER = "notebooks"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def page_path(path: Path) -> str:
    """Return the path of a notebook's page, relative to docs/."""
    return f"{FOLDER}/{path.stem}.md"


def rendered(path: Path) -> dict[str, str | bytes]:
    """Return the page, its images and the notebook by their paths relative to docs/."""
    pictures: dict[str, str | bytes] = {}
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(block(source, "python"))
            parts += [text for each in cell["outputs"] if (text := _output(each, path.stem, pictures))]
    download = f"[Download this notebook]({path.name}){{ download }}"
    page = "\n\n".join([*parts[:1], download, *parts[1:]])
    return {page_path(path): page, f"{FOLDER}/{path.name}": path.read_bytes(), **pictures}


def _output(output: dict[str, Any], name: str, pictures: dict[str, str | bytes]) -> str:
    """Convert one output: an image, a table or text."""
    if output["output_type"] == "stream":
        return block(ANSI.sub("", "".join(output["text"])))
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}_{len(pictures) + 1}.png"
        pictures[f"{FOLDER}/{file}"] = base64.b64decode("".join(data["image/png"]))
        return f"![Output of the cell above]({file})"
    if "text/html" in data:
        html = re.sub(r"<style.*?</style>|<script.*?</script>", "", "".join(data["text/html"]), flags=re.DOTALL)
        lines = (line.strip() for line in html.splitlines())  # an indented line would be code in Markdown
        return f'<div class="notebook-table">{"".join(lines)}</div>'
    return block("".join(data["text/plain"])) if "text/plain" in data else ""
