"""What is written of a run beside training: snapshots and checkpoints, in a thread of every rank that owns arms.

The owner of an arm writes its files; rank 0 waits for those of all arms before it counts them in the manifest and makes
the checkpoint valid. Ranks tell each other through the files alone: training waits for nobody.
"""

import json
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coupled.parallel.process_group import ProcessGroup, barrier
from coupled.storage import checkpoints, log_digests
from coupled.storage.atomic_files import write_durably
from coupled.storage.checkpoint_head import read_header
from coupled.storage.checkpoints import Checkpoint
from coupled.storage.log_digests import LogState
from coupled.storage.run_lock import NAME as LOCK
from coupled.storage.run_lock import check_in_place
from coupled.storage.run_log import RunLog
from coupled.storage.snapshots import Entry, SnapshotStore
from coupled.storage.write_behind import BackgroundWriter
from coupled.stream.batches import Batch

MAX_PENDING = 2  # checkpoints copied and not yet written, each as large as the arms of the rank
POLL_SECONDS, GRACE_SECONDS = 0.01, 5.0


class Position(NamedTuple):
    """Whole epochs and steps that the newest checkpoint counts as done."""

    epoch: int
    step: int


NO_CHECKPOINT = Position(-1, -1)


def check_nothing_lost(
    run: Path, settings_sha256: str, arms: Sequence[str], kept_epochs: Collection[int], saved: Position
) -> None:
    """Raise ValueError if a snapshot is gone that the newest checkpoint counts as done, or that state itself.

    The run would otherwise end complete with an epoch missing for good, or begin again without a word.
    """
    try:
        before = max((line.step for line in log_digests.read(run, settings_sha256)), default=0)
    except ValueError as error:
        raise ValueError(f"{error}; restore it, or delete the file to go on without a check of the rows") from None
    store = SnapshotStore(run / "snapshots")
    if saved == NO_CHECKPOINT:  # a snapshot of a trained epoch, too, says that there were checkpoints
        before = max([before, *(entry.step for entry in store.entries())])
    if before > 0 and saved == NO_CHECKPOINT:
        raise ValueError(
            f"{run / 'checkpoints'}: no checkpoint, but step {before} was saved; restore it, or pass --overwrite to"
            " begin again"
        )
    epochs = [epoch for epoch in sorted(kept_epochs) if epoch <= saved.epoch]
    for epoch, text in store.missing(arms, epochs):
        states = checkpoints.list_checkpoints(run / "checkpoints")
        later = [state.name for state in states if read_header(state, None).epoch >= epoch]
        again = f", or delete {' and '.join(later)} in {run / 'checkpoints'} to train it again"
        raise ValueError(
            f"{text}, but the newest checkpoint counts epoch {saved.epoch} as done; restore it"
            f"{again if len(later) < len(states) else ''}, or pass --overwrite to begin again"
        )


def open_files(
    opened: ExitStack,
    run: Path,
    group: ProcessGroup,
    about: Mapping[str, Any],
    arms: Sequence[str],
    digests: Sequence[str],
    columns: Sequence[str],
    kept_epochs: Collection[int],
    saved: Position,
) -> tuple[RunLog | None, "CheckpointWriter | None"]:
    """Open what the run writes after `saved`, all ranks together: on rank 0 the log, on every owner of arms a writer.

    What comes later or was half written is cleared away first, in the rows and among snapshots and checkpoints. Raises
    ValueError as `check_nothing_lost`.
    """
    log, writer = None, None
    if group.is_first:
        check_nothing_lost(run, about["settings_sha256"], arms, kept_epochs, saved)
        done = max(saved.epoch, 0), max(saved.step, 0)
        log = RunLog(run, about["settings_sha256"], digests, arms, columns, *done)
        opened.callback(log.close)
        SnapshotStore(run / "snapshots").cut(saved.epoch)
        checkpoints.clear_temporary(run / "checkpoints")
    barrier()
    if group.owns_arms:
        writer = CheckpointWriter(run, arms, log, saved, kept_epochs, about)
        opened.callback(writer.close)
    return log, writer


