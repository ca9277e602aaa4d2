"""scripts/slurm.sbatch, with replacements of srun, scontrol and python that record their calls."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import tiny

SCRIPT = tiny.REPOSITORY / "scripts/slurm.sbatch"
PROGRAMS = {
    "bin/srun": """
echo "srun $1 cpus=$SRUN_CPUS_PER_TASK" >>calls
while [ "${1#--}" != "$1" ]; do shift; done
highest=0
for task in 0 1 2 3; do
    status=0
    SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) "$@" || status=$?
    [ "$status" -le "$highest" ] || highest=$status
done
exit "$highest"
""",
    "bin/scontrol": """
[ "$1" = show ] && printf '%s\\n' "head of $3" other || echo "scontrol $*" >>calls
""",
    "venv/bin/activate": 'PATH="$VENV/bin:$PATH"',
    "venv/bin/python": """
echo "$RANK/$WORLD_SIZE local $LOCAL_RANK at $MASTER_ADDR:$MASTER_PORT threads=$OMP_NUM_THREADS: $*" >>calls
[ "$RANK" = 0 ] || exit "$STATUS"
""",
}
JOB = {
    "SLURM_JOB_ID": "4200017",
    "SLURM_JOB_NODELIST": "node[7-8]",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_CPUS_PER_TASK": "6",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with the programs that the script calls."""
    for name, text in PROGRAMS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(0o755)
    return tmp_path


def submit(cluster: Path, *arguments: str, **changed: str | None) -> tuple[int, list[str], str]:
    """Run the script as a job in the folder `cluster`; return exit status, calls and errors."""
    (cluster / "calls").write_text("")
    path = os.pathsep.join([str(cluster / "bin"), os.environ["PATH"]])
    environment = {**os.environ, **JOB, "PATH": path, "VENV": str(cluster / "venv"), **changed}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=cluster,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
    )
    return done.returncode, (cluster / "calls").read_text().splitlines(), done.stderr


def test_a_job_starts_one_rank_per_task_with_its_arguments(cluster: Path) -> None:
    """All ranks get the same address and one GPU each. Since SLURM 22.05, srun needs SRUN_CPUS_PER_TASK."""
    status, calls, errors = submit(cluster, "my run.yaml", "--run-dir", "runs/a b", STATUS="0")
    assert (status, errors) == (0, "")
    place, train = "at head of node[7-8]:10017 threads=6", "coupled/train.py --config my run.yaml --resume"
    assert calls == [
        "srun --wait=60 cpus=6",
        *(f"{rank}/4 local {rank % 2} {place}: {train} --run-dir runs/a b" for rank in range(4)),
    ]


@pytest.mark.parametrize(("status", "requeued"), [(75, True), (0, False), (1, False), (2, False), (137, False)])
def test_a_job_is_requeued_only_if_its_run_can_continue(cluster: Path, status: int, requeued: bool) -> None:
    """SLURM's --requeue has no effect at the time limit. Finished, rejected and failed runs are not requeued."""
    ended, calls, _ = submit(cluster, "run.yaml", STATUS=str(status))
    assert [call for call in calls if call.startswith("scontrol")] == ["scontrol requeue 4200017"] * requeued
    assert ended == (0 if requeued else status)


def test_a_job_on_cpus_needs_no_gpus_and_a_wrong_number_of_tasks_is_refused(cluster: Path) -> None:
    """NCCL needs one task per GPU, and a GPU without a task is idle."""
    assert submit(cluster, "run.yaml", STATUS="0", SLURM_GPUS_ON_NODE=None)[0] == 0
    status, calls, errors = submit(cluster, "run.yaml", STATUS="0", SLURM_GPUS_ON_NODE="8")
    assert (status, calls) == (2, [])
    assert errors == "slurm.sbatch: 8 GPUs and 2 tasks per node; set --ntasks-per-node=8\n"
    assert "usage: sbatch scripts/slurm.sbatch CONFIG" in submit(cluster)[2]


def test_a_job_asks_for_a_signal_before_its_time_limit() -> None:
    """The job steps get the signal on which train.py stops. Logs are appended, not overwritten."""
    options = re.findall(r"^#SBATCH (\S+)$", SCRIPT.read_text(), flags=re.MULTILINE)
    assert {"--requeue", "--signal=USR1@120", "--output=%x-%j.out", "--open-mode=append"} <= set(options)
