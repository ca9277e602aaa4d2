"""Read the YAML of settings: safe, of bounded size, with errors of one line."""

import copy
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

LONGEST = 2**16  # characters of YAML with aliases expanded: enough for more than a hundred arms
DEEPEST = 20
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e-4 as a number and refuses tags, duplicate keys, and values that are too deep or too long
    with aliases expanded: a few lines with aliases can expand to billions.
    """

    depth = 0

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        tag = getattr(self.peek_event(), "tag", None)
        if tag is not None:
            raise yaml.YAMLError(f"tags are not allowed: remove {tag.replace('tag:yaml.org,2002:', '!!')}")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (TEXT, MERGE):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "of several values"
                raise yaml.YAMLError(f"the key {shown} is not text; put it in quotes")
            if key.value in seen:
                raise yaml.YAMLError(f"the key '{key.value}' appears twice in one mapping")
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Expand merged keys: the mapping's own keys win, then those of the first mapping that has them. PyYAML 6.0.4
        takes the wrong value if a merged mapping itself overrides a merged key.
        """
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for _, merged in (each for each in node.value if each[0].tag == MERGE):
            for source in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.YAMLError("'<<' merges a mapping or a list of mappings, nothing else")
                self.flatten_mapping(source)
                for pair in source.value:
                    pairs.setdefault(pair[0].value, pair)
        pairs |= {pair[0].value: pair for pair in node.value if pair[0].tag != MERGE}
        node.value = list(pairs.values())


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int] | None]) -> tuple[int, int]:
    """Levels and characters of `node` with aliases expanded. Raises YAMLError if they are too many."""
    if node in known:
        found = known[node]
        if found is None:
            raise yaml.YAMLError("an alias refers to a value that contains it")
        return found
    known[node] = None  # in progress
    levels, length = 0, len(node.value) if isinstance(node, yaml.ScalarNode) else 0
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    for child in (each for part in inner for each in (part if isinstance(part, tuple) else (part,))):
        below, more = _measure(child, known)
        levels, length = max(levels, below), length + more
    known[node] = levels + 1, length + 1
    if levels + 1 > DEEPEST:
        raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
    if length >= LONGEST:
        raise yaml.YAMLError(f"longer than {LONGEST:,} characters with aliases expanded")
    return levels + 1, length + 1


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ValueError that begins with its path; a file that is too large is not read."""
    size = path.stat().st_size
    if size > LONGEST:
        raise ValueError(f"{path}: {size:,} bytes long; settings are at most {LONGEST:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None
    return parse_yaml(text, str(path))


@lru_cache(maxsize=64)  # every point of a sweep reads the same base; a file of 50 lines takes 10 ms
def _parsed(text: str) -> Any:
    return yaml.load(text, _Loader)  # _Loader is a SafeLoader


def parse_yaml(text: str, source: str) -> Any:
    """The value of the YAML `text`; 3e-4 is a number. Raises ValueError that begins with `source`."""
    if len(text) > LONGEST:
        raise ValueError(f"{source}: {len(text):,} characters long; settings are at most {LONGEST:,}")
    try:
        return copy.deepcopy(_parsed(text))
    # PyYAML raises ValueError for an invalid date, and OverflowError for a number of many parts, 1:59:...:59.5
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            mark = error.problem_mark
            said = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
            if error.context and error.context_mark is not None:
                said += f" ({error.context} that begins in line {error.context_mark.line + 1})"
        raise ValueError(f"{source}: not readable as YAML: {said}") from None
