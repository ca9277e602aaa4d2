"""Command lines for messages, written for the way in which the user started this process.

A user has either the installed command `coupled`, or a checkout with one launcher file per command.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHERS = {
    "train": "coupled/train.py",
    "sweep": "scripts/sweep.py",
    "prepare-data": "scripts/prepare_data.py",
    "import-checkpoints": "scripts/import_checkpoints.py",
    "check-objective": "scripts/check_objective.py",
}


def launcher(command: str) -> Path:
    """Return the file of a checkout that starts `command`; analysis files have the name of the command."""
    return ROOT / LAUNCHERS.get(command, f"analysis/{command.replace('-', '_')}.py")


def started_by() -> Path | None:
    """Return the file that Python was started with; None in an interactive session."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).resolve() if file else None


def by_launcher() -> bool:
    """Return whether this process was started with a launcher file of this checkout."""
    started, root = started_by(), ROOT.resolve()
    programs = root / "analysis", root / "scripts"
    return started is not None and (started == root / "coupled/train.py" or not {*programs}.isdisjoint(started.parents))


def program_name(command: str) -> str:
    """Return the program as the user typed it, for messages: "weight_gap.py" or "coupled weight-gap"."""
    return launcher(command).name if by_launcher() else f"coupled {command}"


def command_words(command: str, *words: str) -> list[str]:
    """Return the words of a command line that runs `command` for the user who started this process."""
    if by_launcher():
        return ["python", typed(launcher(command)), *words]
    if shutil.which("coupled"):
        return ["coupled", command, *words]
    started = started_by()
    if started is not None and started.name == "coupled":  # in an environment that is not on the search path
        return [typed(started), command, *words]
    return ["python", "-m", "coupled", command, *words]


def suggest(command: str, *words: str) -> str:
    """Return a command line for this user, such as "coupled weight-gap --run-dir runs/demo"."""
    return shlex.join(command_words(command, *words))


def suggest_torchrun(command: str, processes: int, *words: str) -> str:
    """Return the same under torchrun, with `processes` processes on this machine."""
    program = [typed(launcher(command))] if by_launcher() else ["-m", "coupled", command]
    return shlex.join(["torchrun", "--standalone", f"--nproc_per_node={processes}", *program, *words])


def child_command(command: str, *words: str) -> list[str]:
    """Return the words that run `command` in a child process; start it with `child_environment`.

    -P removes the working directory from the search path, so that a folder `coupled` in it is not imported.
    """
    return [sys.executable, "-P", "-m", "coupled", command, *words]


def child_environment() -> dict[str, str]:
    """Return an environment in which Python finds this package, installed or not."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    places = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def typed(path: Path) -> str:
    """Return `path` for a command line: relative to the working directory if it is below it, else absolute."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
