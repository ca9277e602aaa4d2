"""Checked input: YAML text, options of a function, and errors of one line (key, value, what is allowed)."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e-4 as a number and refuses a key written twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.YAMLError(f"the key '{key}' stands twice in one mapping")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """The value that `text` spells; 3e-4 is a number. Raises ValueError that begins with `source`."""
    try:
        return yaml.load(text, _Loader)  # _Loader is a SafeLoader
    except yaml.YAMLError as error:
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
    return Annotated[kind, Field(strict=True)] if kind in (int, float, bool) else kind


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic as one line: dotted key, value, what is allowed."""
    complaints = error.errors()
    first = complaints[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_beside(model, first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
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


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return sorted(model.model_fields)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
