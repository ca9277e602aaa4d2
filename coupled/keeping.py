"""What rank 0 writes of a run, and when: rows at once, snapshots and resume states in a thread beside training."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from coupled import resume_state
from coupled.lockstep import Attempt
from coupled.resume_state import ResumeState
from coupled.run_log import RunLog
from coupled.snapshots import SnapshotStore, write_durably
from coupled.stream.batches import Batch
from coupled.write_behind import WriteBehind

MIB = 2**20
WAITING = 2  # generations copied and not yet written, each as large as all arms


class Keeper:
    """Opens the logs and the snapshots of the folder `run` to continue after `done`, or afresh.

    A generation is written in one job: rows synced, snapshots, and last the resume state that counts them as done.
    """

    def __init__(
        self,
        run: Path,
        arms: Sequence[str],
        columns: Sequence[str],
        done: ResumeState | None,
        kept_epochs: Collection[int],
        about: Mapping[str, str],
    ) -> None:
        self.run, self.kept_epochs, self.about = run, frozenset(kept_epochs), dict(about)
        self.log = RunLog(run, arms, columns, done.epoch if done else 0, done.step if done else 0)
        self.snapshots = SnapshotStore(run / "snapshots")
        self.snapshots.cut(done.epoch if done else -1)
        self.saved_step = done.step if done else -1
        self.behind = WriteBehind(WAITING)

    def keep(self, state: ResumeState, ends_epoch: bool) -> None:
        """Copy the tensors of `state` and have them written; the epoch's snapshots too if it has just ended.

        Waits only for the copy, and for the disk if it is two generations behind. Raises OSError if an earlier one
        failed.
        """
        if state.step == self.saved_step:
            return
        self.saved_step = state.step
        arms = {arm: on_host(tensors) for arm, tensors in state.arms.items()}
        copied = ResumeState(state.step, state.epoch, arms, state.sums)
        self.behind.put(lambda: self._write(copied, ends_epoch and state.epoch in self.kept_epochs))

    def _write(self, state: ResumeState, snapshots: bool) -> None:
        self.log.sync()
        for arm, tensors in state.arms.items() if snapshots else ():
            network = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
            self.snapshots.write(arm, state.epoch, network, step=state.step, metadata=self.about)
        resume_state.write(self.run / "resume", state)

    def close(self) -> None:
        """Wait for the disk and close the files; does not say whether all was well: `behind.finish` does."""
        self.behind.close()
        self.log.close()


def write_replay(run: Path, batch: Batch, step: int, lr: float, made: Attempt) -> Path:
    """Write what a step that failed saw (place, inputs, rate, every arm's loss and gradient norm as text); the file."""
    content = {
        "format": "coupled.replay.1",
        "epoch": batch.epoch,
        "step": step,
        "batch": batch.number,
        "inputs_digest": batch.inputs_digest,
        "indices": batch.indices_N.tolist(),
        "lr": lr,
        "error": str(made.error),
        "arms": {name: {key: str(value) for key, value in r._asdict().items()} for name, r in made.results.items()},
    }
    path = run / "replay" / f"step_{step:08d}.json"
    write_durably(path, (json.dumps(content) + "\n").encode())
    return path


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that training no longer touches; of CUDA tensors all in one go, through pinned memory."""
    copies = {}
    for name, tensor in tensors.items():
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies[name] = copy.copy_(tensor.detach(), non_blocking=True)
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return copies


def space(run: Path, one: int, snapshots: int, overwrite: bool, check: bool) -> str:
    """One line about the bytes needed by so many snapshots of all arms, each time `one`, and by the resume states, and
    about those free where the folder `run` is or will be.

    Raises ValueError if they do not fit and `check` is set. Of a run to be overwritten the bytes count as free.
    """
    # a resume state holds weights and up to two moments; a third generation is written before the oldest is dropped
    needed = one * (snapshots + 3 * (resume_state.KEPT + 1))
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if overwrite and run.is_dir():
        free += sum(path.lstat().st_size for path in run.rglob("*") if path.is_file())
    text = f"snapshots and resume states need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk"
    if check and needed > free:
        raise ValueError(
            f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{run}'; thin them with"
            " snapshots.every and snapshots.dense_until, free space, or set snapshots.check_free_space=false"
        )
    return text
