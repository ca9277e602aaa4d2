"""Write snapshots and checkpoints in a background thread of every rank that owns arms.

The rank that owns an arm writes its files. Rank 0 waits for the files of all arms, then adds them to the manifest and
makes the checkpoint valid. The ranks communicate only through these files, so training never waits for another rank's
disk.
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

MAX_PENDING = 2  # checkpoints in memory that wait to be written; each is as large as the arms of the rank
POLL_SECONDS, GRACE_SECONDS = 0.01, 5.0


class Position(NamedTuple):
    """Epochs and steps that the newest checkpoint records as completed."""

    epoch: int
    step: int


NO_CHECKPOINT = Position(-1, -1)


def check_nothing_lost(
    run: Path, settings_sha256: str, arms: Sequence[str], kept_epochs: Collection[int], saved: Position
) -> None:
    """Raise ValueError if a snapshot of a completed epoch is missing, or if all checkpoints are.

    The run would otherwise end with an epoch missing, or silently start again from the beginning.
    """
    try:
        before = max((line.step for line in log_digests.read(run, settings_sha256)), default=0)
    except ValueError as error:
        raise ValueError(
            f"{error}; restore the file, or delete it to continue without a check of the rows written so far"
        ) from None
    store = SnapshotStore(run / "snapshots")
    if saved == NO_CHECKPOINT:  # a snapshot of a trained epoch also shows that there were checkpoints
        before = max([before, *(entry.step for entry in store.entries())])
    if before > 0 and saved == NO_CHECKPOINT:
        raise ValueError(
            f"{run / 'checkpoints'}: no checkpoint, but step {before} was saved; restore the folder, or pass"
            " --overwrite to start the run again"
        )
    epochs = [epoch for epoch in sorted(kept_epochs) if epoch <= saved.epoch]
    for epoch, text in store.missing(arms, epochs):
        states = checkpoints.list_checkpoints(run / "checkpoints")
        later = [state.name for state in states if read_header(state, None).epoch >= epoch]
        again = f", delete {' and '.join(later)} in {run / 'checkpoints'} to train the epoch again"
        raise ValueError(
            f"{text}, but the newest checkpoint has completed epoch {saved.epoch}; restore the snapshot"
            f"{again if len(later) < len(states) else ''}, or pass --overwrite to start the run again"
        )


def open_files(
    opened: ExitStack,
    run: Path,
    group: ProcessGroup,
    about: Mapping[str, Any],
    arms: Sequence[str],
    digests: Sequence[str],
    columns: Sequence[str],
    own_rates: Sequence[str],
    kept_epochs: Collection[int],
    saved: Position,
) -> tuple[RunLog | None, "CheckpointWriter | None"]:
    """Open the files that the run writes after `saved`: the log on rank 0, a writer on every rank that owns arms.

    Called by all ranks together. Rows, snapshots and checkpoints that are later than `saved` or half written are
    deleted first. Raises ValueError as `check_nothing_lost` does.
    """
    log, writer = None, None
    if group.is_first:
        check_nothing_lost(run, about["settings_sha256"], arms, kept_epochs, saved)
        done = max(saved.epoch, 0), max(saved.step, 0)
        log = RunLog(run, about["settings_sha256"], digests, arms, columns, own_rates, *done)
        opened.callback(log.close)
        SnapshotStore(run / "snapshots").cut(saved.epoch)
        checkpoints.clear_temporary(run / "checkpoints")
    barrier()
    if group.owns_arms:
        writer = CheckpointWriter(run, arms, log, saved, kept_epochs, about)
        opened.callback(writer.close)
    return log, writer


class CheckpointWriter:
    """Writes the files of this rank's arms into the folder `run`; the rank with the `log` makes them valid.

    One job writes a checkpoint in this order: sync the rows, write the snapshots, write the digests of the rows, and
    last write state.json, which makes the checkpoint valid. `arms` are the arms of all ranks.
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
        # rank 0 deletes the lock when it fails, so the other ranks watch a file that is never deleted
        self.watched = run / (LOCK if log else "steps.csv")
        self.handle = os.open(self.watched, os.O_RDONLY)

    def save(self, state: Checkpoint, ends_epoch: bool) -> None:
        """Copy the tensors of `state` and queue the checkpoint; also the snapshots if an epoch has just ended.

        Waits only for the copy, and for the disk if two checkpoints are queued. Raises OSError if an earlier write
        failed, MovedError if the run folder was moved.
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
        try:
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
        finally:  # a missing file is then reported as a moved or deleted run folder
            check_in_place(self.handle, self.watched)

    def _snapshot(self, arm: str, state: Checkpoint, tensors: Mapping[str, Tensor]) -> Entry:
        network = {n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")}
        return self.snapshots.write_file(arm, state.epoch, network, step=state.step, metadata=self.about)

    def _parts(self, step: int) -> list[checkpoints.Part]:
        """Wait for the parts of all arms and return them; raise OSError if one is missing when the run closes."""
        left = GRACE_SECONDS
        while (parts := checkpoints.read_parts(self.folder, step, self.arms)) is None:
            if left <= 0:
                raise OSError(
                    f"{self.folder}: the checkpoint of step {step} is incomplete: another rank did not write its part"
                )
            time.sleep(POLL_SECONDS)
            left -= POLL_SECONDS * self.closing.is_set()
        return parts

    def close(self) -> None:
        """Wait until everything is written. Errors are not raised here but by `background.finish`."""
        self.closing.set()
        self.background.close()
        os.close(self.handle)


def replay_path(run: Path, step: int) -> Path:
    """Return the file in which `write_replay` stores the inputs of a step."""
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
    """Write a JSON file about a failed step.

    It has epoch, step, learning rate, error, loss and gradient norm of every arm as text, and the inputs of this rank,
    under the name of the column of steps.csv that has their digest.
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
    """Return copies on the CPU that training does not change; CUDA tensors are copied through pinned memory."""
    copies = {}
    for name, tensor in tensors.items():
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies[name] = copy.copy_(tensor.detach(), non_blocking=True)
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return copies
