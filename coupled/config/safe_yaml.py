"""YAML as settings are written in it: safe, of bounded size, every mistake one line."""

import re
from pathlib import Path
from typing import Any

import yaml

LONGEST = 2**16  # characters of YAML, aliases written out: a hundred arms and more
DEEPEST = 20
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e-4 as a number and refuses tags, a key written twice, and what is deep or long once its
    aliases are written out: a few lines can stand for billions.
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
            raise yaml.YAMLError(f"tags are not read: leave {tag.replace('tag:yaml.org,2002:', '!!')} out")
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
                raise yaml.YAMLError(f"the key '{key.value}' is given twice in one mapping")
            seen.add(key.value)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Write merged keys out: the mapping's own win, then those of the first mapping that has them. PyYAML 6.0.4
        takes the wrong one where a merged mapping has itself replaced a merged key.
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
    """Levels and characters of `node` with its aliases written out. Raises YAMLError if they are too many."""
    if node in known:
        found = known[node]
        if found is None:
            raise yaml.YAMLError("an alias is inside the value that it repeats")
        return found
    known[node] = None  # not yet whole
    levels, length = 0, len(node.value) if isinstance(node, yaml.ScalarNode) else 0
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    for child in (each for part in inner for each in (part if isinstance(part, tuple) else (part,))):
        below, more = _measure(child, known)
        levels, length = max(levels, below), length + more
    known[node] = levels + 1, length + 1
    if levels + 1 > DEEPEST:
        raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
    if length >= LONGEST:
        raise yaml.YAMLError(f"longer than {LONGEST:,} characters with aliases written out")
    return levels + 1, length + 1


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises ValueError that begins with its path; a huge file is not read at all."""
    size = path.stat().st_size
    if size > LONGEST:
        raise ValueError(f"{path}: {size:,} bytes long; settings are at most {LONGEST:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value that `text` spells; 3e-4 is a number. Raises ValueError that begins with `source`."""
    if len(text) > LONGEST:
        raise ValueError(f"{source}: {len(text):,} characters long; settings are at most {LONGEST:,}")
    try:
        return yaml.load(text, _Loader)  # _Loader is a SafeLoader
    # PyYAML lets through a date that is none as ValueError, and a number of many parts, 1:59:...:59.5, as OverflowError
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{source}: not readable as YAML: {' '.join(str(error).split())}") from None
