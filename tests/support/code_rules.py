"""Code rules that neither import-linter nor ruff can check. Each rule yields the violations in one module, with a fix.

`test_code_rules.py` checks the code with them. The other rules are in pyproject.toml.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

PURE = ("coupled.objectives", "coupled.metrics.pair", "coupled.metrics.arm", "coupled.metrics.undefined")
FOUND_BY_NAME = ("coupled.objectives", "coupled.datasets")
ARM_METRICS_IMPORT = ("sklearn", "coupled.stream.seeds")  # classifiers, and seeded draws of images
PURE_IMPORTS = ("math", "typing", "collections", "dataclasses", "functools", "itertools", "torch", "numpy")
READS_OR_PRINTS = re.compile(r"print|open|input|load|save|(read|write)_(text|bytes)|fromfile|tofile")
MUTATES = re.compile(r"append|extend|insert|add|update|setdefault|pop|popitem|remove|clear")
DRAWS = re.compile(r"torch\.((rand|randn|randint)(_like)?|randperm|normal|bernoulli|multinomial|poisson)")
DRAWS_IN_PLACE = re.compile(r"(uniform|normal|random|bernoulli|exponential|cauchy|geometric|log_normal)_")


@dataclass(frozen=True)
class Module:
    """One source file under its dotted name."""

    name: str
    tree: ast.Module

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """(line, dotted name) of everything imported anywhere in the file, by statement or by a name in a string."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found += [(node.lineno, name) for name in _imported(node)]
            elif isinstance(node, ast.Call) and last_name(node.func) in (
                "find",
                "known",
                "import_module",
                "__import__",
            ):
                texts = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
                found += [(node.lineno, text) for text in texts if below(text, "coupled")]
        return found

    @property
    def imports_at_once(self) -> list[str]:
        """The dotted names that importing the module imports: those of the statements outside functions."""
        statements = (node for node in self.tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
        return [name for node in statements for name in _imported(node)]

    @cached_property
    def names_used(self) -> list[tuple[ast.expr, str]]:
        """(node, full dotted name) of every name and attribute, with imported names spelled out: np.x -> numpy.x."""
        spelled: dict[str, str | None] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                spelled |= {each.asname or each.name.split(".")[0]: each.asname and each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                spelled |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        used: list[tuple[ast.expr, str]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Name, ast.Attribute)):
                first, _, rest = ast.unparse(node).partition(".")
                used.append((node, ".".join(filter(None, (spelled.get(first) or first, rest)))))
        return used


def modules(*folders: str) -> dict[str, Module]:
    """Every Python file below the folders of the repository, by dotted name; a package bears its folder's name."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = Module(name, ast.parse(path.read_text()))
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The dotted names of an import statement."""
    prefix = "" if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module}."
    return [f"{prefix}{each.name}" for each in node.names]


def last_name(node: ast.expr) -> str:
    """`c` of a.b.c and of c."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def below(name: str, *places: str) -> bool:
    """Whether a dotted name is one of the places or lies below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def file_of(dotted: str, known: dict[str, Module]) -> str:
    """The module that holds an imported name: coupled.config.schema.load -> coupled.config.schema."""
    while dotted not in known and "." in dotted:
        dotted = dotted.rpartition(".")[0]
    return dotted


def stands_alone(module: Module, known: dict[str, Module]) -> Iterator[str]:
    """An objective or a dataset is one file: of `coupled` it imports its package's face and private helpers only."""
    package = next((each for each in FOUND_BY_NAME if below(module.name, each)), None)
    for line, dotted in module.imports if package and module.name.count(".") == 2 else ():
        target = file_of(dotted, known)
        if below(target, "coupled") and target != package and not target.startswith(f"{package}._"):
            yield f"{module.name}:{line}: imports {dotted}; of coupled it may import only {package} and its helpers"


def is_pure(module: Module) -> Iterator[str]:
    """Objectives and metrics see tensors; they print, read, choose and remember nothing."""
    if not below(module.name, *PURE):
        return
    more = ARM_METRICS_IMPORT if below(module.name, "coupled.metrics.arm") else ()
    for line, dotted in module.imports:
        if not below(dotted, *PURE_IMPORTS, *PURE, *more, "coupled.config.by_name"):
            yield f"{module.name}:{line}: imports {dotted}; objectives and metrics need tensors and arithmetic"
    assigned = [node for node in module.tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    at_top = {each.id for node in assigned for each in ast.walk(node) if isinstance(each, ast.Name)}
    for node in ast.walk(module.tree):
        where = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and READS_OR_PRINTS.fullmatch(last_name(node.func)):
            yield f"{where}: {ast.unparse(node.func)}() prints, reads or writes; return the value instead"
        if isinstance(node, (ast.Global, ast.Nonlocal)) or _changed(node) & at_top:
            yield f"{where}: changes a name of the module; pass it in and return it"
    yield from chooses_no_device(module)


def chooses_no_device(module: Module) -> Iterator[str]:
    """Results lie where the arguments lie."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = [each.value for each in node.keywords if each.arg == "device"]
            words += node.args[:1] if name.endswith(".to") else []
            named = any(isinstance(word, ast.Constant) and isinstance(word.value, str) for word in words)
            if named or name in ("torch.device", "torch.set_default_device") or name.endswith((".cuda", ".cpu")):
                yield f"{module.name}:{node.lineno}: {name}() chooses a device; use the argument's"


def leaves_global_generators_alone(module: Module) -> Iterator[str]:
    """Whatever is drawn is drawn from a named stream."""
    if module.name == "coupled.stream.seeds":
        return
    fix = "; draw from coupled/stream/seeds.py"
    full = {id(node): name for node, name in module.names_used}
    calls = [each for each in ast.walk(module.tree) if isinstance(each, ast.Call)]
    for call in calls:
        draws = DRAWS.fullmatch(full.get(id(call.func), "")) or DRAWS_IN_PLACE.fullmatch(last_name(call.func))
        if draws and "generator" not in [each.arg for each in call.keywords]:
            yield f"{module.name}:{call.lineno}: {ast.unparse(call.func)}() draws without generator={fix}"


def _changed(node: ast.AST) -> set[str]:
    """The name `x` of x[...] = y, x.a = y, x[...] += y and x.append(y)."""
    base: ast.expr | None = None
    if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        base = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and MUTATES.fullmatch(node.func.attr):
        base = node.func.value
    return {base.id} if isinstance(base, ast.Name) else set()
