"""Ranks under a launcher: failures reported once, restarts, two agents. In processes, as users run them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import forked, tiny
from test_ranks import FEW, assert_same_run, train

from coupled import train as train_program
from coupled.parallel.process_group import join_rendezvous
from coupled.storage.checkpoints import read_newest

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SABOTEUR, TRAIN = tiny.REPOSITORY / "tests/support/saboteur.py", tiny.REPOSITORY / "coupled/train.py"
CHANGED: dict[str, Any] = {**FEW, "arms": {"cl": "dcl"}}
PATIENCE_SECONDS = 120  # a rank that hangs would wait for its time-out of 600 s
PATHS = os.pathsep.join([str(tiny.REPOSITORY), os.environ.get("PYTHONPATH", "")])
AGENT = ("-m", "torch.distributed.run", "--max-restarts=1")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of `CHANGED` as a file."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(json.dumps(tiny.tiny_settings(**CHANGED).resolved()))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two ranks without any fault."""
    return train(2, tmp_path_factory.mktemp("undisturbed") / "run", **CHANGED)


def start(*command: str | Path, program: str | Path = sys.executable, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(program), *map(str, command)],
        env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(processes: Sequence[subprocess.Popen[str] | forked.Program]) -> list[tuple[int | None, str, str]]:
    """Return status, output and errors of each process; none may still run."""
    found = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=PATIENCE_SECONDS)
            found.append((process.returncode, output, errors))
    finally:
        for process in processes:
            process.kill()
    return found


def rendezvous(name: str) -> tuple[str, ...]:
    """Options of torchrun for one process per agent; agents meet at a free port of this machine."""
    endpoint = f"--rdzv-endpoint=127.0.0.1:{forked.free_port()}"
    return "--nproc_per_node=1", "--rdzv-backend=c10d", endpoint, f"--rdzv-id={name}", "--local-addr=127.0.0.1"


