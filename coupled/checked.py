"""Checked input: command lines, YAML text, options of a function; errors of one line (key, value, what is allowed)."""

import argparse
import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from coupled.terminal import say


class _Once(argparse.Action):
    """Store the values of an argument; of an option given twice argparse would ignore the first without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        assert isinstance(parser, Parser)
        if option and self.dest in parser.given:
            parser.error(f"{option}: given twice; give it once, with all its values")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaint about bad input is a ValueError, and that takes an option once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("action", None, _Once)
        self.given: set[str] = set()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which is asked for every command line."""
        self.given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message, which names option, value and what is allowed."""
        raise ValueError(message)


def complain(program: str, error: ValueError) -> int:
    """Say in one line on stderr what is wrong, once a machine however many ranks see it; the exit status."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: {in_words(error)}", sys.stderr)
    return status_of(error)


def status_of(error: Exception) -> int:
    """2 if `error` is bad input, else 1. A character that this locale cannot encode is not the input's fault."""
    return 2 if isinstance(error, ValueError) and not isinstance(error, UnicodeEncodeError) else 1


def typed(path: Path) -> str:
    """A file as it can be typed in a command line in this directory: relative to it if it lies below, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def in_words(error: Exception) -> str:
    """The message of `error`; of text that cannot be encoded, which text and what to do."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    remedy = "" if error.encoding.startswith("utf") else ": set PYTHONUTF8=1, so that files have names in UTF-8"
    return f"'{error.object}' cannot be written in {error.encoding}{remedy}"


LONGEST = 2**16  # characters of YAML, aliases written out: a hundred arms and more
DEEPEST = 20
CLOSE = 0.7  # of difflib: a typo; "count" and "contrast" are .62
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
                raise yaml.YAMLError(f"the key '{key.value}' stands twice in one mapping")
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
            raise yaml.YAMLError("an alias stands inside what it stands for")
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


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], where: str, also: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The keyword-only options of `function`, defaults filled in and types checked against its annotations.

    `also` holds further options that are known, name -> type; they are None where they are not given.

    Raises ValueError that begins with `where` (such as "arms.nscl") for an unknown, missing or ill-typed option.
    """
    hints = get_type_hints(function)
    fields: dict[str, Any] = {
        name: (_exact(hints[name]), ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    fields |= {name: (kind, None) for name, kind in (also or {}).items()}
    model = create_model("Options", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
    try:
        checked = model.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(f"{where}.{one_line(error, model)}") from None
    return {name: getattr(checked, name) for name in fields}


def _exact(kind: Any) -> Any:
    """Numbers and truth values are not read from text or from each other; an integer is a float."""
    if isinstance(kind, UnionType):
        return reduce(or_, map(_exact, get_args(kind)))
    return Annotated[kind, Field(strict=True)] if kind in (int, float, bool) else kind


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic as one line: dotted key, value, what is allowed."""
    complaints = error.errors()
    first = complaints[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_beside(model, first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=CLOSE)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        text = f"{key}: unknown key{hint} (known: {', '.join(known) or 'none'})"
    elif first["type"] == "missing":
        text = f"{key}: missing; this key has no default"
    elif first["type"] == "value_error":  # raised by our own checks, which name key, value and fix
        text = f"{key}{'.' if key else ''}{first['ctx']['error']}"
    else:
        value = repr(first["input"])
        text = f"{key}: got {value if len(value) <= 80 else value[:77] + '...'}; {_lower(first['msg'])}"
    more = len(complaints) - 1
    return " ".join(text.split()) + (f" (and {more} more)" if more else "")


def differences(there: Any, here: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two trees of settings differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*there, *(name for name in here if name not in there)]:
            yield from differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
    elif there != here:
        yield key, there, here


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return sorted(model.model_fields)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
