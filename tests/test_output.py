"""Closed pipes, closed terminals, Ctrl-C before and during a step: in subprocesses, as users see them."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import forked, tiny

from coupled.storage.checkpoints import newest_step

LAUNCHERS = [path for folder in ("analysis", "scripts") for path in (tiny.REPOSITORY / folder).glob("*.py")]
PROGRAMS = ["coupled/train.py", *sorted(str(path.relative_to(tiny.REPOSITORY)) for path in LAUNCHERS)]
ARGUMENTS = {  # that a program accepts before it imports the heavy modules; the others import them first
    "scripts/check_objective.py": "dcl",
    "scripts/import_checkpoints.py": "--arm cl=*.pth --encoder resnet18 --dataset digits --run-dir none",
}
HEAVY = ("pydantic", "yaml", "numpy", "pandas", "scipy", "matplotlib", "torch", "rich")
PATIENCE_SECONDS = 120


def start(
    *command: str | Path, first: Path | None = None, python: str | Path = sys.executable, **changed: object
) -> subprocess.Popen[bytes]:
    """A program of the repository in a process; modules in `first` are found before all others."""
    paths = [*([str(first)] if first else []), str(tiny.REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment |= changed.pop("environment", {})  # type: ignore[arg-type]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **changed}
    return subprocess.Popen([str(python), *map(str, command)], env=environment, **pipes)  # type: ignore[call-overload]


def read_until(read: Callable[[], bytes], sign: bytes) -> bytes:
    seen = b""
    while sign not in seen:
        more = read()
        assert more, seen
        seen += more
    return seen


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("output") / "tiny.yaml"
    path.write_text(tiny.TINY_YAML + "arms: {cl: dcl, ce: cross_entropy}\nnum_threads: 1\n")
    return path


@pytest.mark.slow
def test_training_survives_a_closed_pipe_and_a_closed_terminal(config: Path, tmp_path: Path) -> None:
    """Ctrl-C on `train.py | tee log` ends tee, too: the state is saved, status 0. A terminal that is closed, narrow, or
    unable to show the name of the run folder does not stop the run.
    """
    train = (tiny.REPOSITORY / "coupled/train.py", "--config", config, "--run-dir")
    piped = start(*train, tmp_path / "piped", "epochs=400", python=forked.python(), stderr=subprocess.STDOUT)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    small = {"PYTHONIOENCODING": "latin-1", "TERM": "xterm", "LC_ALL": "C", "PYTHONUTF8": "0"}
    small |= {"PYTHONCOERCECLOCALE": "0"}
    strange = tmp_path / "\u00fcn\u00ef \u732b\x1b[31m"
    shown = start(*train, strange, "epochs=2", stdout=theirs, stderr=theirs, environment=small)
    os.close(theirs)
    try:
        read_until(lambda: os.read(ours, 1000), b"epoch 1")
        os.close(ours)
        assert piped.stdout
        read_until(piped.stdout.readline, b"epoch 1/400")
        piped.stdout.close()
        piped.send_signal(signal.SIGINT)
        assert piped.wait(PATIENCE_SECONDS) == 0
        assert 5 <= (newest_step(tmp_path / "piped/checkpoints") or 0) < 2000
        assert shown.wait(PATIENCE_SECONDS) == 0
        assert newest_step(strange / "checkpoints") == 10
    finally:
        piped.kill()
        shown.kill()


SLEEPER = """
import sys, time
from coupled.arms.arm import Arm
from coupled.train import main
usual = Arm.gradients

def gradients(arm, batch):
    if (batch.epoch, batch.number) == (2, 1):
        print("sleeping", flush=True)
        time.sleep(1000)
    return usual(arm, batch)

