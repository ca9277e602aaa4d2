"""The commands of the README run. `test_pages.py` checks its length, links, Python code and other commands."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import forked, tiny

README = (tiny.REPOSITORY / "README.md").read_text(encoding="utf-8")
SHORT = ["epochs=1", "encoder.width_multiplier=0.0625", "dataset.image_size=8"]


def commands() -> list[str]:
    """The lines of the README's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.distributed
@pytest.mark.slow
def test_the_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overrides shorten the training; nothing else is changed. The analyses run in this process, which saves the
    import of torch for each (`test_programs.py` starts some as processes).
    """
    shutil.copytree(tiny.REPOSITORY / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    for folder in ("coupled", "analysis"):
        (tmp_path / folder).symlink_to(tiny.REPOSITORY / folder)
    programs = [c for c in commands() if c.startswith(("torchrun ", "python "))]
    assert [p for p in programs if "train.py" in p]
    assert [p for p in programs if "weight_gap.py" in p]
    assert [p for p in programs if "alignment.py" in p]
    for command in programs:
        words = shlex.split(command)
        if words[0] == "python":
            assert status_of(words[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
            continue
        launcher = [str(forked.python()), "-m", "torch.distributed.run"]
        done = tiny.program(*words[1:], *(SHORT if "train.py" in command else []), cwd=tmp_path, launcher=launcher)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def status_of(words: list[str]) -> object:
    """Run a program in this process, restore torch's deterministic switch and return the exit status."""
    deterministic, given = torch.are_deterministic_algorithms_enabled(), sys.argv
    try:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as ended:
        return ended.code
    finally:
        sys.argv = given
        torch.use_deterministic_algorithms(deterministic)
    return None


@pytest.mark.parametrize("target", [c.split()[1] for c in commands() if c.startswith("make ")])
def test_make_targets_of_the_readme_exist(target: str) -> None:
    """`make -n` fails for a target that does not exist."""
    done = subprocess.run(["make", "-n", target], cwd=tiny.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_demo_runs_the_programs_of_the_readme() -> None:
    """`make demo` runs the commands that the README shows for the demo."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "demo"], cwd=tiny.REPOSITORY, capture_output=True, text=True
    )
    train = next(c for c in commands() if "train.py" in c)
    for part in (
        train,
        "analysis/weight_gap.py",
        "--compare nscl scl ce",
        "analysis/alignment.py",
        "--confidence",
        "analysis/quality.py",
        "analysis/figures.py",
    ):
        assert part in done.stdout, part
    assert done.stdout.splitlines()[-1].endswith("analysis/report.py --run-dir runs/demo")
