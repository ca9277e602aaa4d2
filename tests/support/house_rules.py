"""The import rules of the house as functions: a module's source in, complaints out; each complaint says the fix.

`test_house.py` holds them against the code. To relax a rule, change its table here and the page that states it.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

FOUND_BY_NAME = ("coupled.objectives", "coupled.datasets")
PURE = ("coupled.objectives", "coupled.metrics.pair", "coupled.metrics.arm", "coupled.metrics.undefined")
NEEDS_NOTHING_ELSE: dict[str, tuple[str, ...]] = {  # rule 1: module -> what of `coupled` it may import
    "coupled": (),
    "coupled.config.schema": ("coupled.config.errors", "coupled.config.safe_yaml", "coupled.config.sections"),
    "coupled.config.safe_yaml": (),
    "coupled.config.sections": (),
    "coupled.config.errors": ("coupled.monitoring.terminal",),
    "coupled.monitoring.terminal": (),
    "coupled.config.by_name": (),
    "coupled.parallel.process_group": ("coupled.parallel.rendezvous",),
    "coupled.parallel.rendezvous": (),
    "coupled.stream": (),
    "coupled.stream.seeds": (),
    "coupled.storage.snapshots": ("coupled.storage.atomic_files",),
    "coupled.storage.atomic_files": (),
    "coupled.models.encoders": (),
}
SEES_SETTINGS = (  # rule 3
    *("coupled.config", "coupled.analysis", "coupled.sweep", "scripts"),
    *("coupled.train", "coupled.coordinator", "coupled.arms.build", "coupled.arms.arm"),
)
CALLS_ANALYSIS = ("coupled.analysis", "coupled.sweep", "scripts")
ANALYSIS_USES = (  # rule 4
    *("coupled.analysis", "coupled.metrics"),
    *(
        "coupled.config.schema",
        "coupled.models.network",
        "coupled.models.encoders",
        "coupled.datasets",
        "coupled.stream",
    ),
    *(
        "coupled.storage.snapshots",
        "coupled.storage.atomic_files",
        "coupled.parallel.process_group",
        "coupled.parallel.failure_broadcast",
        "coupled.objectives",
        "coupled.config.by_name",
    ),
    *(
        "coupled.config.errors",
        "coupled.config.safe_yaml",
        "coupled.config.registry",
        "coupled.config.controls",
        "coupled.parallel.launcher",
    ),
    "coupled.storage.run_lock",
    *(
        "coupled.storage.run_description",
        "coupled.storage.log_digests",
        "coupled.storage.checkpoints",
        "coupled.storage.dataset_record",
    ),
    "coupled.monitoring.terminal",
)
WEIGHT_GAP_USES = (
    "coupled",
    *("coupled.config", "coupled.monitoring", "coupled.parallel", "coupled.storage"),  # docstrings
    "coupled.storage.snapshots",
    "coupled.storage.atomic_files",
    "coupled.config.by_name",
    "coupled.config.errors",
    "coupled.config.safe_yaml",
    "coupled.storage.run_description",
    "coupled.config.schema",
    "coupled.config.sections",
    "coupled.config.controls",
    "coupled.stream",
    "coupled.stream.seeds",
    *(
        "coupled.storage.run_lock",
        "coupled.parallel.failure_broadcast",
        "coupled.parallel.process_group",
        "coupled.parallel.rendezvous",
    ),  # who holds the tables
    "coupled.monitoring.terminal",
)  # rule 5, all it leads to
MODELS_AND_IMAGES = ("timm", "torchvision", "PIL", "sklearn")
ARM_METRICS_IMPORT = ("sklearn", "coupled.stream.seeds")  # classifiers, and seeded draws of images
PURE_IMPORTS = ("math", "typing", "collections", "dataclasses", "itertools", "torch", "numpy")  # rule 6
READS_OR_PRINTS = re.compile(r"print|open|input|load|save|(read|write)_(text|bytes)|fromfile|tofile")
MUTATES = re.compile(r"append|extend|insert|add|update|setdefault|pop|popitem|remove|clear")
SEEDS = re.compile(  # rule 7: of NumPy everything but Philox
    r"torch\.(cuda\.)?((manual_)?seed(_all)?|initial_seed|[gs]et_rng_state(_all)?)|torch\.(default_generator|random)(\..*)?"
    r"|.*\.manual_seed|numpy\.random\.(?!Philox\b).*"
)
DRAWS = re.compile(r"torch\.((rand|randn|randint)(_like)?|randperm|normal|bernoulli|multinomial|poisson)")
DRAWS_IN_PLACE = re.compile(r"(uniform|normal|random|bernoulli|exponential|cauchy|geometric|log_normal)_")
FINDERS = ("find", "known", "import_module", "__import__")


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
            if isinstance(node, ast.Import):
                found += [(node.lineno, each.name) for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, f"{'.' * node.level}{node.module}.{each.name}") for each in node.names]
            elif isinstance(node, ast.Call) and last_name(node.func) in (
                "find",
                "known",
                "import_module",
                "__import__",
            ):
                texts = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
                found += [(node.lineno, text) for text in texts if below(text, "coupled")]
        return found

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


def imports_only_what_its_place_allows(module: Module, known: dict[str, Module]) -> Iterator[str]:
    """Rules 1, 3 and 4: who may import whom."""
    package = next((each for each in FOUND_BY_NAME if below(module.name, each)), None)
    package = None if below(module.name, "coupled.datasets.prepare") else package
    for line, dotted in module.imports:
        where, target = f"{module.name}:{line}: imports {dotted}", file_of(dotted, known)
        if dotted.startswith("."):
            yield f"{where}: write the import in full, from coupled"
        elif below(target, "coupled.analysis") and not below(
            module.name, "coupled.analysis", "coupled.sweep", "scripts"
        ):
            yield f"{where}: training never calls analysis (rule 4); move what both need into coupled"
        elif not below(target, "coupled"):
            continue
        elif package and target != package and not target.startswith(f"{package}._"):
            yield f"{where}: of coupled it may import only {package} and its _private helpers (rule 1)"
        elif target not in (*NEEDS_NOTHING_ELSE.get(module.name, (target,)), module.name):
            yield f"{where}: this file stands on its own (rule 1); hand it what it needs as an argument"
        elif target == "coupled.config.schema" and not below(module.name, *SEES_SETTINGS):
            yield f"{where}: Settings stop at train, coordinator and arm (rule 3); take plain arguments"
        elif below(module.name, "coupled.analysis") and not below(
            target, *ANALYSIS_USES, "coupled.analysis", "coupled.metrics"
        ):
            yield f"{where}: analysis rebuilds a network and reads a run, it does not train (rule 4)"


def leaves_torch_distributed_alone(module: Module) -> Iterator[str]:
    """Rule 2: processes exist in one file only."""
    if module.name != "coupled.parallel.process_group":
        lines = [line for line, dotted in module.imports if below(dotted, "torch.distributed")]
        lines += [node.lineno for node, name in module.names_used if below(name, "torch.distributed")]
        for line in sorted(set(lines)):
            yield f"{module.name}:{line}: uses torch.distributed (rule 2); let coupled/parallel/process_group.py do it"


def is_pure(module: Module) -> Iterator[str]:
    """Rule 6: objectives and metrics see tensors; they print, read, choose and remember nothing."""
    if not below(module.name, *PURE):
        return
    more = ARM_METRICS_IMPORT if below(module.name, "coupled.metrics.arm") else ()
    for line, dotted in module.imports:
        if not below(dotted, *PURE_IMPORTS, *PURE, *more, "coupled.config.by_name"):
            yield f"{module.name}:{line}: imports {dotted} (rule 6); objectives and metrics need tensors and arithmetic"
    assigned = [node for node in module.tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    at_top = {each.id for node in assigned for each in ast.walk(node) if isinstance(each, ast.Name)}
    for node in ast.walk(module.tree):
        where = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and READS_OR_PRINTS.fullmatch(last_name(node.func)):
            yield f"{where}: {ast.unparse(node.func)}() prints, reads or writes (rule 6); return the value instead"
        if isinstance(node, (ast.Global, ast.Nonlocal)) or _changed(node) & at_top:
            yield f"{where}: changes a name of the module (rule 6); pass it in and return it"
    yield from chooses_no_device(module)


def chooses_no_device(module: Module) -> Iterator[str]:
    """Part of rules 5 and 6: results lie where the arguments lie."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = [each.value for each in node.keywords if each.arg == "device"]
            words += node.args[:1] if name.endswith(".to") else []
            named = any(isinstance(word, ast.Constant) and isinstance(word.value, str) for word in words)
            if named or name in ("torch.device", "torch.set_default_device") or name.endswith((".cuda", ".cpu")):
                yield f"{module.name}:{node.lineno}: {name}() chooses a device (rules 5, 6); use the argument's"


