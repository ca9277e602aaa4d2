"""Docstrings of the public names: the list of names, the required sections, and examples that run.

A new public name must be listed: `test_the_list_of_public_names_equals_the_code` fails until it is. The other tests
fail until its docstring states arguments, result and errors, shows an example, and names its source.
"""

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import tiny

import coupled
from coupled.config.by_name import known

FUNCTIONS = {  # module -> names
    "coupled.train": ["train"],
    "coupled.import_checkpoints": ["import_checkpoints"],
    "coupled.analysis.run": ["open_run"],
    "coupled.config.load": ["load_settings", "resolve"],
    "coupled.config.schema": ["from_resolved"],
    "coupled.config.registry": ["find_objective", "load_dataset"],
    "coupled.metrics.state_dicts": ["weight_gap"],
}
COMPUTED = [
    *("weight_gap", "alignment", "quality", "linear_evaluation", "pretext", "calibration", "robustness", "collapse"),
    *("losses", "bounds", "merge", "barrier", "gradients", "verify", "embed"),
]
COMPUTED_ELSEWHERE = {"coupled.analysis.representations.maps": ["compute"], "coupled.analysis.export": ["write"]}
RUN_METHODS = ["epochs", "snapshot_digests", "state_dict", "network", "encoder", "images"]
RUN_MEASURES = ["weight_gap", "alignment", "quality", "collapse", "losses", "bounds", "merge", "verify"]
RUN_CLASSIFIERS = ["linear_evaluation", "pretext", "calibration", "robustness"]
RUN_LOSSES = ["barrier", "gradients"]
RUN_OUTPUTS = ["embed", "project", "export"]
RUN_PROPERTIES = ["name", "settings", "arms", "reference"]  # a line is enough
PAIR_METRICS = [
    *("angle", "cka", "cka_debiased", "linear_predictivity", "linear_predictivity_reverse", "mutual_knn"),
    *("procrustes", "pwcca", "rsa", "rsa_correlation", "rsa_spearman", "svcca"),
]
ARM_METRICS = [
    *("augmentation_spread", "cdnv", "directional_cdnv", "ece", "effective_rank", "etf_deviation", "few_shot"),
    *("few_shot_two_way", "knn", "linear_probe", "nccc", "nll", "probe_calibration", "root_cdnv", "top1", "top5"),
]
OBJECTIVES = [
    *("barlow_twins", "byol", "cross_entropy", "dcl", "dclw", "dino", "directpred", "directpred_partitions", "hadsell"),
    *("hard_negative", "l_c", "l_nc", "margin_softmax", "mmcr", "moco", "moco_nscl", "moco_supcon", "n_pairs"),
    *("nnclr", "nscl", "nt_xent", "prediction_mse", "ressl", "simsiam", "spectral", "supcon", "swav", "tcr"),
    *("triplet", "vicreg", "vicreg_ctr", "vicreg_exp", "vicregl", "w_mse"),
]
CLASSES = {"coupled.objectives": ["Head", "Kept", "Needs", "Inputs", "Loss"], "coupled.analysis.run": ["Run"]}
EXAMPLES = ["channel_dropout", "hard_negatives", "small_encoder", "two_colours"]  # a file and its function

POINTERS = re.compile(r"\bsee `[\w.]+` for|`values` describes|by `check`|: as `coupled", re.I)  # to another docstring


def functions() -> Iterator[tuple[str, str]]:
    """Module and name of every public function."""
    groups = {
        **FUNCTIONS,
        **{f"coupled.analysis.{name}": ["compute"] for name in COMPUTED},
        **COMPUTED_ELSEWHERE,
        "coupled.analysis.run_measures": RUN_MEASURES,
        "coupled.analysis.run_classifiers": RUN_CLASSIFIERS,
        "coupled.analysis.run_losses": RUN_LOSSES,
        "coupled.analysis.run_outputs": RUN_OUTPUTS,
        **{f"coupled.metrics.pair.{name}": [name] for name in PAIR_METRICS},
        **{f"coupled.metrics.arm.{name}": [name] for name in ARM_METRICS},
        **{f"coupled.objectives.{name}": [name] for name in OBJECTIVES},
        **{f"examples/{name}.py": [name] for name in EXAMPLES},
    }
    for module, names in groups.items():
        for name in names:
            yield module, name
    for name in RUN_METHODS:
        yield "coupled.analysis.run", f"Run.{name}"


def loaded(module: str) -> Any:
    """Import a module of the package, or a file of examples/."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(Path(module).stem, tiny.REPOSITORY / module)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def found(module: str, name: str) -> Callable[..., Any]:
    """The function."""
    where = loaded(module)
    for part in name.split("."):
        where = getattr(where, part)
    return where


def sections(doc: str) -> dict[str, str]:
    """The text of each section of a docstring of Google's style."""
    parts = re.split(r"^(Args|Returns|Raises|Attributes|Example|Source):(?: |\n)", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str) -> list[str]:
    """Return the names that a section documents."""
    return re.findall(r"^    (\w+): \S", section, flags=re.MULTILINE)


