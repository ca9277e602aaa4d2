"""Suggested command lines: what can be typed depends on how the program was started."""

import shutil
from pathlib import Path

import pytest
from support import tiny

from coupled.monitoring import commands
from coupled.monitoring.commands import program_name, suggest, suggest_torchrun

ROOT = tiny.REPOSITORY
QUALITY = "--run-dir 'runs/a b'"


@pytest.mark.parametrize(
    ("started", "on_path", "name", "command", "ranks"),
    [
        (None, True, "coupled quality", "coupled quality", "-m coupled quality"),
        (None, False, "coupled quality", "python -m coupled quality", "-m coupled quality"),
        (Path("/home/me/notebook.py"), False, "coupled quality", "python -m coupled quality", "-m coupled quality"),
        (Path("/env/bin/coupled"), True, "coupled quality", "coupled quality", "-m coupled quality"),
        (Path("/env/bin/coupled"), False, "coupled quality", "/env/bin/coupled quality", "-m coupled quality"),
        (ROOT / "coupled/__main__.py", True, "coupled quality", "coupled quality", "-m coupled quality"),
        (ROOT / "coupled/__main__.py", False, "coupled quality", "python -m coupled quality", "-m coupled quality"),
        (ROOT / "coupled/train.py", True, "quality.py", "python analysis/quality.py", "analysis/quality.py"),
        (ROOT / "analysis/alignment.py", True, "quality.py", "python analysis/quality.py", "analysis/quality.py"),
        (ROOT / "scripts/sweep.py", True, "quality.py", "python analysis/quality.py", "analysis/quality.py"),
        (Path("/home/me/analysis/alignment.py"), True, "coupled quality", "coupled quality", "-m coupled quality"),
    ],
)
def test_a_command_is_spelled_as_the_program_was_started(
    monkeypatch: pytest.MonkeyPatch, started: Path | None, on_path: bool, name: str, command: str, ranks: str
) -> None:
    """An installed package has no analysis/quality.py, and a checkout may have no `coupled` on the path."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(commands, "started_by", lambda: started)
    monkeypatch.setattr(shutil, "which", lambda name: f"/env/bin/{name}" if on_path else None)
    assert program_name("quality") == name
    assert suggest("quality", "--run-dir", "runs/a b") == f"{command} {QUALITY}"
    torchrun = "torchrun --standalone --nproc_per_node=2"
    assert suggest_torchrun("quality", 2, "--run-dir", "runs/a b") == f"{torchrun} {ranks} {QUALITY}"


def test_every_launcher_exists_and_is_found_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another directory the command has the absolute path."""
    from coupled.cli import COMMANDS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "started_by", lambda: ROOT / "coupled/train.py")
    for name in COMMANDS.keys() - {"list"}:
        assert Path(suggest(name).split()[1]).is_file()