def two_ranks(
    fault: str, config: Path, run: Path, of_rank_1: tuple[str, ...] = ()
) -> list[tuple[int | None, str, str]]:
    """Two ranks without torchrun, which would itself end the others."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(forked.free_port()), "FAULT": fault}
    arguments = (SABOTEUR, "--config", config, "--run-dir", run)
    first = forked.Program(*arguments, RANK="0", LOCAL_RANK="0", **place)
    return ends([first, forked.Program(*arguments, *of_rank_1, RANK="1", LOCAL_RANK="1", **place)])


def test_the_error_of_a_rank_is_printed_on_rank_0_and_all_ranks_stop(config: Path, tmp_path: Path) -> None:
    """Rank 0 sleeps in its step: only a watching thread can print the error and end the process."""
    (status_0, _, errors_0), (status_1, output_1, errors_1) = two_ranks("raise", config, tmp_path / "run")
    assert (status_0, status_1) == (1, 1)
    assert errors_0.count("ArithmeticError: the saboteur was here") == 1
    assert errors_0.startswith("coupled train: rank 1: Traceback")
    assert (output_1, errors_1) == ("", "")


def test_ranks_with_different_settings_are_refused(config: Path, tmp_path: Path) -> None:
    """Otherwise half of each batch could be trained with another seed."""
    (status_0, _, errors_0), (status_1, _, errors_1) = two_ranks("none", config, tmp_path / "run", ("seed=4",))
    assert (status_0, status_1) == (2, 2)
    assert errors_0.startswith(
        "coupled train: rank 1: seed: rank 1 has 4, rank 0 has 3; start every rank with the same"
    )
    assert (errors_0.count("\n"), errors_1) == (1, "")
    assert not (tmp_path / "run").exists()


def test_an_invalid_command_line_is_reported_once_in_one_line() -> None:
    """Every rank parses the command line; eight usage messages would hide the error."""
    ranks_0_and_1 = [start(TRAIN, "--resum", RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    (status_0, _, errors_0), (status_1, _, errors_1) = ends(ranks_0_and_1)
    assert (status_0, errors_0) == (2, "train.py: unrecognized arguments: --resum; did you mean '--resume'?\n")
    assert (status_1, errors_1) == (2, "")


def test_ranks_stop_after_a_timeout_if_one_does_not_answer(tmp_path: Path) -> None:
    """A machine that hangs must not block the others forever; the timeout is a setting."""
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(tiny.tiny_settings(**CHANGED, timeout_seconds=10).resolved()))
    (status_0, _, errors_0), (status_1, _, errors_1) = two_ranks("sleep", config, tmp_path / "run")
    assert (status_0, status_1, errors_1) == (1, 1, ""), errors_0
    assert "rank 0: Traceback" in errors_0
    assert "imed out" in errors_0


def test_a_rank_killed_under_one_of_two_agents_makes_both_restart_and_continue_exactly(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """By scripts/two_nodes.sh. Each agent counts restarts separately: ranks must still find each other and report the
    failure once. The result does not depend on the number of machines.
    """
    torchrun = tmp_path / "bin/torchrun"  # of another program than the script's
    torchrun.parent.mkdir()
    agent = f"{forked.python()} -m torch.distributed.run"  # as a forked process, which starts the ranks as such
    torchrun.write_text(f'#!/bin/bash\nexec {agent} "${{@/%*train.py/{SABOTEUR}}}"\n')
    torchrun.chmod(0o755)
    environment = {
        "PATH": os.pathsep.join([str(torchrun.parent), os.environ["PATH"]]),
        "HEAD": f"127.0.0.1:{forked.free_port()}",
        "LOCAL_ADDR": "127.0.0.1",
        "FAULT": "kill",
    }
    command = (tiny.REPOSITORY / "scripts/two_nodes.sh", "--config", config, "--run-dir", tmp_path / "run")
    ended = ends([start(*command, program="bash", **environment) for _ in range(2)])
    errors = "\n".join(errors for _, _, errors in ended)
    assert [status for status, _, _ in ended] == [0, 0], errors
    assert errors.count("coupled train: rank") <= 1, errors
    assert sum(output.count("continuing after step 4") for _, output, _ in ended) == 1
    assert_same_run(undisturbed, tmp_path / "run")


def test_two_nodes_starts_train_py_by_a_path_without_parent_folders(tmp_path: Path) -> None:
    """Suggested commands contain the path of the program; `scripts/../coupled/train.py` would appear in them."""
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    script = tiny.REPOSITORY / "scripts/../scripts/two_nodes.sh"
    ((status, output, _),) = ends([start(script, "a.yaml", program="bash", PATH=path, HEAD="localhost:1")])
    assert (status, output.split()[-2:]) == (0, [str(TRAIN), "a.yaml"])


def test_a_restart_does_not_continue_the_run_of_another_launch(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: Path,
) -> None:
    """Without --resume an existing run is refused, also when torchrun restarts the refused ranks."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000008")
    monkeypatch.setattr(train_program, "end_with_agent", lambda program: None)  # nothing here is an agent
    for name, value in {"RUN_ID": "none", "RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    about = json.loads((tmp_path / "run/run.json").read_text())
    for launch in (
        {"name": "none", "agents": ["elsewhere:1"]},
        {"name": "other", "agents": list(join_rendezvous().launch.agents)},
    ):
        (tmp_path / "run/run.json").write_text(json.dumps({**about, "launch": launch}))
        assert train_program.main(["--config", str(config), "--run-dir", str(tmp_path / "run")]) == 2
        assert capsys.readouterr().err.startswith("coupled train: --run-dir: a run is already in")


def test_the_other_ranks_report_that_rank_0_was_killed(config: Path, tmp_path: Path) -> None:
    """The store ends with rank 0; the other ranks must neither end silently nor wait forever."""
    (status_0, _, _), (status_1, _, errors_1) = two_ranks("kill first", config, tmp_path / "run")
    assert (status_0, status_1) == (-9, 1)
    assert errors_1.count("coupled train: rank 1: Traceback") == 1


def test_ranks_save_and_stop_when_their_agent_is_killed(config: Path, tmp_path: Path) -> None:
    """Otherwise they would train on unattended, and no other process could continue the run."""
    command = (*AGENT, "--standalone", "--nproc_per_node=2", SABOTEUR, "--config", config, "epochs=200")
    # the pipes end with the ranks
    command = (*command, "--run-dir", tmp_path / "run")
    ((status, output, errors),) = ends([start(*command, program=forked.python(), FAULT="orphan")])
    assert status == -signal.SIGKILL, errors
    assert output.count("global batch 360 = 2 x 180") == 1  # the other rank says nothing
    (said,) = (line for line in errors.splitlines() if "coupled train" in line)  # torch warns too, of the agent's store
    assert re.fullmatch(r"coupled train: torchrun's agent \(process \d+\) has ended; stopping", said)
    stopped = re.search(r"stopped by .+ after step (\d+) of 800; the run is saved", output)
    assert stopped, output + errors
    state = read_newest(tmp_path / "run/checkpoints")
    assert state is not None
    assert (state.step, (tmp_path / "run/lock").exists()) == (int(stopped[1]), False)
