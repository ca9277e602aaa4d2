"""How this process was started, and command lines that work for the user who started it.

A user has the installed command `coupled`, or a checkout with a launcher file for each command.
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
    """The file of a checkout that starts `command`; those of the analysis bear its name."""
    return ROOT / LAUNCHERS.get(command, f"analysis/{command.replace('-', '_')}.py")


def started_by() -> Path | None:
    """The file that Python was started with; None in an interactive session."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).resolve() if file else None


def by_launcher() -> bool:
    """Whether a program of this checkout was started by its file."""
    started, root = started_by(), ROOT.resolve()
    programs = root / "analysis", root / "scripts"
    return started is not None and (started == root / "coupled/train.py" or not {*programs}.isdisjoint(started.parents))


def program_name(command: str) -> str:
    """The program as the user typed it, for messages: "weight_gap.py" or "coupled weight-gap"."""
    return launcher(command).name if by_launcher() else f"coupled {command}"


def command_words(command: str, *words: str) -> list[str]:
    """The words of a command line that runs `command` for the user who started this process."""
    if by_launcher():
        return ["python", typed(launcher(command)), *words]
    if shutil.which("coupled"):
        return ["coupled", command, *words]
    started = started_by()
    if started is not None and started.name == "coupled":  # of an environment that is not on the search path
        return [typed(started), command, *words]
    return ["python", "-m", "coupled", command, *words]


def suggest(command: str, *words: str) -> str:
    """A command line for the user who started this process, such as "coupled weight-gap --run-dir runs/demo"."""
    return shlex.join(command_words(command, *words))


def suggest_torchrun(command: str, processes: int, *words: str) -> str:
    """The same under torchrun, with so many processes on this machine."""
    program = [typed(launcher(command))] if by_launcher() else ["-m", "coupled", command]
    return shlex.join(["torchrun", "--standalone", f"--nproc_per_node={processes}", *program, *words])


def child_command(command: str, *words: str) -> list[str]:
    """The words that run `command` in a process of its own, to be started with `child_environment`.

    -P keeps the working directory off the search path: a folder `coupled` in it is not this package.
    """
    return [sys.executable, "-P", "-m", "coupled", command, *words]


def child_environment() -> dict[str, str]:
    """The environment in which Python finds this package, installed or not."""
    if ROOT.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    places = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def typed(path: Path) -> str:
    """A file as it can be typed in a command line in this directory: relative to it if it lies below, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