class CheckpointWriter:
    """Writes the files of this rank's arms in the folder `run`; the rank with the `log` makes them count.

    A checkpoint is written in one job: rows synced, snapshots, the rows' digests, and last the state.json that counts
    them as done.
    `arms` are those of all ranks.
    """

    def __init__(
        self,
        run: Path,
        arms: Sequence[str],
        log: RunLog | None,
        saved: Position,
        kept_epochs: Collection[int],
        about: Mapping[str, Any],
    ) -> None:
        self.run, self.folder, self.arms, self.log = run, run / "checkpoints", tuple(arms), log
        self.kept_epochs, self.about, self.saved_step = frozenset(kept_epochs), dict(about), saved.step
        self.snapshots = SnapshotStore(run / "snapshots")
        self.background, self.closing = BackgroundWriter(MAX_PENDING), threading.Event()
        # rank 0 deletes the lock when it fails, so the others look for a file that stays
        self.watched = run / (LOCK if log else "steps.csv")
        self.handle = os.open(self.watched, os.O_RDONLY)

    def save(self, state: Checkpoint, ends_epoch: bool) -> None:
        """Copy the tensors of `state` and have them written; the epoch's snapshots too if it has just ended.

        Waits only for the copy, and for the disk if it is two checkpoints behind. Raises OSError if an earlier one
        failed, MovedError if the run folder is no longer at its path.
        """
        check_in_place(self.handle, self.watched)
        if state.step == self.saved_step:
            return
        self.saved_step = state.step
        arms = {arm: on_host(tensors) for arm, tensors in state.arms.items()}
        copied = Checkpoint(state.step, state.epoch, arms, state.sums)
        rows = self.log.state(state.epoch, state.step) if self.log else None
        self.background.put(lambda: self._write(copied, ends_epoch and state.epoch in self.kept_epochs, rows))

    def _write(self, state: Checkpoint, snapshots: bool, rows: LogState | None) -> None:
        check_in_place(self.handle, self.watched)
        if self.log:
            self.log.sync()
        for arm, tensors in state.arms.items():
            entry = asdict(self._snapshot(arm, state, tensors)) if snapshots else None
            checkpoints.write_part(self.folder, state.step, arm, tensors, entry)
        if rows:
            for part in self._parts(state.step):
                if part.entry:
                    self.snapshots.add(Entry(**part.entry))
            log_digests.append(self.run, rows)
            sha256 = self.about["settings_sha256"]
            checkpoints.commit(self.folder, state.step, state.epoch, state.sums, self.arms, sha256)
        check_in_place(self.handle, self.watched)

    def _snapshot(self, arm: str, state: Checkpoint, tensors: Mapping[str, Tensor]) -> Entry:
        network = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
        return self.snapshots.write_file(arm, state.epoch, network, step=state.step, metadata=self.about)

    def _parts(self, step: int) -> list[checkpoints.Part]:
        """The parts of all arms, once their owners have written them; soon given up when the run is closing."""
        left = GRACE_SECONDS
        while (parts := checkpoints.read_parts(self.folder, step, self.arms)) is None:
            if left <= 0:
                raise OSError(f"{self.folder}: another rank did not write its part of step {step}")
            time.sleep(POLL_SECONDS)
            left -= POLL_SECONDS * self.closing.is_set()
        return parts

    def close(self) -> None:
        """Wait for the disk; does not say whether all was well: `background.finish` does."""
        self.closing.set()
        self.background.close()
        os.close(self.handle)


def replay_path(run: Path, step: int) -> Path:
    """Where `write_replay` puts what a step saw."""
    return run / "replay" / f"step_{step:08d}.json"


def write_replay(
    run: Path,
    epoch: int,
    step: int,
    inputs: Mapping[str, Batch],
    lr: float,
    error: str,
    results: Mapping[str, Mapping[str, float]],
) -> None:
    """Write what a step that failed saw: place, rate, every arm's loss and gradient norm as text, and of this rank the
    inputs, by the column of steps.csv that has their digest.
    """
    content = {
        "format": "coupled.replay.1",
        "epoch": epoch,
        "step": step,
        "inputs": {
            column: {"batch": batch.number, "digest": batch.inputs_digest, "indices": batch.indices_G.tolist()}
            for column, batch in inputs.items()
        },
        "lr": lr,
        "error": error,
        "arms": {name: {key: str(value) for key, value in result.items()} for name, result in results.items()},
    }
    write_durably(replay_path(run, step), (json.dumps(content) + "\n").encode())


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that training no longer touches; of CUDA tensors all in one go, through pinned memory."""
    copies = {}
    for name, tensor in tensors.items():
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies[name] = copy.copy_(tensor.detach(), non_blocking=True)
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return copies
