"""environment.yml (conda) and pyproject.toml (pip) must describe the same installation."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def dependencies() -> list[Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_the_environment_bears_the_name_of_the_project(project: dict) -> None:
    """`conda activate coupled` is what the project's name suggests."""
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["name"] == project["name"]


def test_conda_asks_for_the_same_python(project: dict, dependencies: list) -> None:
    """With another bound, conda could choose a Python for which pip then refuses the project."""
    assert f"python{project['requires-python']}" in dependencies


def test_conda_itself_adds_no_library(dependencies: list) -> None:
    """A library named twice has two versions; and a torch from conda beside a torchvision from PyPI crashes."""
    names = {re.split(r"[<>=!~ ]", each)[0] for each in dependencies if isinstance(each, str)}
    assert names == {"python", "pip"}


def test_pip_installs_this_project_with_its_development_extra_and_nothing_else(
    project: dict, dependencies: list
) -> None:
    """What is not in pyproject.toml would be missing for everybody who does not use conda."""
    (pip,) = (each["pip"] for each in dependencies if isinstance(each, dict))
    assert pip == ["-e .[dev]"]
    assert "dev" in project["optional-dependencies"]
