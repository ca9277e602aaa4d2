"""The project's code rules (imports between layers, names, side effects, length), checked against the code."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.code_rules import (
    ROOT,
    Module,
    below,
    is_pure,
    leaves_global_generators_alone,
    modules,
    stands_alone,
)

LONGEST_FILE = 250  # lines
CODE = modules("coupled")
EVERYTHING = CODE | modules("scripts")


def complaints(rule: Callable[[Module], Iterator[str]], known: dict[str, Module]) -> str:
    return "\n".join(text for module in known.values() for text in rule(module))


def test_each_objective_and_dataset_is_one_independent_file() -> None:
    """Adding one means adding one file; removing one breaks no other."""
    assert not complaints(lambda module: stands_alone(module, CODE), CODE)


def test_objectives_and_metrics_have_no_side_effects() -> None:
    """One that prints, reads files, chooses a device or keeps state depends on the calling program."""
    assert not complaints(is_pure, CODE)


def test_no_global_generator_is_touched_outside_the_seed_streams() -> None:
    """A seed set elsewhere, or one drawn number, silently changes the rest of a run."""
    assert not complaints(leaves_global_generators_alone, CODE)


HARM = [
    (stands_alone, "coupled.objectives.dcl", "from coupled.objectives import nscl", "may import only"),
    (stands_alone, "coupled.objectives.dcl", "from coupled.objectives.nscl import nscl", "may import only"),
    (stands_alone, "coupled.datasets.digits", "import coupled.stream.seeds", "may import only"),
    (is_pure, "coupled.objectives.dcl", "print(1)", "prints"),
    (is_pure, "coupled.objectives.dcl", "import os", "imports os"),
    (is_pure, "coupled.objectives.dcl", "torch.zeros(3, device='cuda')", "device"),
    (is_pure, "coupled.metrics.pair.cka", "x.cpu()", "device"),
    (is_pure, "coupled.metrics.pair.cka", "seen = {}\ndef f(x):\n    seen[x] = 1", "changes a name"),
    (is_pure, "coupled.metrics.arm.nccc", "seen = []\ndef f(x):\n    seen.append(x)", "changes a name"),
    (is_pure, "coupled.metrics.arm.nccc", "def f():\n    global n\n    n = 1", "changes a name"),
    (leaves_global_generators_alone, "coupled.arms.arm", "import torch as t\nt.rand(3)", "draws"),
    (leaves_global_generators_alone, "coupled.arms.arm", "from torch import randn\nrandn(3)", "draws"),
    (leaves_global_generators_alone, "coupled.arms.arm", "weight.normal_(std=0.1)", "draws"),
]
BANNED = {  # what ruff must see, in a file of the package
    "import torch.distributed": "TID251",
    "import torch\ntorch.manual_seed(0)": "TID251",
    "from numpy import random\nrandom.rand(3)": "TID251",
    "import random": "TID251",
    "from .network import Network": "TID252",
    "try:\n    pass\nexcept Exception:\n    pass": "BLE001",
    "print(1)": "T201",
}


@pytest.mark.parametrize(("rule", "name", "source", "message"), HARM)
def test_each_rule_detects_a_violation(rule: Callable, name: str, source: str, message: str) -> None:
    """A rule that accepts everything would look like code that obeys it."""
    module = Module(name, ast.parse(source))
    found = list(rule(module, CODE) if rule is stands_alone else rule(module))
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith(f"{name}:")


def test_no_file_of_the_package_exceeds_250_lines() -> None:
    """A longer file does several things."""
    paths = [path for folder in ("coupled", "scripts") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not long, f"split {long}; the most is {LONGEST_FILE} lines"


@pytest.mark.parametrize("source", BANNED)
def test_ruff_detects_banned_calls(source: str) -> None:
    """The rules of pyproject.toml must apply to the files of the package."""
    program = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "-"]
    where = ["--stdin-filename", "coupled/arms/arm.py"]
    done = subprocess.run([*program, *where], cwd=ROOT, input=f"{source}\n", capture_output=True, text=True)
    assert BANNED[source] in done.stdout, done.stderr


def test_an_import_from_a_higher_layer_is_detected(tmp_path: Path) -> None:
    """import-linter reads the layers from pyproject.toml; a copy of the package with one forbidden import must fail."""
    shutil.copytree(ROOT / "coupled", tmp_path / "coupled", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "coupled/stream/seeds.py").open("a") as file:
        file.write("import coupled.models\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    program = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "coupled.stream.seeds -> coupled.models" in done.stdout


STATE_BEFORE_AND_AFTER = """
import importlib, json, logging, os, random, sys, threading, warnings

ours, libraries = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name in libraries:  # what these do to the process is not ours to forbid
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # the name of something inside a module
        importlib.import_module(name.rpartition(".")[0])
import numpy, torch

def state():
    return {
        "torch's random numbers": torch.get_rng_state().tolist(),
        "NumPy's random numbers": str([part.tolist() if hasattr(part, "tolist") else part
                                       for part in numpy.random.get_state()]),
        "Python's random numbers": random.getstate(),
        "the number of threads": (torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic,
                        torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()),
        "torch's defaults": (str(torch.get_default_dtype()), str(torch.get_default_device()),
                             torch.is_grad_enabled(), torch.cuda.is_initialized()),
        "os.environ": dict(os.environ), "the working directory": (os.getcwd(), sorted(os.listdir())),
        "sys.path": list(sys.path), "the warning filters": [str(each) for each in warnings.filters],
        "logging": (logging.root.level, [str(each) for each in logging.root.handlers]),
    }

def say(text):
    os.write(1, text.encode()), os.write(2, text.encode())

say("--- ours from here\\n")
for name in ours:
    before = state()
    importlib.import_module(name)
    sys.stdout.flush(), sys.stderr.flush()
    after = state()
    changed = [key for key in before if after[key] != before[key]]
    if changed:
        say(f"importing {name} changes {' and '.join(changed)}\\n")
"""


NOISY = """
import os, torch
print("hello")
os.environ["NOISY"] = "1"
torch.rand(1), torch.set_num_threads(torch.get_num_threads() + 1)
"""


@pytest.mark.slow
def test_importing_a_module_has_no_side_effects(tmp_path: Path) -> None:
    """A module that prints, seeds or sets a flag on import changes every program that imports it.

    A module that does all this is imported last and must be the only one reported.
    """
    (tmp_path / "noisy.py").write_text(NOISY)
    names = {dotted for module in CODE.values() for dotted in module.imports_at_once}
    libraries = sorted(name for name in names if not below(name, "coupled"))
    ours = [name for name in CODE if name != "coupled.__main__"]  # which is a program
    result = subprocess.run(
        [
            sys.executable,
            "-B",
            "-c",
            STATE_BEFORE_AND_AFTER,
            json.dumps([*ours, "noisy"]),
            json.dumps(libraries),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    said, complained = (text.partition("--- ours from here\n")[2] for text in (result.stdout, result.stderr))
    noticed = "importing noisy changes torch's random numbers and the number of threads and os.environ\n"
    assert complained == noticed, f"{complained}; move what it does into a function "
    assert said == f"hello\n{noticed}", f"something is printed on import: {said}; move it into a function "
