"""Checked input: options of a function; errors of one line (key, value, what is allowed)."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from coupled.config.by_name import did_you_mean, with_option
from coupled.monitoring.terminal import say


def report_error(program: str, error: Exception) -> int:
    """Print the error in one line on stderr, once per machine, and return the exit status."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"{program}: {in_words(error)}", sys.stderr)
    return status_of(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on the CPU or on a GPU; most errors of torch differ only in their text."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(part in str(error) for part in NO_MEMORY))


def status_of(error: Exception) -> int:
    """Return 2 if `error` is bad input, else 1; also 1 for a character that the locale cannot encode."""
    return 2 if isinstance(error, ValueError) and not isinstance(error, UnicodeEncodeError) else 1


NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
SHOWN = 80  # characters of a text that cannot be encoded
MOST_KEYS, MOST_LETTERS = 4, 48  # settings that differ and are named, and letters of each of their values


def in_words(error: Exception) -> str:
    """Return the message of `error`; for text that cannot be encoded, the text and what to do."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    remedy = "" if error.encoding.startswith("utf") else "; set PYTHONUTF8=1 to use UTF-8"
    start = max(0, error.start - SHOWN // 2)  # the text may be a whole page
    shown = error.object[start : start + SHOWN]
    before, after = "..." if start else "", "..." if start + SHOWN < len(error.object) else ""
    return f"'{before}{shown}{after}' cannot be written in {error.encoding}{remedy}"


def check_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    also: Mapping[str, Any] | None = None,
    beside: Collection[str] = (),
    package: str = "",
) -> dict[str, Any]:
    """Return the keyword-only options of `function`, with defaults filled in and types checked against its annotations.

    `also` maps the names of further known options to their types; their default is None. The message about an unknown
    option also lists the keys `beside` the options, and the functions of `package` that have the option.

    Raises ValueError that begins with `where` (such as "arms.nscl") for an unknown, missing or ill-typed option.
    """
    model = _options_model(function, tuple((also or {}).items()))
    try:
        checked = model.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(f"{where}.{one_line(error, model, beside)}{_elsewhere(error, package)}") from None
    return {name: getattr(checked, name) for name in model.model_fields}


@lru_cache(maxsize=256)  # pydantic builds a model in milliseconds, and a sweep checks the same functions at every point
def _options_model(function: Callable[..., Any], also: tuple[tuple[str, Any], ...]) -> type[BaseModel]:
    """A model of the keyword-only options of `function` and of further options."""
    hints = get_type_hints(function)
    fields: dict[str, Any] = {
        name: (_exact(hints.get(name, Any)), ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    fields |= {name: (kind, None) for name, kind in also}
    return create_model("Options", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def without_defaults(
    options: Mapping[str, Any], function: Callable[..., Any], added: Collection[str]
) -> dict[str, Any]:
    """Return the options of `function` without those in `added` that have their default.

    Runs that do not use an added option then have the same digest as before it existed.
    """
    usual = inspect.signature(function).parameters
    return {key: value for key, value in options.items() if key not in added or value != usual[key].default}


def _exact(kind: Any) -> Any:
    """Make numbers and booleans strict: they are not converted from text or from each other; an integer is a float."""
    if isinstance(kind, UnionType):
        return reduce(or_, map(_exact, get_args(kind)))
    return Annotated[kind, Field(strict=True)] if kind in (int, float, bool) else kind


def _elsewhere(error: ValidationError, package: str) -> str:
    """Return the end of a message about an unknown option: the functions of `package` that have it; "" if none has."""
    first = error.errors()[0]
    names = with_option(package, str(first["loc"][0])) if package and first["type"] == "extra_forbidden" else []
    return f"; an option of {', '.join(names)}" if names else ""


def one_line(error: ValidationError, model: type[BaseModel], beside: Collection[str] = ()) -> str:
    """Return the first error of pydantic as one line: dotted key, value, what is allowed; `beside` are known keys."""
    found = error.errors()
    first = found[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted({*_keys_beside(model, first["loc"]), *beside})
        hint = did_you_mean(str(first["loc"][-1]), known)
        text = f"{key}: unknown key{hint} (known: {', '.join(known) or 'none'})"
    elif first["type"] == "missing":
        text = f"{key}: missing; set it, because it has no default"
    elif first["type"] == "value_error":  # raised by our own checks, which name key, value and fix
        said = str(first["ctx"]["error"])
        text = f"{key}: {said}" if said.startswith("got ") else f"{key}{'.' if key else ''}{said}"
    else:
        value = repr(first["input"])
        allowed = _allowed(first["msg"])
        if first["type"] in ("model_type", "model_attributes_type"):
            allowed = f"allowed is a section with keys ({', '.join(_keys_beside(model, (*first['loc'], '')))}), or {{}}"
        if first["type"] == "too_short":
            allowed = f"allowed are {first['ctx']['min_length']} or more entries"
        if first["type"] == "literal_error":
            allowed += did_you_mean(str(first["input"]), re.findall(r"'([^']*)'", first["ctx"]["expected"]))
        text = f"{key}: got {value if len(value) <= 80 else value[:77] + '...'}; {allowed}"
    more = len(found) - 1
    return " ".join(text.split()) + (f" (and {more} more)" if more else "")


def differences(there: Any, here: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys at which two trees of settings differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*there, *(name for name in here if name not in there)]:
            yield from differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
    elif there != here:
        yield key, there, here


def first_differences(there: Any, here: Any, ignored: Collection[str] = ()) -> str:
    """Return the first keys at which two trees of settings differ, with both values, and how many more there are.

    Keys of the sections `ignored` do not count. "" if there is no other.
    """
    found = [
        f"{key} was {_shortened(was)}, is {_shortened(now)}"
        for key, was, now in differences(there, here)
        if not any(f"{key}.".startswith(f"{each}.") for each in ignored)
    ]
    more = [f"and {len(found) - MOST_KEYS} more"] if len(found) > MOST_KEYS else []
    return "; ".join([*found[:MOST_KEYS], *more])


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the section that the location is in."""
    for part in location[:-1]:
        if str(part) in model.model_fields:  # a name in a mapping of sections is not
            model = _section(model.model_fields[str(part)].annotation) or model
    return sorted(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Section`, `Section | None` or `dict[str, Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


ALLOWED = {  # the first words of pydantic's messages, and ours; a longer one before its beginning
    "Input should be greater than or equal to ": "allowed are numbers of at least ",
    "Input should be greater than ": "allowed are numbers above ",
    "Input should be less than or equal to ": "allowed are numbers up to ",
    "Input should be less than ": "allowed are numbers below ",
    "Input should be a valid integer": "allowed are whole numbers",
    "Input should be a valid number": "allowed are numbers",
    "Input should be a finite number": "allowed are finite numbers",
    "Input should be a valid boolean": "allowed are true and false",
    "Input should be '": "allowed are '",
}


def _allowed(message: str) -> str:
    """Return pydantic's message about a value as a statement of what is allowed."""
    for theirs, ours in ALLOWED.items():
        if message.startswith(theirs):
            return ours + message.removeprefix(theirs)
    return (message[:1].lower() + message[1:]).replace("valid tuple", "valid list")