def leaves_global_generators_alone(module: Module) -> Iterator[str]:
    """Rule 7: whatever is drawn is drawn from a named stream."""
    if module.name == "coupled.stream.seeds":
        return
    fix = "(rule 7); draw from coupled/stream/seeds.py"
    for line, dotted in module.imports:
        if below(dotted, "random", "secrets"):
            yield f"{module.name}:{line}: imports {dotted} {fix}"
    for node, name in module.names_used:
        if SEEDS.fullmatch(name):
            yield f"{module.name}:{node.lineno}: {name} seeds or reads a generator {fix}"
    full = {id(node): name for node, name in module.names_used}
    calls = [each for each in ast.walk(module.tree) if isinstance(each, ast.Call)]
    for call in calls:
        draws = DRAWS.fullmatch(full.get(id(call.func), "")) or DRAWS_IN_PLACE.fullmatch(last_name(call.func))
        if draws and "generator" not in [each.arg for each in call.keywords]:
            yield f"{module.name}:{call.lineno}: {ast.unparse(call.func)}() draws without generator= {fix}"


def all_it_leads_to(start: str, known: dict[str, Module]) -> tuple[set[str], set[str]]:
    """Own modules, and top-level names of libraries, that importing `start` brings in, however indirectly."""
    own, libraries, waiting = set(), set(), [start]
    while waiting:
        name = waiting.pop()
        if name in own:
            continue
        own.add(name)
        waiting += [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
        for _, dotted in known[name].imports:
            target = file_of(dotted, known)
            waiting += [target] if target in known else []
            libraries |= set() if target in known else {dotted.split(".")[0]}
    return own, libraries


def _changed(node: ast.AST) -> set[str]:
    """The name `x` of x[...] = y, x.a = y, x[...] += y and x.append(y)."""
    base: ast.expr | None = None
    if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        base = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and MUTATES.fullmatch(node.func.attr):
        base = node.func.value
    return {base.id} if isinstance(base, ast.Name) else set()
