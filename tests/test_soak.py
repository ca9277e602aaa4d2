"""Runs that were killed or stopped and then resumed have the bytes of an uninterrupted run.

`make soak` kills a run twenty times and injects a fault at every file call (`fault_injection.py`).
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from support import forked, tiny

from coupled.storage.checkpoints import read_newest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("SOAK_KILLS", "3"))
YAML = tiny.TINY_YAML.replace("epochs: 1", "epochs: 8") + "arms: {cl: dcl, ce: cross_entropy}\nnum_threads: 1\n"


def start(place: Path, *arguments: str, **environment: str) -> forked.Program:
    program = tiny.REPOSITORY / "tests/support/slow_disk.py"
    return forked.Program(program, "--config", "tiny.yaml", *arguments, cwd=place, **environment)


def wait_until(seen: Callable[[], bool], process: forked.Program) -> None:
    """Poll every millisecond until `seen()` is true or the process ends."""
    while process.poll() is None and not seen():
        time.sleep(0.001)


def rows(run: Path) -> int:
    path = run / "steps.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_equal_runs(run: Path, other: Path) -> None:
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(other)
    for file in ("snapshots/manifest.jsonl", "steps.csv"):
        assert (run / file).read_bytes() == (other / file).read_bytes(), file
    epochs = [pandas.read_csv(each / "epochs.csv")[["epoch", "arm", "loss", "lr"]] for each in (run, other)]
    pandas.testing.assert_frame_equal(*epochs, check_exact=True)
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp") or path.name == "lock"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and `runs/whole`, an undisturbed run of 40 steps."""
    place = tmp_path_factory.mktemp("soak")
    (place / "tiny.yaml").write_text(YAML)
    process = start(place, "--run-dir", "runs/whole")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return place


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(place: Path) -> None:
    """SIGKILL while training or while a file is written: no row is lost or duplicated."""
    run, chance = place / "runs/killed", random.Random(5)
    while_writing = 0
    for kill in range(KILLS):
        process = start(place, "--run-dir", "runs/killed", "--resume")
        before = rows(run)
        wait_until(lambda before=before: rows(run) not in (0, before), process)  # a resume removes some rows
        if kill % 2:
            wanted = rows(run) + chance.randrange(1, 5)
            wait_until(lambda wanted=wanted: rows(run) >= wanted, process)
            time.sleep(chance.random() / 20)
        else:
            wait_until(lambda: any(run.glob("**/*.tmp")), process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, f"the run ended before kill {kill}: give it more epochs"
        while_writing += any(run.glob("**/*.tmp"))
    assert while_writing > 0, "no kill hit a write"
    process = start(place, "--run-dir", "runs/killed", "--resume")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_equal_runs(run, place / "runs/whole")


SAMPLE = (
    "kill 0 write run.json.tmp 1",  # half of the first file of a run
    "kill 1 rename checkpoints/step_00000000 1",  # before an old checkpoint is deleted
    "full 2 write steps.csv 1",  # half a row
)


def test_a_fault_at_a_file_call_loses_nothing(tmp_path: Path) -> None:
    """A sample of the faults of `make soak`. `fault_injection.py` compares the bytes."""
    only = f"^({'|'.join(map(re.escape, SAMPLE))})$"
    program = forked.Program(tiny.REPOSITORY / "tests/support/fault_injection.py", "--only", only, cwd=tmp_path)
    output, errors = program.communicate(timeout=300)
    assert program.returncode == 0, output + errors
    assert output.endswith("3 faults: 3 stopped the run, 0 did not stop it and were harmless; 0 failed\n")


@pytest.mark.distributed
def test_a_signal_to_one_rank_stops_all_after_the_same_step(place: Path) -> None:
    """If one rank stopped alone, the others would wait for it until the timeout. Under torchrun the status is 0, since
    any other status would restart the ranks.
    """
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(forked.free_port())}
    environment |= {"TORCHELASTIC_RUN_ID": "soak"}
    first, second = (
        start(place, "--run-dir", "runs/two", "epochs=200", RANK=rank, LOCAL_RANK=rank, **environment) for rank in "01"
    )
    wait_until(lambda: rows(place / "runs/two") > 2, first)
    second.send_signal(signal.SIGUSR1)
    out, errors = first.communicate(timeout=300)
    second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0), errors
    step = rows(place / "runs/two") - 1
    assert f"stopped by a signal to another rank after step {step} of 1000; the run is saved" in out
    assert "coupled train --resume --config tiny.yaml --run-dir runs/two epochs=200" in out
    state = read_newest(place / "runs/two/checkpoints")
    assert state is not None
    assert state.step == step