Arm.gradients = gradients
sys.exit(main())
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_long_step_and_names_what_is_saved(config: Path, tmp_path: Path) -> None:
    """The first is answered while the step runs; the second does not wait for the step."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    command = (tmp_path / "sleeper.py", "--config", config, "--run-dir", tmp_path / "run", "epochs=3")
    process = start(*command, python=forked.python())
    try:
        assert process.stdout
        read_until(process.stdout.readline, b"sleeping")
        while newest_step(tmp_path / "run/checkpoints") != 5:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        answer = process.stdout.readline()
        said = b"SIGINT: the run stops after the current step and saves its state; "
        assert answer == said + b"a second Ctrl-C stops at once, without saving\n"
        for _ in range(20):  # until it is later than what a launcher would pass on
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, errors) == (130, b"")
        assert output == b"stopped by a second Ctrl-C without saving; --resume continues after step 5\n"
    finally:
        process.kill()


@pytest.mark.slow
def test_verify_with_a_closed_pipe_keeps_its_status_without_a_traceback(tmp_path: Path) -> None:
    """`verify.py | head -n 0`; stdout closed from the start; the exit status alone reports findings."""
    tiny.train(tmp_path / "run", epochs=0, arms={"cl": "dcl"})
    verify = (tiny.REPOSITORY / "analysis/verify.py", "--run-dir", tmp_path / "run")
    reader, writer = os.pipe()
    os.close(reader)
    (tmp_path / "run/snapshots/cl/epoch_0000.safetensors").write_bytes(b"")
    without = start(*verify, python=forked.python(), stdout=writer)
    os.close(writer)
    _, errors = without.communicate(timeout=PATIENCE_SECONDS)
    assert (without.returncode, errors) == (1, b"")


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_during_the_imports_is_one_line(tmp_path: Path, program: str) -> None:
    """Imports take seconds and raise long tracebacks or other exceptions when interrupted."""
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text("import os, time\nos.write(1, b'importing')\ntime.sleep(1000)\n")
    arguments = ARGUMENTS.get(program, "--config none.yaml").split()
    process = start(tiny.REPOSITORY / program, *arguments, first=tmp_path)
    try:
        assert process.stdout
        read_until(lambda: os.read(process.stdout.fileno(), 1000), b"importing")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130
        assert errors.startswith(f"{Path(program).name}: interrupted".encode())
        assert errors.count(b"\n") == 1
    finally:
        process.kill()


def test_ctrl_c_while_training_imports_torch_is_one_line(config: Path, tmp_path: Path) -> None:
    """train.py imports torch after it has read its arguments."""
    (tmp_path / "torch.py").write_text("import os, time\nos.write(1, b'importing')\ntime.sleep(1000)\n")
    process = start(tiny.REPOSITORY / "coupled/train.py", "--config", config, first=tmp_path)
    try:
        assert process.stdout
        read_until(lambda: os.read(process.stdout.fileno(), 1000), b"importing")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, errors) == (130, b"train.py: interrupted\n")
    finally:
        process.kill()


STREAMS = r"""
import os, sys
from coupled.monitoring.terminal import prepare_terminal, say
prepare_terminal()
print("\u732b \udcff")
say("a\x1b[31m\nb \u732b\u202e\t\r")
sys.stdout.flush()
print("to stderr \u732b", file=sys.stderr)
for _ in range(3):
    print("x" * 100_000, flush=True)
os.write(1, b"a library that writes without Python, or a child")
print("not flushed when the program ends", end="")
sys.exit(3)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_any_text_can_be_printed_and_a_closed_pipe_keeps_the_status(unbuffered: str) -> None:
    """A run folder may have any name. Control characters do not reach a terminal."""
    reader, writer = os.pipe()
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": unbuffered}
    process = start("-c", STREAMS, stdout=writer, environment=environment)
    os.close(writer)
    text = read_until(lambda: os.read(reader, 1000), b"xxx")
    os.close(reader)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (3, b"to stderr \\u732b\n")
    assert text.splitlines()[:2] == [b"\\u732b \\udcff", b"a\\x1b[31m\\nb \\u732b\\u202e"]
