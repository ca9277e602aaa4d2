"""CITATION.cff, CHANGELOG.md, CONTRIBUTING.md and .github/ are well formed and agree with the code."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support import tiny

from coupled._version import RELEASE

ROOT = tiny.REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # of Keep a Changelog
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def test_the_citation_is_of_this_version_and_licence() -> None:
    """The keys are required or allowed by version 1.2.0 of the Citation File Format."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == RELEASE
    assert f"{citation['license']} AND MIT" == PROJECT["license"]  # plotly.js in the package has the MIT licence
    assert citation["title"].startswith(PROJECT["name"])
    assert citation["type"] == "software"
    named = [each["name"] for each in PROJECT.get("authors", [])] or ["The coupled authors"]
    assert [each["name"] for each in citation["authors"]] == named


def test_the_changelog_is_in_keep_a_changelog_format() -> None:
    """Unreleased first, then the releases, newest first. Each has non-empty sections of known kinds."""
    assert CHANGELOG.startswith("# Changelog\n")
    title, *versions = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)
    assert "keepachangelog.com" in title
    names = [each.splitlines()[0] for each in versions]
    assert names[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name) for name in names[1:])
    for version in versions:
        _, *sections = re.split(r"^### ", version, flags=re.MULTILINE)
        assert {each.splitlines()[0] for each in sections} <= KINDS
        assert all("\n* " in each for each in sections)


def test_ci_runs_the_command_of_a_contributor_on_each_python() -> None:
    content = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = content["jobs"].values()
    assert [each["run"] for each in job["steps"] if "run" in each] == [".ci/run"]
    versions = job["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12"]
    assert PROJECT["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("form", [each for each in FORMS if each.name != "config.yml"], ids=lambda path: path.name)
def test_an_issue_form_is_valid_for_github(form: Path) -> None:
    """GitHub hides a form without name, description or body, and one whose fields have no label or the same id."""
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= set(content)
    fields = [each for each in content["body"] if each["type"] != "markdown"]
    assert fields
    assert all(each["attributes"]["label"] for each in fields)
    assert len({each["id"] for each in fields}) == len(fields)
    assert {each["type"] for each in fields} <= {"textarea", "input", "dropdown", "checkboxes"}


@pytest.mark.parametrize("linked", [False, True])
def test_make_installs_into_its_own_environment_only(tmp_path: Path, linked: bool) -> None:
    """With .venv a link to that of another checkout, an installation would make the other checkout import this one."""
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    python = tmp_path / ("other" if linked else ".venv") / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    python.chmod(0o755)
    if linked:
        (tmp_path / ".venv").symlink_to("other")
    made = subprocess.run(["make", f"PYTHON={sys.executable}", ".venv/installed"], cwd=tmp_path, capture_output=True)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "called").exists() is not linked
    assert (tmp_path / ".venv/installed").exists() is not linked


def test_there_is_a_form_for_bugs_and_one_for_features() -> None:
    assert {"bug.yml", "feature.yml"} <= {each.name for each in FORMS}


def test_links_files_and_targets_in_contributing_exist() -> None:
    """Links, files and make targets."""
    for target in re.findall(r"\]\(([^)#]+)\)", CONTRIBUTING):
        assert (ROOT / target).exists(), target
    for command in re.findall(r"`([^`]+)`", CONTRIBUTING):
        words = [each for each in shlex.split(command) if each.endswith((".py", ".yml", "/pair", ".md"))]
        assert all((ROOT / each).exists() for each in words if not each.startswith("path/to")), command
        if command.startswith("make "):
            assert subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True).returncode == 0
    assert len(CONTRIBUTING.splitlines()) <= 40


@pytest.mark.parametrize("text", [CHANGELOG, CONTRIBUTING], ids=["CHANGELOG", "CONTRIBUTING"])
def test_no_page_installs_an_unpublished_distribution(text: str) -> None:
    assert not re.search(r"pip install (-U |--upgrade )?['\"]?coupled\b", text)
