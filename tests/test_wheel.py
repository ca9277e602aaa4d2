"""The wheel in a fresh environment, run in a folder with packages that have the names of ours."""

import email
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import tiny

from coupled._version import RELEASE

SMALL = ("epochs=1", "arms.scl=null", "arms.ce=null", "encoder.width_multiplier=0.0625", "dataset.image_size=8")
SWEEP = "base: demo\nseeds: 1\n"
Run = Callable[[str], str]
CHILD = """
import contextlib, io, json, runpy, sys
program = sys.argv[1]
for line in sys.stdin:
    words, said, status = json.loads(line), io.StringIO(), 0
    sys.argv = words
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as ended:
            status = ended.code
    print(json.dumps([status or 0, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; torch and the other libraries are those of this interpreter."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(tiny.REPOSITORY / "coupled", source / "coupled", ignore=hidden)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tiny.REPOSITORY / name, source)
    pip, quiet = [sys.executable, "-m", "pip", "--disable-pip-version-check"], ["--quiet", "--no-deps", "--no-index"]
    build = ["wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(place), str(source)]
    subprocess.run([*pip, *build], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "env")], check=True)
    (wheel,) = place.glob("coupled-*.whl")
    subprocess.run([*pip, "--python", str(place / "env/bin/python"), "install", *quiet, str(wheel)], check=True)
    (packages,) = place.glob("env/lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "env"


@pytest.fixture(scope="module")
def run(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a command line in a folder whose packages `analysis` and `coupled` must not be imported.

    All commands run in one process of the fresh environment, which imports torch once.
    """
    folder = tmp_path_factory.mktemp("project")
    for name in ("analysis", "coupled"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('this is the package of the user')\n")
    (folder / "sweep.yaml").write_text(SWEEP)
    path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean |= {"PATH": path, "OMP_NUM_THREADS": "1"}

    with subprocess.Popen(
        [environment / "bin/python", "-P", "-c", CHILD, environment / "bin/coupled"],
        cwd=folder,
        env=clean,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout

        def run(command: str) -> str:
            print(json.dumps(shlex.split(command)), file=child.stdin, flush=True)
            status, said = json.loads(child.stdout.readline())
            assert status == 0, (command, said)
            return str(said)

        yield run
        child.stdin.close()


def test_the_installed_command_starts(environment: Path) -> None:
    done = subprocess.run([environment / "bin/coupled", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"coupled {RELEASE}")


def test_the_wheel_names_and_contains_both_licences(environment: Path) -> None:
    """plotly.js may be passed on only with its licence."""
    (about,) = environment.glob("lib/python*/site-packages/coupled-*.dist-info")
    metadata = email.message_from_string((about / "METADATA").read_text(encoding="utf-8"))
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT"
    texts = {name: (about / "licenses" / name).read_bytes() for name in metadata.get_all("License-File", [])}
    assert texts == {
        name: (tiny.REPOSITORY / name).read_bytes()
        for name in ("LICENSE", "coupled/analysis/report/page/plotly-LICENSE.txt")
    }


@pytest.mark.slow
def test_every_command_of_the_wheel_and_its_suggestions_run(run: Run) -> None:
    """A run from its start to its report. The suggested commands are run as printed."""
    stopped = run(f"coupled train demo {shlex.join(SMALL)} --max-steps 2")
    again = after("continue it with: ", stopped)
    assert again == f"coupled train --resume --config demo {shlex.join(SMALL)}"
    complete = run(again)
    assert after("next: ", complete) == "coupled weight-gap --run-dir runs/demo"
    assert "weight_gap.csv" in run("coupled weight-gap --run-dir runs/demo")
    listed = re.findall(r"; run: (coupled .*)", run("coupled report"))
    others = {"alignment", "verify", "quality", "collapse", "losses", "bounds"}
    assert {command.split()[1] for command in listed} >= others
    run(next(command for command in listed if command.startswith("coupled losses ")))
    assert run("coupled sweep sweep.yaml --list").startswith("0 ")  # a base that comes with the package


def test_list_commands_work_in_the_wheel(run: Run) -> None:
    """`coupled list` works without a checkout."""
    assert "nscl" in run("coupled list objectives").split()
    assert {"cka", "nccc"} <= {*run("coupled list metrics").split()}


def after(words: str, text: str) -> str:
    """The rest of the line after `words`."""
    (found,) = re.findall(f"{re.escape(words)}(.*)", text)
    return str(found)
