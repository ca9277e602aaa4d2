"""The rules of the house (who may import whom, names, side effects, length), held against the code."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.house_rules import (
    MODELS_AND_IMAGES,
    ROOT,
    WEIGHT_GAP_USES,
    Module,
    all_it_leads_to,
    below,
    chooses_no_device,
    imports_only_what_its_place_allows,
    is_pure,
    leaves_global_generators_alone,
    leaves_torch_distributed_alone,
    modules,
)

LONGEST_FILE = 265  # lines
CODE = modules("coupled")
EVERYTHING = CODE | modules("scripts")


def complaints(rule: Callable[[Module], Iterator[str]], known: dict[str, Module]) -> str:
    return "\n".join(text for module in known.values() for text in rule(module))


def test_imports_follow_the_map_of_the_house() -> None:
    """Rules 1, 3, 4: a leaf that imports a builder, or training that imports analysis, ties rooms together for good."""
    assert not complaints(lambda module: imports_only_what_its_place_allows(module, CODE), CODE)


def test_only_the_process_group_knows_torch_distributed() -> None:
    """Rule 2: rank logic anywhere else is what makes a result depend on the number of processes."""
    assert not complaints(leaves_torch_distributed_alone, EVERYTHING)


def test_the_weight_gap_needs_no_model_no_image_and_no_gpu() -> None:
    """Rule 5: weights must be comparable where neither timm, nor the images, nor a GPU are to be had."""
    own, libraries = all_it_leads_to("coupled.analysis.weight_gap", CODE)
    unneeded = sorted(
        name for name in own if not below(name, "coupled.analysis", "coupled.metrics") and name not in WEIGHT_GAP_USES
    )
    assert not unneeded, f"analysis/weight_gap.py leads to {unneeded} (rule 5); read tensors by name instead"
    assert not libraries.intersection(MODELS_AND_IMAGES), (
        "analysis/weight_gap.py leads to a library of models or images"
    )
    assert not list(chooses_no_device(CODE["coupled.analysis.weight_gap"]))


def test_objectives_and_metrics_only_compute() -> None:
    """Rule 6: one that prints, reads, chooses a device or remembers gives other values in another program."""
    assert not complaints(is_pure, CODE)


def test_no_global_generator_is_touched_outside_the_seed_streams() -> None:
    """Rule 7: a seed set elsewhere, or one number drawn, silently changes the rest of a run."""
    assert not complaints(leaves_global_generators_alone, CODE)


HARM = [
    (imports_only_what_its_place_allows, "coupled.arms.arm", "from coupled.analysis.run import latest", "rule 4"),
    (imports_only_what_its_place_allows, "coupled.arms.arm", "from .network import Network", "in full"),
    (imports_only_what_its_place_allows, "coupled.storage.snapshots", "from coupled import settings", "rule 1"),
    (
        imports_only_what_its_place_allows,
        "coupled.models.encoders",
        "def f():\n    import coupled.models.network",
        "rule 1",
    ),
    (imports_only_what_its_place_allows, "coupled.objectives.dcl", "from coupled.objectives import nscl", "rule 1"),
    (imports_only_what_its_place_allows, "coupled.datasets.digits", "import coupled.stream.seeds", "rule 1"),
    (
        imports_only_what_its_place_allows,
        "coupled.models.network",
        "from coupled.config.schema import Settings",
        "rule 3",
    ),
    (imports_only_what_its_place_allows, "coupled.analysis.alignment", "from coupled.coordinator import x", "rule 4"),
    (leaves_torch_distributed_alone, "coupled.arms.arm", "from torch import distributed", "rule 2"),
    (leaves_torch_distributed_alone, "coupled.arms.arm", "import torch\ntorch.distributed.barrier()", "rule 2"),
    (chooses_no_device, "coupled.analysis.weight_gap", "x.to('cuda')", "device"),
    (is_pure, "coupled.objectives.dcl", "print(1)", "rule 6"),
    (is_pure, "coupled.objectives.dcl", "import os", "rule 6"),
    (is_pure, "coupled.objectives.dcl", "torch.zeros(3, device='cuda')", "rules 5, 6"),
    (is_pure, "coupled.metrics.pair.cka", "x.cpu()", "rules 5, 6"),
    (is_pure, "coupled.metrics.pair.cka", "seen = {}\ndef f(x):\n    seen[x] = 1", "rule 6"),
    (is_pure, "coupled.metrics.arm.nccc", "seen = []\ndef f(x):\n    seen.append(x)", "rule 6"),
    (is_pure, "coupled.metrics.arm.nccc", "def f():\n    global n\n    n = 1", "rule 6"),
    (leaves_global_generators_alone, "coupled.arms.arm", "import random", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "import torch as t\nt.manual_seed(0)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "import torch\ntorch.cuda.manual_seed_all(0)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "generator.manual_seed(0)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "from numpy import random\nrandom.rand(3)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "import numpy as np\nnp.random.default_rng(0)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "from torch import randn\nrandn(3)", "rule 7"),
    (leaves_global_generators_alone, "coupled.arms.arm", "weight.normal_(std=0.1)", "rule 7"),
]


@pytest.mark.parametrize(("rule", "name", "source", "message"), HARM)
def test_each_rule_notices_a_breach(rule: Callable, name: str, source: str, message: str) -> None:
    """A rule that lets everything pass would be mistaken for code that keeps it."""
    module = Module(name, ast.parse(source))
    found = list(rule(module, CODE) if rule is imports_only_what_its_place_allows else rule(module))
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith(f"{name}:")


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    """A file of more than 250 lines does several things."""
    paths = [path for folder in ("coupled", "scripts") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not long, f"split {long}; the most is {LONGEST_FILE} lines"


def test_no_error_is_caught_without_saying_which() -> None:
    """`except Exception` turns a mistake in the code into a wrong result."""
    for module in EVERYTHING.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), (
                    f"{module.name}:{node.lineno}: catches {caught}; name the errors that can be expected here"
                )


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


def test_importing_a_module_does_nothing(tmp_path: Path) -> None:
    """Rule 8: a module that prints, seeds or sets a flag when imported changes programs that only mention it.

    A module that does all this is imported last, and must be the only one that is noticed.
    """
    (tmp_path / "noisy.py").write_text(NOISY)
    names = {dotted for module in CODE.values() for _, dotted in module.imports}
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
    assert complained == noticed, f"{complained}; move what it does into a function (rule 8)"
    assert said == f"hello\n{noticed}", f"something is printed on import: {said}; move it into a function (rule 8)"