def test_the_list_of_public_names_equals_the_code() -> None:
    """A new or removed public name is detected here."""
    named = {"train", "open_run", "load_settings", "Run", "Settings", "metrics", "__version__"}
    assert set(coupled.__all__) == named
    assert list(known("coupled.metrics.pair")) == PAIR_METRICS
    assert list(known("coupled.metrics.arm")) == ARM_METRICS
    assert set(coupled.metrics.__all__) == {*PAIR_METRICS, *ARM_METRICS, "weight_gap"}
    assert list(known("coupled.objectives")) == OBJECTIVES
    assert {path.stem for path in (tiny.REPOSITORY / "examples").glob("*.py")} == set(EXAMPLES)
    methods = {name for name, each in vars(coupled.Run).items() if inspect.isfunction(each) and name[0] != "_"}
    assert methods == {*RUN_METHODS, *RUN_MEASURES, *RUN_CLASSIFIERS, *RUN_LOSSES, *RUN_OUTPUTS}
    properties = {name for name in vars(coupled.Run) if name[0] != "_"} - methods
    assert properties == set(RUN_PROPERTIES)
    assert all(getattr(coupled.Run, name).__doc__ for name in RUN_PROPERTIES)
    files = (tiny.REPOSITORY / "coupled/analysis").glob("*.py")
    assert {path.stem for path in files if defines(path, "compute")} == set(COMPUTED)
    assert len(list(functions())) > 60


def defines(path: Path, name: str) -> bool:
    """Whether a file has a function of this name."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(each, ast.FunctionDef) and each.name == name for each in body)


@pytest.mark.parametrize(("module", "name"), list(functions()))
def test_a_docstring_has_all_sections(module: str, name: str) -> None:
    """Summary line, every argument by name, what is returned and raised, an example; the source of a formula."""
    function = found(module, name)
    doc = inspect.getdoc(function) or ""
    has, signature = sections(doc), inspect.signature(function)
    assert re.match(r"\S.*(?:\n|\Z)", doc)
    arguments = [each for each in signature.parameters if each != "self"]
    assert entries(has.get("Args", "")) == arguments, doc
    if signature.return_annotation not in (None, "None"):
        assert has.get("Returns", "").strip(), doc
    if not (module.startswith("examples/") or name == "Run.snapshot_digests"):  # which have nothing to raise
        assert entries(has.get("Raises", "")), doc
    assert ">>> " in has.get("Example", ""), doc
    assert not POINTERS.search(doc), doc
    if ".metrics." in module or ".objectives." in module:
        assert has.get("Source", "").strip(), doc
        summary, *others = doc.split("\n\n")
        assert re.fullmatch(r"Return .*\.", summary), doc
        rule = name in ("few_shot", "few_shot_two_way", "knn", "linear_probe", "nccc")  # described without a formula
        assert others[0].startswith("    ") != rule, doc


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in CLASSES for name in CLASSES[module]])
def test_a_class_documents_its_attributes_and_has_an_example(module: str, name: str) -> None:
    """All fields of a dataclass or named tuple are documented."""
    which = found(module, name)
    has = sections(inspect.getdoc(which) or "")
    assert ">>> " in has["Example"]
    fields = getattr(which, "__dataclass_fields__", None) or getattr(which, "_fields", ())
    assert entries(has["Attributes"])[: len(fields) or None] == list(fields or entries(has["Attributes"]))


def test_the_settings_have_an_example() -> None:
    """Their keys are on the page of settings; `help(coupled.Settings)` says how to make one."""
    assert ">>> " in sections(inspect.getdoc(coupled.Settings) or "")["Example"]


@pytest.mark.parametrize("name", [*RUN_MEASURES[:-1], *RUN_LOSSES])
def test_a_method_of_a_run_lists_the_options_of_its_function(name: str) -> None:
    """Notebook users read `help(run.alignment)`; it must be complete."""
    doc = " ".join((getattr(coupled.Run, name).__doc__ or "").split())
    of_function = inspect.signature(importlib.import_module(f"coupled.analysis.{name}").compute).parameters
    options = [each.name for each in of_function.values() if each.kind is each.KEYWORD_ONLY]
    assert f"`coupled.analysis.{name}.compute`: {', '.join(options)}." in doc


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run runs/tiny, which the examples use."""
    folder = tmp_path_factory.mktemp("doctests")
    tiny.train(folder / "runs/tiny", epochs=1, arms={"cl": "dcl", "nscl": "nscl"})
    return folder


@pytest.mark.parametrize("module", list(dict.fromkeys([*(module for module, _ in functions()), *CLASSES])))
def test_examples_give_the_output_that_they_show(
    module: str, work_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a run; in every example `run` is that run and `settings` are those of the demo."""
    monkeypatch.chdir(work_folder)
    given = {"run": coupled.open_run("runs/tiny"), "settings": coupled.load_settings("demo")}
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    where = loaded(module)
    for test in doctest.DocTestFinder().find(where, module, extraglobs=given):
        runner.run(test, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)
