"""User code: `path/to/file.py:function` or `package.module:function` wherever the settings take a name.

Code is imported in three cases only: when settings are resolved (code_of_settings.py), when a metric is named on the
command line, and when `--allow-code` lets an analysis import what run.json names. `find` imports nothing: a run folder
alone never makes a program execute code. Imported code is identified by the digest of its source file.
"""

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from coupled.config.by_name import did_you_mean
from coupled.config.errors import is_out_of_memory

FORM = "path/to/file.py:function or package.module:function"


class Source(NamedTuple):
    """An imported source file, the blake2b digest of its bytes (32 hex digits), and the module made of it."""

    file: Path
    digest: str
    module: ModuleType


class UserCode(NamedTuple):
    """The target of a reference: `value` is the function or class, `source` the file that defines it."""

    reference: str
    source: Source
    value: Any

    @property
    def declared(self) -> Any:
        """The object that holds further declarations: the class itself, or the module of a function."""
        return self.value if inspect.isclass(self.value) else self.source.module


imported: dict[str, Source] = {}  # key: the part of a reference before the colon


def is_reference(name: str) -> bool:
    """Whether a name is `path/to/file.py:function` or `package.module:function`."""
    return ":" in name


def import_code(reference: str, key: str, expected: str | None = None, file: str | None = None) -> UserCode:
    """Import the target of `reference`, once for each content of its file.

    Args:
        reference: `path/to/file.py:function`, relative to the current folder, or `package.module:function`.
        key: key of the setting or name of the option, for messages.
        expected: the digest that the file must have.
        file: path of the file when the run was trained, used if the file of `reference` does not exist.

    Raises:
        ValueError: in one line, if there is no such file, module or function, the file cannot be imported, or it has
            another digest.
    """
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise ValueError(f"{key}: got '{reference}'; allowed is {FORM}")
    by_path = where.endswith(".py")
    name = _shortest(Path(where)) if by_path else where
    path = _path(name, reference, key, file) if by_path else _module_file(name, key)
    with _reading(path, key):
        content = path.read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if expected and digest != expected:
        raise ValueError(
            f"{key}: {path} has changed since the run was trained: expected digest {expected}, found {digest};"
            " restore the file"
        )
    if name not in imported or imported[name][:2] != (path, digest):
        module = _run_file(path, content, digest, key) if by_path else _module(name, key)
        imported[name] = Source(path, digest, module)
    return find(f"{name}:{attribute}", key)


def find(reference: str, key: str) -> UserCode:
    """The target of `reference` in a file that is imported. Raises ValueError with the file that would be imported."""
    name, _, attribute = reference.rpartition(":")
    if name not in imported:
        raise ValueError(
            f"{key}: got '{reference}', which is user code: analysing this run imports {name} and executes it; read the"
            " code, then pass --allow-code (from Python: open_run(..., allow_code=True))"
        )
    source = imported[name]
    try:
        value = reduce(getattr, attribute.split("."), source.module)
    except AttributeError:
        there = [each for each, value in vars(source.module).items() if callable(value) and not each.startswith("_")]
        own = [each for each in there if getattr(vars(source.module)[each], "__module__", "") == source.module.__name__]
        hint = did_you_mean(attribute, own)
        raise ValueError(
            f"{key}: {source.file} has no '{attribute}'{hint} (it defines: {', '.join(own) or 'no function'})"
        ) from None
    return UserCode(reference, source, value)


def of_callable(function: Any, key: str) -> UserCode:
    """The reference to a function or class that was passed from Python: its source file and its name in it.

    Raises ValueError for an object without such a name: a lambda, a local function, a function of a notebook's cell.
    """
    name, module = getattr(function, "__qualname__", ""), sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    try:
        there = reduce(getattr, name.split("."), module)
    except AttributeError:
        there = None
    if not file or not Path(file).is_file() or there is not function:
        raise ValueError(
            f"{key}: got {name or repr(function)}, which cannot be imported from a file (it is a lambda, local, or in a"
            " notebook's cell); define it at the top level of a file, so that run.json can refer to it"
        )
    assert module is not None
    path = Path(file)
    source = Source(path.resolve(), hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(), module)
    imported[_shortest(path)] = source
    return UserCode(f"{_shortest(path)}:{name}", source, function)


@contextmanager
def errors_named(code: UserCode, key: str, expected: str) -> Iterator[None]:
    """Turn any exception of the user's code into a ValueError with file, line, and what is expected.

    Only a failed allocation is passed on: it is no fault of the code.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(_told(error, code.source.file, key, expected)) from error


def refused(code: UserCode, key: str, what: str, expected: str) -> ValueError:
    """The error for user code that does not do what is expected, with the line of its definition."""
    function = inspect.unwrap(code.value) if not inspect.isclass(code.value) else code.value
    try:
        line = inspect.getsourcelines(function)[1]
    except (OSError, TypeError):  # not a function: the line that assigns its name
        name = code.reference.rpartition(":")[2].partition(".")[0]
        lines = code.source.file.read_text(encoding="utf-8", errors="replace").splitlines()
        line = next((n for n, text in enumerate(lines, 1) if text.split("=")[0].split(":")[0].strip() == name), 1)
    return ValueError(f"{key}: {code.source.file}:{line}: {code.reference.rpartition(':')[2]} {what}; {expected}")


def refuse_option_names(code: UserCode, key: str, function: Any, taken: Collection[str]) -> None:
    """Raise ValueError for an option with the name of a key of its section: it could not be set."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name in taken and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            expected = f"{key.rpartition('.')[0]}.{name} is already a key of the settings: rename the option"
            raise refused(code, key, f"has an option '{name}'", expected)


def _told(error: BaseException, file: Path, key: str, expected: str) -> str:
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(file)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(file) else (lines or [1])[-1]
    text = " ".join(str(error).split())
    return f"{key}: {file}:{line}: {type(error).__name__}: {text[:300]}; {expected}"


def _path(name: str, reference: str, key: str, file: str | None) -> Path:
    path = Path(name).resolve()
    if not path.is_file() and file:
        path = Path(file)
    if not path.is_file():
        raise ValueError(f"{key}: got '{reference}'; no file {path}; allowed is {FORM}")
    return path


def _module_file(name: str, key: str) -> Path:
    with _reading(Path(name), key), _current_folder():
        spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise ValueError(f"{key}: no module '{name}' with a source file; allowed is {FORM}")
    return Path(spec.origin)


def _module(name: str, key: str) -> ModuleType:
    """The module `name`, reloaded if its file has changed since it was imported."""
    with _reading(Path(name), key), _current_folder():
        return importlib.reload(sys.modules[name]) if name in imported else importlib.import_module(name)


def _run_file(path: Path, content: bytes, digest: str, key: str) -> ModuleType:
    module = ModuleType(f"coupled_user_code_{path.stem}_{digest[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and typing look modules up there
    with _reading(path, key):
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 - these bytes have the digest
    return module


@contextmanager
def _reading(path: Path, key: str) -> Iterator[None]:
    """Turn any exception during an import into a ValueError with the line of the file."""
    try:
        yield
    except (Exception, SystemExit) as error:
        what = "the file must import without an error; its imports must be installed or on PYTHONPATH"
        raise ValueError(_told(error, path, key, what)) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """Append the current folder to sys.path, as `python -m` does, so that modules in it are found after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _shortest(path: Path) -> str:
    """The path as settings hold it: relative to the current folder if it is below it, otherwise absolute."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
