"""environment.yml and environment-dev.yml (conda) and pyproject.toml (pip) must describe the same installations."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
INSTALLS = {"environment.yml": ("coupled", "-e ."), "environment-dev.yml": ("coupled-dev", "-e .[dev]")}


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(params=INSTALLS)
def environment(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name and content of a file."""
    return request.param, yaml.safe_load((ROOT / request.param).read_text())


def test_the_environment_has_the_name_of_the_project(environment: tuple[str, dict]) -> None:
    """`conda activate coupled` is what the project's name suggests; both environments can exist side by side."""
    file, content = environment
    assert content["name"] == INSTALLS[file][0]


def test_conda_requires_the_same_python_versions(project: dict, environment: tuple[str, dict]) -> None:
    """With another bound, conda could choose a Python for which pip refuses the project."""
    assert f"python{project['requires-python']}" in environment[1]["dependencies"]


def test_conda_installs_no_library_itself(environment: tuple[str, dict]) -> None:
    """A library named twice would have two versions; torch from conda with torchvision from PyPI crashes."""
    names = {re.split(r"[<>=!~ ]", each)[0] for each in environment[1]["dependencies"] if isinstance(each, str)}
    assert names == {"python", "pip"}


def test_pip_installs_this_project_and_nothing_else(project: dict, environment: tuple[str, dict]) -> None:
    """Conda users install only what pyproject.toml lists. environment.yml has what training needs; tests and linters
    are the extra `dev`, which environment-dev.yml adds.
    """
    file, content = environment
    (pip,) = (each["pip"] for each in content["dependencies"] if isinstance(each, dict))
    assert pip == [INSTALLS[file][1]]
    assert "dev" in project["optional-dependencies"]


def test_training_dependencies_contain_no_development_tool(project: dict) -> None:
    """`pip install .` and environment.yml install neither pytest nor a linter."""
    needed = {re.split(r"[<>=!~ \[]", each)[0] for each in project["dependencies"]}
    assert not needed & {"pytest", "hypothesis", "ruff", "mypy", "import-linter", "playwright", "nbclient", "mkdocs"}
