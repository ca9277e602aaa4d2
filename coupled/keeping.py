"""What is written of a run, and when: rows at once, snapshots and resume states in a thread beside training."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coupled import resume_state
from coupled.durably import write_durably
from coupled.resume_state import ResumeState
from coupled.run_log import RunLog
from coupled.snapshots import Entry, SnapshotStore
from coupled.stream.batches import Batch
from coupled.write_behind import WriteBehind

MIB = 2**20
WAITING = 2  # generations copied and not yet written, each as large as all arms


class Keeper:
    """What a rank writes of the run in the folder `run`, continued after `done` or afresh.

    Every rank writes the files of the arms it keeps, in a thread beside training. Rank 0, which has the `log`, then
    makes them count in one job: rows synced, lines of the manifest, and last the resume state that counts all as done.
    Where other ranks keep arms too, it learns of their files by `together`, which all ranks call at the same time: at
    the first step at which the files of all are written.
    """

    def __init__(
        self,
        run: Path,
        log: RunLog | None,
        done: ResumeState | None,
        kept_epochs: Collection[int],
        about: Mapping[str, str],
        together: Callable[[dict[str, Any]], dict[str, Any]] | None,
    ) -> None:
        self.run, self.log, self.together = run, log, together
        self.kept_epochs, self.about = frozenset(kept_epochs), dict(about)
        self.snapshots = SnapshotStore(run / "snapshots")
        if log:
            self.snapshots.cut(done.epoch if done else -1)
            resume_state.begin(run / "resume")
        self.saved_step = done.step if done else -1
        self.behind = WriteBehind(WAITING)
        self.unsettled: tuple[ResumeState, Future[Any]] | None = None

    def keep(self, state: ResumeState, ends_epoch: bool) -> None:
        """Copy the tensors of `state`, of this rank's arms, and have them written; if it has just ended, as the epoch's
        snapshots too.

        Waits only for the copy, and for the disk if it is behind by more than a generation. Raises OSError if an
        earlier one failed.
        """
        if state.step == self.saved_step:
            return
        self.settle()
        self.saved_step = state.step
        copied = replace(state, arms={arm: on_host(tensors) for arm, tensors in state.arms.items()})
        snapshots = ends_epoch and state.epoch in self.kept_epochs
        if self.together:
            self.unsettled = copied, self.behind.put(lambda: self._write(copied, snapshots))
        elif self.log:
            self.behind.put(lambda: self._commit(copied, self._write(copied, snapshots)))

    def busy(self) -> bool:
        """Whether files that other ranks must be told of are still being written."""
        return self.unsettled is not None and not self.unsettled[1].done()

    def settle(self) -> None:
        """Tell all ranks which files are written, so that rank 0 makes them count. All ranks call it together."""
        if self.unsettled and self.together:
            (state, written), self.unsettled = self.unsettled, None
            of_all = self.together(written.result())
            if self.log:
                self.behind.put(lambda: self._commit(state, of_all))

    def finish(self) -> None:
        """Wait until everything is on the disk. All ranks call it together. Raises OSError if it could not be."""
        self.settle()
        self.behind.finish()

    def _write(self, state: ResumeState, snapshots: bool) -> dict[str, Any]:
        """The files of the arms; of each the digest in the resume state, and its line of the manifest."""
        written: dict[str, Any] = {}
        for arm, tensors in state.arms.items():
            entry = None
            if snapshots:
                network = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
                entry = asdict(
                    self.snapshots.write_file(arm, state.epoch, network, step=state.step, metadata=self.about)
                )
            written[arm] = [resume_state.write_arm(self.run / "resume", state.step, arm, tensors), entry]
        return written

    def _commit(self, state: ResumeState, written: Mapping[str, Any]) -> None:
        assert self.log
        self.log.sync()
        for _, entry in written.values():
            if entry:
                self.snapshots.add(Entry(**entry))
        digests = {arm: digest for arm, (digest, _) in written.items()}
        resume_state.commit(self.run / "resume", state.step, state.epoch, digests, state.sums)

    def close(self) -> None:
        """Wait for the disk and close the files; does not say whether all was well: `finish` does."""
        self.behind.close()
        if self.log:
            self.log.close()


def write_replay(
    run: Path, batch: Batch, step: int, lr: float, error: str, results: Mapping[str, Mapping[str, float]]
) -> Path:
    """Write what a step that failed saw (place, inputs, rate, every arm's loss and gradient norm as text); the file."""
    content = {
        "format": "coupled.replay.1",
        "epoch": batch.epoch,
        "step": step,
        "batch": batch.number,
        "inputs_digest": batch.inputs_digest,
        "indices": batch.indices_N.tolist(),
        "lr": lr,
        "error": error,
        "arms": {name: {key: str(value) for key, value in result.items()} for name, result in results.items()},
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


def space(run: Path, one: int, snapshots: int, check: bool) -> str:
    """One line about the bytes needed by so many snapshots of all arms, each time `one`, and by the resume states, and
    about those free where the folder `run` is or will be.

    Raises ValueError if they do not fit and `check` is set. What a run to be overwritten holds is not counted as free:
    it is deleted only after this check.
    """
    # a resume state holds weights and up to two moments; a third generation is written before the oldest is dropped
    needed = one * (snapshots + 3 * (resume_state.KEPT + 1))
    folder = run.resolve()
    free = shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free
    if check and needed > free:
        raise ValueError(
            f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{run}'; thin them with"
            " snapshots.every and snapshots.dense_until, free space, or set snapshots.check_free_space=false"
        )
    return f"snapshots and resume states need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk"
